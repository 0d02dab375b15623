//! A real single-node replica set on a free loopback port, gone when the test is over.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use mongodb::options::ClientOptions;
use tempfile::TempDir;

use super::processes::{guard_with_files, send_signal};
use super::proxy::Proxy;
use super::wait::wait_for;

const START_TIME_MAX: Duration = Duration::from_secs(60);
const ELECTION_TIMEOUT_MS: i32 = 500;

/// How a server is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MongodOptions {
    pub set_name: String,
    pub oplog_megabytes: u32,
    pub cache_gigabytes: &'static str,
    /// Further arguments of the command line.
    pub args: Vec<String>,
    /// The port that the replica set names as its own, of a proxy in front of the server.
    pub advertised_port: Option<u16>,
    /// Variables of the server's environment.
    pub environment: Vec<(String, String)>,
    /// Further options of the test's own connection string.
    pub client_query: String,
}

impl MongodOptions {
    pub fn named(set_name: &str) -> Self {
        Self {
            set_name: set_name.to_owned(),
            oplog_megabytes: 512,
            cache_gigabytes: "0.25",
            args: Vec::new(),
            advertised_port: None,
            environment: Vec::new(),
            client_query: String::new(),
        }
    }

    /// The oplog of such a server rolls over within seconds: it holds back only what the last
    /// checkpoint needs, and that is made every second instead of every minute.
    pub fn with_small_oplog(mut self) -> Self {
        self.oplog_megabytes = 1;
        self.args.extend(["--syncdelay".to_owned(), "1".to_owned()]);
        self
    }

    /// Room for transactions of many megabytes, which the server refuses where they do not fit.
    #[allow(
        dead_code,
        reason = "the demo and the benchmark, which share this file, have no such transactions"
    )]
    pub fn with_large_cache(mut self) -> Self {
        self.cache_gigabytes = "1";
        self
    }
}

/// One running server with its data directory.
pub struct Mongod {
    options: MongodOptions,
    /// None only while it is dropped.
    server: Option<Server>,
    direct: Client,
    client: Client,
    /// The ports of all members, where it is the first one of several.
    set_ports: Vec<u16>,
    /// Who takes the server once the test is over, as long as it is like any other.
    heir: Option<fn(MongodOptions, Server)>,
    is_like_new: AtomicBool,
}

/// The process and its files.
pub struct Server {
    port: u16,
    // Before the directory: fields are dropped in this order, and the server writes there.
    running: Option<Running>,
    dir: TempDir,
}

/// The process, and a guard that kills it when this test program is itself killed.
struct Running {
    process: Child,
    guard: Child,
}

impl Mongod {
    /// Starts a replica set of one and waits until it is primary.
    pub async fn start(options: MongodOptions) -> Self {
        let mut mongod = Self::start_standalone(options).await;
        mongod.initiate().await;
        mongod
    }

    /// The same, where the set names the proxy's port as its own.
    pub async fn start_behind(mut options: MongodOptions, proxy: &Proxy) -> Self {
        options.advertised_port = Some(proxy.port());
        let mut mongod = Self::start_standalone(options).await;
        proxy.forward_to(mongod.port());
        mongod.initiate().await;
        mongod
    }

    /// Starts a server of a replica set that was never initiated.
    pub async fn start_standalone(options: MongodOptions) -> Self {
        let port = free_port();
        let dir = tempfile::Builder::new()
            .prefix("tandem-mongod-")
            .tempdir()
            .expect("a temporary directory");
        let running = Some(launch(&options, port, dir.path(), true));
        Self::of(options, Server { port, running, dir }).await
    }

    /// A server that runs.
    pub async fn of(options: MongodOptions, server: Server) -> Self {
        let client = direct_client(server.port, "", &options.client_query).await;
        Self {
            options,
            server: Some(server),
            direct: client.clone(),
            client,
            set_ports: Vec::new(),
            heir: None,
            is_like_new: AtomicBool::new(true),
        }
    }

    /// Once the test is over, the server goes on for another one, unless more was done to it from here
    /// on than to write.
    pub fn bequeath_to(&mut self, heir: fn(MongodOptions, Server)) {
        self.heir = Some(heir);
        self.is_like_new.store(true, Ordering::Relaxed);
    }

    /// The next test must not get this server.
    fn no_longer_new(&self) {
        self.is_like_new.store(false, Ordering::Relaxed);
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it is not dropped")
    }

    fn server_mut(&mut self) -> &mut Server {
        self.no_longer_new();
        self.server.as_mut().expect("it is not dropped")
    }

    /// From here on it stands for its whole set: `uri` names all members, and `client` follows the
    /// primary.
    pub async fn stand_for(&mut self, ports: &[u16]) {
        self.set_ports = ports.to_vec();
        self.client = Client::with_uri_str(self.uri()).await.expect("a client");
    }

    /// Starts a server without a replica set, which no link accepts.
    pub async fn start_without_set() -> Self {
        let port = free_port();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let options = MongodOptions::named("");
        let running = Some(launch(&options, port, dir.path(), false));
        let mongod = Self::of(options, Server { port, running, dir }).await;
        mongod.wait_answering().await;
        mongod
    }

    async fn initiate(&mut self) {
        self.wait_answering().await;
        let port = self.options.advertised_port.unwrap_or(self.port());
        let config = doc! {
            "_id": &self.options.set_name,
            "members": [{ "_id": 0, "host": format!("127.0.0.1:{port}") }],
            "settings": { "electionTimeoutMillis": ELECTION_TIMEOUT_MS },
        };
        self.admin(doc! { "replSetInitiate": config }).await;
        self.wait_primary().await;
    }

    /// Where access control is on: makes the one user who may do everything, and is it from here on.
    #[allow(
        dead_code,
        reason = "the demo and the benchmark, which share this file, have no users"
    )]
    pub async fn log_in(&mut self) {
        let user = doc! { "createUser": "root", "pwd": "root", "roles": ["__system"] };
        self.admin(user).await;
        self.client = direct_client(self.port(), "root:root@", &self.options.client_query).await;
        self.direct = self.client.clone();
    }

    pub async fn wait_answering(&self) {
        wait_for("mongod answers", START_TIME_MAX, || async {
            self.try_admin(doc! { "ping": 1 }).await.ok()
        })
        .await;
    }

    /// Waits until the server is a writable primary.
    pub async fn wait_primary(&self) {
        wait_for("mongod is primary", START_TIME_MAX, || async {
            let hello = self.try_admin(doc! { "hello": 1 }).await.ok()?;
            hello.get_bool("isWritablePrimary").ok()?.then_some(())
        })
        .await;
    }

    /// The URI by which an application or a link finds the replica set.
    pub fn uri(&self) -> String {
        let own = self.options.advertised_port.unwrap_or(self.port());
        let ports = match self.set_ports.as_slice() {
            [] => &[own],
            ports => ports,
        };
        let hosts: Vec<String> = ports
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let (hosts, set) = (hosts.join(","), &self.options.set_name);
        format!("mongodb://{hosts}/?replicaSet={set}")
    }

    /// A client of the test itself, straight to the server, or to the primary of several members.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn port(&self) -> u16 {
        self.server().port
    }

    #[allow(dead_code, reason = "the demo and the benchmark make no backups")]
    pub fn data_dir(&self) -> &Path {
        self.server().dir.path()
    }

    /// Runs a command on `admin` of this very server; panics where it refuses.
    pub async fn admin(&self, command: Document) -> Document {
        let shown = format!("{command}");
        self.try_admin(command)
            .await
            .unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    pub async fn try_admin(&self, command: Document) -> mongodb::error::Result<Document> {
        if !matches!(
            command.keys().next().map(String::as_str),
            Some("hello" | "ping")
        ) {
            self.no_longer_new();
        }
        self.direct.database("admin").run_command(command).await
    }

    /// Sets the server's `failCommand` fail point.
    pub async fn fail_command(&self, mode: impl Into<bson::Bson>, data: Document) {
        self.admin(doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data })
            .await;
    }

    /// Ends the process at once, as a power cut would; the data directory stays.
    pub fn sigkill(&mut self) {
        self.server_mut().running = None;
    }

    pub fn sigstop(&self) {
        self.signal("STOP");
    }

    pub fn sigcont(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        self.no_longer_new();
        let running = self.server().running.as_ref().expect("the server runs");
        send_signal(running.process.id(), name);
    }

    /// Starts the server again over the same data and waits until it is primary.
    pub async fn restart(&mut self) {
        self.revive().await;
        self.wait_primary().await;
    }

    /// Another set of the same name, under the same address and without any data.
    #[allow(dead_code, reason = "the demo and the benchmark lose no cluster")]
    pub async fn begin_anew(&mut self) {
        self.sigkill();
        self.server_mut().dir = tempfile::tempdir().expect("a temporary directory");
        self.revive().await;
        self.initiate().await;
    }

    /// Starts the server again over the same data and waits until it answers.
    pub async fn revive(&mut self) {
        let options = self.options.clone();
        let server = self.server_mut();
        server.running = None;
        server.running = Some(launch(&options, server.port, server.dir.path(), true));
        self.wait_answering().await;
    }

    pub fn is_running(&self) -> bool {
        self.server().running.is_some()
    }
}

impl Drop for Mongod {
    fn drop(&mut self) {
        let may_go_on = *self.is_like_new.get_mut() && !std::thread::panicking();
        if let (Some(heir), Some(server), true) = (self.heir, self.server.take(), may_go_on) {
            heir(self.options.clone(), server);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The guard first: a process id that was reaped may belong to somebody else.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn launch(options: &MongodOptions, port: u16, dir: &Path, in_set: bool) -> Running {
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("mongod.out"))
        .expect("a log file");
    let mut command = Command::new(binary());
    command
        .args(["--bind_ip", "127.0.0.1", "--port", &port.to_string()])
        .arg("--dbpath")
        .arg(dir)
        .args(["--wiredTigerCacheSizeGB", options.cache_gigabytes])
        .args(["--setParameter", "enableTestCommands=1"])
        .args(["--setParameter", "diagnosticDataCollectionEnabled=false"])
        .args(&options.args)
        .envs(options.environment.iter().cloned())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log);
    if in_set {
        command
            .args(["--replSet", &options.set_name])
            .args(["--oplogSize", &options.oplog_megabytes.to_string()]);
    }
    let process = command.spawn().expect("mongod starts");
    let guard = guard_with_files(process.id(), dir);
    Running { process, guard }
}

/// `MONGOD_BIN`, else what `scripts/mongod` finds or downloads.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("MONGOD_BIN") {
            return path.into();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mongod");
        let found = Command::new(script).output().expect("scripts/mongod runs");
        assert!(
            found.status.success(),
            "{}",
            String::from_utf8_lossy(&found.stderr)
        );
        String::from_utf8(found.stdout).unwrap().trim().into()
    })
}

/// A loopback port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
    listener.local_addr().expect("its address").port()
}

async fn direct_client(port: u16, credentials: &str, query: &str) -> Client {
    let uri = format!("mongodb://{credentials}127.0.0.1:{port}/?directConnection=true{query}");
    let mut options = ClientOptions::parse(uri).await.expect("a URI");
    options.server_selection_timeout = Some(Duration::from_secs(5));
    options.heartbeat_freq = Some(Duration::from_millis(500));
    Client::with_options(options).expect("a client")
}
