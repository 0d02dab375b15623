//! Plays one schedule: the real link between two clusters in memory, through everything.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::RawDocumentBuf;
use tandem::change::{Pair, Side};
use tandem::config::{Config, Environment};
use tandem::link::{RunOptions, run_over};
use tandem::store::{RecordFilter, Store, is_locked};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::applications::{NAMESPACE, Written, perform, place_of};
use crate::checks::{check_end, is_converged};
use crate::network::Way;
use crate::random::Random;
use crate::schedule::{Schedule, Step, What};
use crate::world::{SharedWorld, World, lock};

/// What a schedule came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub problems: Vec<String>,
    /// The same for two runs of a seed.
    pub trace: u64,
    pub commands: u64,
    pub records: usize,
    pub crashes: u32,
}

/// Both sides must have come to rest within this time after the last fault.
const REST_TIME_MAX: Duration = Duration::from_secs(300);
/// For so long nothing may change once they have.
const REST_TIME: Duration = Duration::from_secs(3);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Real time that sled may take to let go of its files.
const LOCKED_TRIES_MAX: u32 = 500;
const LOCKED_PAUSE: Duration = Duration::from_millis(10);
/// For so long an election waits for a write that not all members have.
const UNDURABLE_WAIT_MAX: Duration = Duration::from_millis(100);
const RESTART_PAUSE: Duration = Duration::from_millis(500);

/// A process of the link, started again whenever it ends.
struct Process {
    world: SharedWorld,
    config: Arc<Config>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    ends: Arc<Mutex<Vec<String>>>,
}

pub fn play(schedule: &Schedule) -> Outcome {
    tandem::chance::seed(schedule.seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let folder = tempfile::Builder::new();
    // Nothing of it has to outlive the machine.
    let shm = Path::new("/dev/shm");
    let state = match shm.is_dir() {
        true => tempfile::Builder::new()
            .prefix("tandem-sim")
            .tempdir_in(shm),
        false => folder.tempdir(),
    };
    let state = state.expect("a folder");
    runtime.block_on(play_in(schedule, state.path()))
}

async fn play_in(schedule: &Schedule, state: &Path) -> Outcome {
    let dice = Random::new(schedule.seed ^ 0x5EED);
    let mut world = World::new(schedule.weather, schedule.skew_ms, dice);
    for side in Side::BOTH {
        world.replica(side).create(NAMESPACE);
    }
    let world: SharedWorld = Arc::new(Mutex::new(world));
    let config = Arc::new(config(schedule, state));
    let mut process = Process::start(&world, &config);
    let mut account = Vec::new();
    let mut crashes = 0;
    if let Some(commands) = schedule.killed_after_commands {
        while lock(&world).commands < commands {
            sleep(Duration::from_millis(1)).await;
        }
        process.kill().await;
        process = Process::start(&world, &config);
    }
    let started = wait_until_ready(&world).await;
    for step in &schedule.steps {
        sleep_until(started + step.at).await;
        crashes += take(step, &world, &mut process, &mut account).await;
    }
    lock(&world).heal();
    let rested = rest(&world, &process).await;
    let (trace, commands) = {
        let world = lock(&world);
        (world.trace, world.commands)
    };
    let mut outcome = Outcome {
        problems: Vec::new(),
        trace,
        commands,
        records: 0,
        crashes,
    };
    if !rested {
        outcome
            .problems
            .push("both sides never came to the same".to_owned());
    }
    let ends = process.end().await;
    outcome.problems.extend(ends);
    let records = records(state);
    outcome.records = records.len();
    outcome
        .problems
        .extend(check_end(&lock(&world), &account, &records));
    outcome
}

/// Returns the moment from which on the link replicates: what is written before a first start is
/// nobody's business.
async fn wait_until_ready(world: &SharedWorld) -> Instant {
    let is_ready = |side: Side| {
        let mut world = lock(world);
        let replica = world.replica(side);
        let links = replica.all("__tandem.links", replica.durable_time(), None);
        links
            .iter()
            .any(|(_, link)| link.get_bool("ready").unwrap_or(false))
    };
    while !Side::BOTH.into_iter().all(is_ready) {
        sleep(Duration::from_millis(1)).await;
    }
    Instant::now()
}

async fn take(
    step: &Step,
    world: &SharedWorld,
    process: &mut Process,
    account: &mut Vec<Written>,
) -> u32 {
    match &step.what {
        What::Crash { down } => {
            process.kill().await;
            lock(world).bury();
            sleep(*down).await;
            *process = Process::start(world, &process.config.clone());
            return 1;
        }
        What::Latecomer { side, key } => {
            let mut world = lock(world);
            if let Some(session) = world.former[*side] {
                world.replica(*side).open_late(session, place_of(*key));
                world.note(*side, "latecomer", 0);
            }
        }
        What::Cut { side, time } => lock(world).cut_until[*side] = Some(Instant::now() + *time),
        What::Slow { side, time } => lock(world).slow_until[*side] = Some(Instant::now() + *time),
        What::Election {
            side,
            time,
            rolled_back,
        } => {
            wait_for_something_to_lose(world, *side).await;
            lock(world).elect(*side, *rolled_back, *time);
        }
        What::ClockJump { side, ms } => lock(world).skew_ms[*side] += ms,
        What::Write { .. }
        | What::Transaction { .. }
        | What::Replace { .. }
        | What::Delete { .. }
        | What::NoChange { .. } => perform(world, &step.what, account).await,
    }
    0
}

/// An election is of interest where the last primary has what the others have not.
async fn wait_for_something_to_lose(world: &SharedWorld, side: Side) {
    let until = Instant::now() + UNDURABLE_WAIT_MAX;
    let is_behind = || lock(world).replica(side).next_durable_at().is_some();
    while !is_behind() && Instant::now() < until {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until both sides are the same and stay as they are.
async fn rest(world: &SharedWorld, process: &Process) -> bool {
    let until = Instant::now() + REST_TIME_MAX;
    let mut since = Instant::now();
    let mut known = Pair::new(0, 0);
    while Instant::now() < until && !process.running.is_finished() {
        sleep(LOOK_INTERVAL).await;
        let world = lock(world);
        let now = Pair::new(data_entries(&world, Side::A), data_entries(&world, Side::B));
        if now != known || !is_converged(&world) {
            known = now;
            since = Instant::now();
        } else if since.elapsed() >= REST_TIME {
            return true;
        }
    }
    false
}

/// Entries of an oplog that are about documents of applications.
fn data_entries(world: &World, side: Side) -> usize {
    let oplog = world.replicas[side].oplog.iter();
    let is_data = |entry: &&crate::replica::Entry| {
        entry
            .operations
            .iter()
            .any(|operation| operation.namespace == NAMESPACE)
    };
    oplog.filter(is_data).count()
}

fn records(state: &Path) -> Vec<RawDocumentBuf> {
    let Some(store) = opened(&state.join("state")) else {
        return Vec::new();
    };
    let records = store.records(&RecordFilter::default());
    records
        .map(|record| record.expect("a record that can be read"))
        .collect()
}

/// sled lets go of its files on a thread of its own, which knows nothing of virtual time.
fn opened(state: &Path) -> Option<Store> {
    for _ in 0..LOCKED_TRIES_MAX {
        match Store::open_existing(state) {
            Err(error) if is_locked(&error) => std::thread::sleep(LOCKED_PAUSE),
            outcome => return outcome.expect("a store that can be opened"),
        }
    }
    panic!("the store stays locked");
}

fn config(schedule: &Schedule, state: &Path) -> Config {
    let text = format!(
        "[link]\nname = \"sim\"\nstate_dir = \"{}\"\n\
         [clusters.a]\nname = \"eu\"\nuri = \"mongodb://a/\"\n\
         [clusters.b]\nname = \"us\"\nuri = \"mongodb://b/\"\n\
         [namespaces]\ninclude = [\"shop.*\"]\n\
         [apply]\nlanes = {}\nbatch_operations_max = {}\nbatch_bytes_max = 16384\n\
         [limits]\nqueue_bytes_max = {}\n\
         [timeouts]\noperation = \"2s\"\n",
        state.join("state").display(),
        schedule.lanes,
        schedule.batch_operations_max,
        schedule.queue_bytes_max,
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

impl Process {
    fn start(world: &SharedWorld, config: &Arc<Config>) -> Self {
        lock(world).process += 1;
        let (stop, ends) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
        let run = keep_running(world.clone(), config.clone(), stop.clone(), ends.clone());
        Self {
            world: world.clone(),
            config: config.clone(),
            stop,
            running: tokio::spawn(run),
            ends,
        }
    }

    /// Ends it at whatever it waits for.
    async fn kill(&mut self) {
        self.running.abort();
        let _ = (&mut self.running).await;
        lock(&self.world).process += 1;
        // What it had spawned is dropped when it is polled next.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        drop(opened(&self.config.link.state_dir));
    }

    async fn end(mut self) -> Vec<String> {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(60), &mut self.running).await;
        let mut ends = std::mem::take(&mut *self.ends.lock().expect("no panic"));
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => ends.push(format!("the link died: {error}")),
            Err(_) => ends.push("the link does not stop".to_owned()),
        }
        ends
    }
}

/// A link that ends because a cluster is away is started again, as its operator would.
async fn keep_running(
    world: SharedWorld,
    config: Arc<Config>,
    stop: CancellationToken,
    ends: Arc<Mutex<Vec<String>>>,
) {
    loop {
        let way = Arc::new(Way(world.clone()));
        let outcome = run_over(way, &config, RunOptions::default(), stop.clone()).await;
        match outcome {
            Ok(_) => return,
            Err(error) if error.is_retryable() && !stop.is_cancelled() => {
                drop(opened(&config.link.state_dir));
                sleep(RESTART_PAUSE).await;
                lock(&world).process += 1;
            }
            Err(error) => {
                let end = format!("the link ended with {}: {error}", error.exit as i32);
                ends.lock().expect("no panic").push(end);
                return;
            }
        }
    }
}
