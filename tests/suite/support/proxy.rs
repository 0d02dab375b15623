//! A wire-protocol proxy in front of one server: it loses or damages replies, or the whole network.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::random::Random;

const HEADER_BYTES: usize = 16;
/// In an OP_MSG: flags, the kind of the first section, the document's length, the first type.
const COMMAND_NAME_AT: usize = HEADER_BYTES + 4 + 1 + 4 + 1;

/// What to lose: the server runs the next command of this name, and its reply comes as said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Not at all; the connection ends.
    NextReplyTo(&'static str),
    /// Its first half; then the connection ends.
    HalfOfReplyTo(&'static str),
    /// As long as it should be, and with nothing in it that means anything.
    GarbageFor(&'static str),
    /// The same with bytes drawn from a seed.
    RandomFor(&'static str, u64),
    /// With a header that promises two gigabytes.
    HugeReplyTo(&'static str),
    /// With a header that promises less than nothing.
    NegativeReplyTo(&'static str),
}

impl Cut {
    fn command(self) -> &'static str {
        match self {
            Cut::NextReplyTo(name)
            | Cut::HalfOfReplyTo(name)
            | Cut::GarbageFor(name)
            | Cut::RandomFor(name, _)
            | Cut::HugeReplyTo(name)
            | Cut::NegativeReplyTo(name) => name,
        }
    }
}

/// The network between a client and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Fine,
    /// Every connection ends, and none is taken.
    Severed,
    /// Nothing goes through and nobody is told. A connection that has lost something this way is
    /// dead for ever, and stays open.
    BlackHole,
    /// The same for what the client sends.
    CommandsLost,
    /// The same for what the server answers.
    RepliesLost,
    /// Each message takes this long, and all of them together no more than so many bytes a second.
    Slow {
        latency: Duration,
        bytes_per_second: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Commands,
    Replies,
}

/// Forwards connections to a server until it is dropped.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: AtomicU16,
    cut: Mutex<Option<Cut>>,
    cuts: AtomicUsize,
    network: watch::Sender<Network>,
    /// Held for as long as a message is on its way at a limited rate.
    wires: [tokio::sync::Mutex<()>; 2],
}

impl Proxy {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            upstream: AtomicU16::new(0),
            cut: Mutex::new(None),
            cuts: AtomicUsize::new(0),
            network: watch::channel(Network::Fine).0,
            wires: Default::default(),
        });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { port, shared, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn forward_to(&self, port: u16) {
        self.shared.upstream.store(port, Ordering::SeqCst);
    }

    pub fn cut(&self, cut: Cut) {
        *self.shared.cut.lock().unwrap() = Some(cut);
    }

    /// How many replies were lost or damaged so far.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    pub fn set(&self, network: Network) {
        self.shared.network.send_replace(network);
    }

    /// Ends every connection and takes no new one.
    pub fn sever(&self) {
        self.set(Network::Severed);
    }

    pub fn heal(&self) {
        self.set(Network::Fine);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let mut network = shared.network.subscribe();
            tokio::select! {
                _ = network.wait_for(|network| *network == Network::Severed) => {}
                _ = forward(client, &shared) => {}
            }
        });
    }
}

/// One connection, and what has become of it.
#[derive(Default)]
struct Connection {
    damage: Mutex<Option<Cut>>,
    dead: AtomicBool,
}

async fn forward(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let port = shared.upstream.load(Ordering::SeqCst);
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let connection = Connection::default();
    tokio::select! {
        ended = commands(from_client, to_server, shared, &connection) => ended,
        ended = replies(from_server, to_client, shared, &connection) => ended,
    }
}

async fn commands(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    connection: &Connection,
) -> io::Result<()> {
    loop {
        let message = read_message(&mut from).await?;
        if let Some(cut) = shared.takes(&message) {
            *connection.damage.lock().unwrap() = Some(cut);
        }
        if shared
            .carries(Direction::Commands, message.len(), connection)
            .await
        {
            to.write_all(&message).await?;
        }
    }
}

/// The server has run the command once its reply is here.
async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    connection: &Connection,
) -> io::Result<()> {
    loop {
        let mut message = read_message(&mut from).await?;
        let damage = connection.damage.lock().unwrap().take();
        if let Some(cut) = damage {
            shared.cuts.fetch_add(1, Ordering::SeqCst);
            if !damaged(cut, &mut message) {
                to.write_all(&message).await?;
                return Ok(());
            }
        }
        if shared
            .carries(Direction::Replies, message.len(), connection)
            .await
        {
            to.write_all(&message).await?;
        }
    }
}

/// Does to a reply what the cut says; whether the connection lives on.
fn damaged(cut: Cut, message: &mut Vec<u8>) -> bool {
    match cut {
        Cut::NextReplyTo(_) => message.clear(),
        Cut::HalfOfReplyTo(_) => message.truncate(message.len() / 2),
        Cut::GarbageFor(_) => {
            message[HEADER_BYTES..].fill(0xff);
            return true;
        }
        Cut::RandomFor(_, seed) => {
            let mut random = Random::new(seed);
            message[HEADER_BYTES..].fill_with(|| random.below(256) as u8);
            return true;
        }
        Cut::HugeReplyTo(_) => {
            message[..4].copy_from_slice(&i32::MAX.to_le_bytes());
            return true;
        }
        Cut::NegativeReplyTo(_) => {
            message[..4].copy_from_slice(&(-7_i32).to_le_bytes());
            return true;
        }
    }
    false
}

async fn read_message(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut message = vec![0; HEADER_BYTES];
    from.read_exact(&mut message).await?;
    let length = u32::from_le_bytes(message[..4].try_into().expect("four bytes")) as usize;
    message.resize(length.max(HEADER_BYTES), 0);
    from.read_exact(&mut message[HEADER_BYTES..]).await?;
    Ok(message)
}

impl Shared {
    /// What is to become of the reply to `message`; asked once, it is no more.
    fn takes(&self, message: &[u8]) -> Option<Cut> {
        let name = message.get(COMMAND_NAME_AT..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut cut = self.cut.lock().unwrap();
        cut.take_if(|cut| cut.command().as_bytes() == name)
    }

    /// Takes as long as the network does; whether the message arrives.
    async fn carries(&self, direction: Direction, bytes: usize, connection: &Connection) -> bool {
        let network = *self.network.borrow();
        let is_lost = match network {
            Network::Fine | Network::Severed => false,
            Network::BlackHole => true,
            Network::CommandsLost => direction == Direction::Commands,
            Network::RepliesLost => direction == Direction::Replies,
            Network::Slow {
                latency,
                bytes_per_second,
            } => {
                let wire = self.wires[direction as usize].lock().await;
                let seconds = bytes as f64 / bytes_per_second as f64;
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
                drop(wire);
                tokio::time::sleep(latency).await;
                false
            }
        };
        if is_lost {
            connection.dead.store(true, Ordering::SeqCst);
        }
        !connection.dead.load(Ordering::SeqCst)
    }
}
