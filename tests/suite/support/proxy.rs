//! A wire-protocol proxy in front of one server: it can lose a reply or the whole network.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const HEADER_BYTES: usize = 16;
/// In an OP_MSG: flags, the kind of the first section, the document's length, the first type.
const COMMAND_NAME_AT: usize = HEADER_BYTES + 4 + 1 + 4 + 1;

/// What to lose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server runs the next command of this name; its reply is lost with the connection.
    NextReplyTo(&'static str),
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
    severed: watch::Sender<bool>,
}

impl Proxy {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared {
            upstream: AtomicU16::new(0),
            cut: Mutex::new(None),
            cuts: AtomicUsize::new(0),
            severed: watch::channel(false).0,
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

    /// How many replies were lost so far.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }

    /// Ends every connection and takes no new one.
    pub fn sever(&self) {
        self.shared.severed.send_replace(true);
    }

    pub fn heal(&self) {
        self.shared.severed.send_replace(false);
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
            let mut severed = shared.severed.subscribe();
            tokio::select! {
                _ = severed.wait_for(|severed| *severed) => {}
                _ = forward(client, &shared) => {}
            }
        });
    }
}

async fn forward(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let port = shared.upstream.load(Ordering::SeqCst);
    let server = TcpStream::connect(("127.0.0.1", port)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let losing = AtomicBool::new(false);
    tokio::select! {
        ended = commands(from_client, to_server, shared, &losing) => ended,
        ended = replies(from_server, to_client, shared, &losing) => ended,
    }
}

async fn commands(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    losing: &AtomicBool,
) -> io::Result<()> {
    loop {
        let message = read_message(&mut from).await?;
        if shared.takes(&message) {
            losing.store(true, Ordering::SeqCst);
        }
        to.write_all(&message).await?;
    }
}

/// The server has run the command once its reply is here; then the connection ends.
async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    losing: &AtomicBool,
) -> io::Result<()> {
    loop {
        let message = read_message(&mut from).await?;
        if losing.load(Ordering::SeqCst) {
            shared.cuts.fetch_add(1, Ordering::SeqCst);
            return Ok(());
        }
        to.write_all(&message).await?;
    }
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
    /// Whether the reply to `message` is the one to lose; asked once, it is no more.
    fn takes(&self, message: &[u8]) -> bool {
        let name = message.get(COMMAND_NAME_AT..).unwrap_or_default();
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let mut cut = self.cut.lock().unwrap();
        let taken = matches!(*cut, Some(Cut::NextReplyTo(wanted)) if wanted.as_bytes() == name);
        if taken {
            *cut = None;
        }
        taken
    }
}
