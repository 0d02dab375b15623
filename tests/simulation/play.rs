//! Plays one schedule: the real link between two clusters in memory, through everything.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::RawDocumentBuf;
use tandem::change::{Pair, Side};
use tandem::store::{RecordFilter, Store};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::applications::{Written, perform, place_of};
use crate::beginnings::{Beginning, Kind};
use crate::checks::{check_end, given_up, is_converged};
use crate::collections::{is_change, is_told_of};
use crate::deaths::Deaths;
use crate::process::{LEASE_DURATION, Link, opened};
use crate::random::Random;
use crate::schedule::{Schedule, Step, What};
use crate::stores::{folder, opens_its_own};
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
    /// Replies of effects that were not seen by lot.
    pub unheard: u32,
    /// How often a collection was created, dropped or renamed.
    pub changes: usize,
    /// Collections that tandem has given up, and said so, with the reasons.
    pub given_up: BTreeMap<String, String>,
    /// How long after the last fault both sides came to the same and stayed so.
    pub came_to_rest_after: Duration,
}

/// Both sides must have come to rest within this time after the last fault.
const REST_TIME_MAX: Duration = Duration::from_secs(30);
/// For so long nothing may change once they have.
const REST_TIME: Duration = Duration::from_secs(3);
/// About as long as another process takes to begin, so that both are at it at once.
const OVERSLEPT: Duration = Duration::from_millis(600);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// For so long an election waits for a write that not all members have.
const UNDURABLE_WAIT_MAX: Duration = Duration::from_millis(100);

pub fn play(schedule: &Schedule) -> Outcome {
    tandem::chance::seed(schedule.seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    // Each step of the clock asks the system then whether a socket has anything to say.
    if opens_its_own(schedule) {
        builder.enable_io();
    }
    let runtime = builder.build().expect("a runtime");
    let state = folder();
    let played = play_in(schedule.clone(), state.path().to_owned());
    // Whoever wakes the future of `block_on` wakes the driver too, by a system call.
    let played = runtime.block_on(async { tokio::spawn(played).await });
    played.unwrap_or_else(|died| std::panic::resume_unwind(died.into_panic()))
}

async fn play_in(schedule: Schedule, state: PathBuf) -> Outcome {
    let dice = Random::new(schedule.seed ^ 0x5EED);
    let mut world = World::new(schedule.weather, schedule.skew_ms, dice);
    world.deaths = Deaths::to_come(schedule.deaths.clone());
    schedule.beginning.lay(&mut world);
    world.streams_tell_all = schedule.beginning.kind == Kind::Nothing;
    let world: SharedWorld = Arc::new(Mutex::new(world));
    let mut link = Link::start(&world, &schedule, &state);
    let mut account = Vec::new();
    let mut crashes = 0;
    let begun = Instant::now();
    tokio::join!(
        disturb_first_start(&schedule, &world, &mut link),
        write_early(&schedule, &world, begun, &mut account),
    );
    let started = wait_until_ready(&world, &link).await;
    for step in &schedule.steps {
        sleep_until(started + step.at).await;
        crashes += take(step, &world, &mut link, &mut account).await;
    }
    lock(&world).heal();
    link.end_former().await;
    let rested = rest(&world, &link, &schedule.beginning).await;
    let (trace, commands, unheard) = {
        let world = lock(&world);
        crashes += world.deaths.count();
        (world.trace, world.commands, world.deaths.unheard())
    };
    let mut outcome = Outcome {
        problems: Vec::new(),
        trace,
        commands,
        records: 0,
        crashes,
        unheard,
        changes: 0,
        given_up: BTreeMap::new(),
        came_to_rest_after: REST_TIME_MAX,
    };
    match rested {
        Some(after) => outcome.came_to_rest_after = after,
        None => outcome.problems.push(format!(
            "both sides are not the same {REST_TIME_MAX:?} after the last fault"
        )),
    }
    let (state, store) = (link.state_dir(), link.store());
    let ends = link.end().await;
    outcome.problems.extend(ends);
    let records = store.or_else(|| opened(&state)).map_or(Vec::new(), records);
    outcome.records = records.len();
    outcome.changes = changes(&lock(&world));
    outcome.given_up = given_up(&lock(&world));
    outcome.problems.extend(check_end(
        &lock(&world),
        &schedule.beginning,
        &account,
        &records,
    ));
    outcome
}

async fn disturb_first_start(schedule: &Schedule, world: &SharedWorld, link: &mut Link) {
    if let Some(commands) = schedule.asleep_after_commands {
        while lock(world).commands < commands {
            sleep(Duration::from_millis(1)).await;
        }
        link.put_to_sleep(LEASE_DURATION + OVERSLEPT);
    }
}

async fn write_early(
    schedule: &Schedule,
    world: &SharedWorld,
    begun: Instant,
    account: &mut Vec<Written>,
) {
    for step in &schedule.beginning.early {
        sleep_until(begun + step.at).await;
        perform(world, &step.what, account).await;
    }
    for one in account {
        one.is_early = true;
    }
}

/// Returns the moment from which on the link replicates: what is written before a first start is
/// nobody's business, but for a copy or a merge.
async fn wait_until_ready(world: &SharedWorld, link: &Link) -> Instant {
    let is_ready = |side: Side| {
        let mut world = lock(world);
        let replica = world.replica(side);
        let links = replica.all("__tandem.links", replica.durable_time(), None);
        links
            .iter()
            .any(|(_, link)| link.get_bool("ready").unwrap_or(false))
    };
    for side in Side::BOTH {
        while !link.has_ended() {
            let bell = lock(world).grown[side].clone();
            let bell = bell.notified();
            if is_ready(side) {
                break;
            }
            let durable_in = durable_in(world, side).unwrap_or(LOOK_INTERVAL);
            let _ = timeout(durable_in.min(LOOK_INTERVAL), bell).await;
        }
    }
    Instant::now()
}

/// How long until a majority has the next entry; none where it has them all.
fn durable_in(world: &SharedWorld, side: Side) -> Option<Duration> {
    let mut world = lock(world);
    let replica = world.replica(side);
    let next = replica.next_durable_at()?;
    Some(next.saturating_sub(replica.elapsed))
}

async fn take(
    step: &Step,
    world: &SharedWorld,
    link: &mut Link,
    account: &mut Vec<Written>,
) -> u32 {
    match &step.what {
        What::Crash { down } => {
            link.kill().await;
            lock(world).bury();
            sleep(*down).await;
            link.start_again();
            return 1;
        }
        What::Sleep { time } => link.put_to_sleep(*time),
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
            if *rolled_back {
                wait_for_something_to_lose(world, *side).await;
            }
            lock(world).elect(*side, *rolled_back, *time);
        }
        What::ClockJump { side, ms } => lock(world).skew_ms[*side] += ms,
        What::Write { .. }
        | What::Transaction { .. }
        | What::Replace { .. }
        | What::Delete { .. }
        | What::NoChange { .. }
        | What::WriteAside { .. }
        | What::Create { .. }
        | What::Drop { .. }
        | What::Rename { .. } => perform(world, &step.what, account).await,
    }
    0
}

/// A rollback is of interest where the last primary has what the others have not.
async fn wait_for_something_to_lose(world: &SharedWorld, side: Side) {
    let until = Instant::now() + UNDURABLE_WAIT_MAX;
    let is_behind = || lock(world).replica(side).next_durable_at().is_some();
    while !is_behind() && Instant::now() < until {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until both sides are the same and stay as they are, and the process that was started last
/// runs the link: a clock that was put back lets another one's lease last longer.
async fn rest(world: &SharedWorld, link: &Link, beginning: &Beginning) -> Option<Duration> {
    let healed = Instant::now();
    let until = healed + REST_TIME_MAX;
    let mut since = healed;
    let (mut seen, mut known, mut is_same) = (None, Pair::new(0, 0), false);
    while Instant::now() < until && !link.has_ended() {
        sleep(LOOK_INTERVAL).await;
        let world = lock(world);
        let entries = world.replicas.as_ref().map(|replica| replica.oplog.len());
        let mut now = known;
        if seen.replace(entries) != Some(entries) {
            now = Pair::new(data_entries(&world, Side::A), data_entries(&world, Side::B));
            is_same = is_converged(&world) && beginning.is_done(&world);
        }
        if now != known || !is_same || !world.is_taken_over() {
            known = now;
            since = Instant::now();
        } else if since.elapsed() >= REST_TIME {
            return Some(since.duration_since(healed));
        }
    }
    None
}

/// Entries of an oplog that are about documents of applications.
fn data_entries(world: &World, side: Side) -> usize {
    let oplog = world.replicas[side].oplog.iter();
    let is_data = |entry: &&crate::replica::Entry| {
        entry
            .operations
            .iter()
            .any(|operation| is_told_of(&operation.namespace))
    };
    oplog.filter(is_data).count()
}

/// Changes of collections, on both sides and by everybody.
fn changes(world: &World) -> usize {
    let entries = Side::BOTH.map(|side| world.replicas[side].oplog.iter());
    let operations = entries
        .into_iter()
        .flatten()
        .flat_map(|entry| &entry.operations);
    operations
        .filter(|operation| is_change(operation.kind))
        .count()
}

fn records(store: Store) -> Vec<RawDocumentBuf> {
    let records = store.records(&RecordFilter::default());
    records
        .map(|record| record.expect("a record that can be read"))
        .collect()
}
