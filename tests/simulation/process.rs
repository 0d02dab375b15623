//! The processes of the link: one that runs, and at times a former one that sleeps beside it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tandem::config::{Config, Environment};
use tandem::error::{Error, ExitCode};
use tandem::link::{RunOptions, run_over};
use tandem::store::{Store, is_locked};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::deaths::death_of;
use crate::network::Way;
use crate::schedule::Schedule;
use crate::stores::{state_dir, stores};
use crate::world::{Process, SharedWorld, lock};

/// Real time that sled may take to let go of its files.
const LOCKED_TRIES_MAX: u32 = 500;
const LOCKED_PAUSE: Duration = Duration::from_millis(10);
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// Of the link's lease.
pub const LEASE_DURATION: Duration = Duration::from_secs(2);
/// A process that wakes notices within this time that another one has taken over.
const NOTICE_TIME_MAX: Duration = Duration::from_secs(2);
const STOP_TIME_MAX: Duration = Duration::from_secs(60);

/// Everything that runs the link.
pub struct Link {
    world: SharedWorld,
    hosts: [Arc<Host>; 2],
    current: Running,
    /// Another one has been started beside it.
    former: Option<Running>,
}

/// Two of them differ in their stores.
struct Host {
    config: Config,
    /// None where each process opens its own.
    store: Option<Store>,
}

/// What runs on one host, started again whenever it ends.
struct Running {
    host: usize,
    stop: CancellationToken,
    task: JoinHandle<()>,
    ends: Arc<Mutex<Vec<String>>>,
}

impl Link {
    pub fn start(world: &SharedWorld, schedule: &Schedule, folder: &Path) -> Self {
        let mut stores = stores(schedule);
        let hosts = [0, 1].map(|host| {
            let state_dir = state_dir(folder, host);
            std::fs::create_dir(&state_dir).expect("a folder");
            Arc::new(Host {
                config: config(schedule, &state_dir),
                store: stores[host].take(),
            })
        });
        let current = Running::start(world, &hosts[0], 0);
        Self {
            world: world.clone(),
            hosts,
            current,
            former: None,
        }
    }

    /// Kills the process at whatever it waits for.
    pub async fn kill(&mut self) {
        self.current.kill(&self.world, &self.hosts).await;
    }

    pub fn start_again(&mut self) {
        let host = self.current.host;
        self.current = Running::start(&self.world, &self.hosts[host], host);
    }

    /// The process does nothing for a time, in which another one takes its place.
    pub fn put_to_sleep(&mut self, time: Duration) {
        if self.has_living_former() {
            return;
        }
        let host = 1 - self.current.host;
        {
            let mut world = lock(&self.world);
            world.asleep_until[1 - host] = Some(Instant::now() + time);
            world.newest_host = host;
            world.has_slept = true;
        }
        let next = Running::start(&self.world, &self.hosts[host], host);
        self.former = Some(std::mem::replace(&mut self.current, next));
    }

    fn has_living_former(&self) -> bool {
        self.former
            .as_ref()
            .is_some_and(|former| !former.task.is_finished())
    }

    /// A former process that has woken ends by itself, as long as it finds that it was replaced.
    pub async fn end_former(&mut self) {
        let until = Instant::now() + NOTICE_TIME_MAX;
        while self.has_living_former() && Instant::now() < until {
            sleep(Duration::from_millis(50)).await;
        }
        if let Some(former) = &mut self.former {
            former.kill(&self.world, &self.hosts).await;
        }
    }

    pub fn has_ended(&self) -> bool {
        self.current.task.is_finished()
    }

    /// Stops it; returns what ended otherwise than it should have.
    pub async fn end(mut self) -> Vec<String> {
        self.current.stop.cancel();
        let ended = tokio::time::timeout(STOP_TIME_MAX, &mut self.current.task).await;
        let mut ends = Vec::new();
        for running in self.former.iter().chain([&self.current]) {
            ends.append(&mut running.ends.lock().expect("no panic"));
        }
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => ends.push(format!("the link died: {error}")),
            Err(_) => ends.push("the link does not stop".to_owned()),
        }
        ends
    }

    pub fn state_dir(&self) -> PathBuf {
        self.hosts[self.current.host].config.link.state_dir.clone()
    }

    /// None where its processes open their own.
    pub fn store(&self) -> Option<Store> {
        self.hosts[self.current.host].store.clone()
    }
}

impl Running {
    fn start(world: &SharedWorld, on: &Arc<Host>, host: usize) -> Self {
        let (stop, ends) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let run = keep_running(world.clone(), on.clone(), host, stop.clone(), ends.clone());
        Self {
            host,
            stop,
            task: tokio::spawn(run),
            ends,
        }
    }

    async fn kill(&mut self, world: &SharedWorld, hosts: &[Arc<Host>; 2]) {
        if !self.task.is_finished() {
            self.task.abort();
            let _ = (&mut self.task).await;
        }
        buried(world, self.host, &hosts[self.host]).await;
    }
}

/// Returns once nothing is left of a host's process.
async fn buried(world: &SharedWorld, host: usize, on: &Host) {
    lock(world).living[host] = None;
    // What it had spawned is dropped when it is polled next.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    wait_until_let_go(on);
}

/// A link that ends because a cluster is away is started again, as its operator would; so is one
/// that waits for the lease of another process, and one whose process has died, unless another one
/// has taken its place.
async fn keep_running(
    world: SharedWorld,
    on: Arc<Host>,
    host: usize,
    stop: CancellationToken,
    ends: Arc<Mutex<Vec<String>>>,
) {
    loop {
        let process = lock(&world).begin_process(host);
        let way = Arc::new(Way {
            world: world.clone(),
            process,
        });
        let options = RunOptions {
            store: on.store.clone(),
            ..RunOptions::default()
        };
        let run = run_over(way, &on.config, options, stop.clone());
        let outcome = tokio::select! {
            biased;
            down = death_of(&world, process) => Err(down),
            outcome = run => Ok(outcome),
        };
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(down) => {
                buried(&world, host, &on).await;
                lock(&world).bury();
                sleep(down).await;
                if lock(&world).newest_host != host {
                    return;
                }
                continue;
            }
        };
        lock(&world).living[host] = None;
        match outcome {
            Ok(_) => return,
            Err(error) if may_come_back(&error, &world, process) && !stop.is_cancelled() => {
                wait_until_let_go(&on);
                sleep(RESTART_PAUSE).await;
            }
            Err(error) => {
                if !was_replaced(&error, &world) {
                    let end = format!("the link ended with {}: {error}", error.exit as i32);
                    ends.lock().expect("no panic").push(end);
                }
                return;
            }
        }
    }
}

fn may_come_back(error: &Error, world: &SharedWorld, process: Process) -> bool {
    let world = lock(world);
    let waits = world.has_slept && world.newest_host == process.host;
    error.is_retryable() || (waits && error.exit == ExitCode::Fenced)
}

/// Of two that start at once, one may raise the epoch and only then find that the other one has the
/// lease: that one is fenced too, and would be started again.
fn was_replaced(error: &Error, world: &SharedWorld) -> bool {
    error.exit == ExitCode::Fenced && lock(world).has_slept
}

fn wait_until_let_go(on: &Host) {
    if on.store.is_none() {
        drop(opened(&on.config.link.state_dir));
    }
}

/// sled lets go of its files on a thread of its own, which knows nothing of virtual time.
pub fn opened(state: &Path) -> Option<Store> {
    for _ in 0..LOCKED_TRIES_MAX {
        match Store::open_existing(state) {
            Err(error) if is_locked(&error) => std::thread::sleep(LOCKED_PAUSE),
            outcome => return outcome.expect("a store that can be opened"),
        }
    }
    panic!("the store stays locked");
}

fn config(schedule: &Schedule, state_dir: &Path) -> Config {
    let text = format!(
        "[link]\nname = \"sim\"\nstate_dir = \"{}\"\nlease_duration = \"{}ms\"\n\
         [clusters.a]\nname = \"eu\"\nuri = \"mongodb://a/\"\n\
         [clusters.b]\nname = \"us\"\nuri = \"mongodb://b/\"\n\
         {}[namespaces]\ninclude = [\"shop.*\"]\n\
         [ddl]\nreplicate = true\ndrops = true\n\
         [apply]\nlanes = {}\nbatch_operations_max = {}\nbatch_bytes_max = 16384\n\
         [limits]\nqueue_bytes_max = {}\n\
         [timeouts]\noperation = \"{}ms\"\n",
        state_dir.display(),
        LEASE_DURATION.as_millis(),
        schedule.beginning.configured(),
        schedule.lanes,
        schedule.batch_operations_max,
        schedule.queue_bytes_max,
        schedule.operation_timeout().as_millis(),
    );
    let environment = Environment::default();
    Config::parse(
        &text,
        "simulation",
        Path::new(""),
        &environment,
        &Default::default(),
    )
    .expect("a configuration")
}
