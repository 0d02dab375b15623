//! Both clusters, what lies between them and tandem, and the dice of a schedule.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bson::{Document, Uuid};
use tandem::change::{Pair, Side};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::commands::uuid_of;
use crate::deaths::Deaths;
use crate::random::Random;
use crate::replica::{Entry, Replica};

/// How bad a schedule's network is.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    pub lost_percent: u64,
    /// Of commits, beside that.
    pub lost_commits_percent: u64,
    pub delay_ms_max: u64,
    /// Longest time a command whose reply is lost may still be under way.
    pub late_ms_max: u64,
    /// How far the other members of a cluster are behind their primary.
    pub members_lag_ms: u64,
    pub batch_events_max: u64,
    pub stale_tokens_percent: u64,
    /// How far back a cluster can be read.
    pub history_seconds: u32,
    /// How often another member becomes primary just when a commit of unknown outcome was settled.
    pub elected_percent: u64,
}

/// What the network does with one command.
#[derive(Debug, Clone, Copy)]
pub struct Fate {
    pub there: Duration,
    pub back: Duration,
    /// The caller hears of a broken connection after this time.
    pub broken_after: Option<Duration>,
    pub arrives: bool,
    /// Who sent it.
    pub process: Process,
}

/// A process of the link, and where it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pub host: usize,
    pub number: u32,
}

pub struct World {
    pub replicas: Pair<Replica>,
    pub skew_ms: Pair<i64>,
    pub weather: Weather,
    pub dice: Random,
    /// Nothing reaches a cluster until then.
    pub cut_until: Pair<Option<Instant>>,
    /// A cluster has no primary until then.
    pub electing_until: Pair<Option<Instant>>,
    /// Counts the primaries of a cluster.
    pub terms: Pair<u32>,
    /// Applications' writes that were rolled back.
    pub undone: HashSet<u32>,
    /// Everything takes long until then.
    pub slow_until: Pair<Option<Instant>>,
    /// How many processes there were.
    pub processes: u32,
    pub deaths: Deaths,
    /// By host.
    pub living: [Option<Process>; 2],
    /// By host: nothing goes out of its process before then, nor comes in.
    pub asleep_until: [Option<Instant>; 2],
    /// Where the process was started that shall run the link from now on.
    pub newest_host: usize,
    /// Whether there was ever a second process.
    pub has_slept: bool,
    /// Who has taken the lease last.
    pub holder: Option<Process>,
    /// Who has raised the epoch, and held the lease, the last one in the end, and how many entries the
    /// oplog had then.
    pub raised: Pair<Vec<(Process, usize)>>,
    /// A session of a process that was killed.
    pub former: Pair<Option<Uuid>>,
    pub started: Instant,
    /// Rung when a cluster's oplog has grown, or is another one. A `watch` would wake in a random order.
    pub grown: Pair<Arc<Notify>>,
    /// Whether all that was written while the link is there has an event.
    pub streams_tell_all: bool,
    pub problems: Vec<String>,
    /// A digest of everything that the clusters were asked, to compare two runs of a seed.
    pub trace: u64,
    pub commands: u64,
}

/// What settles a commit writes there, and nothing else of a transaction does.
const MARKERS: &str = "__tandem.markers";
/// A commit that was answered just now is among so many entries of an oplog.
const COMMITS_BEHIND_MAX: usize = 100;
const ELECTION_TIME: Duration = Duration::from_millis(1);

pub type SharedWorld = Arc<Mutex<World>>;

/// The wall time at which all schedules begin.
const BEGINNING_MS: i64 = 1_700_000_000_000;

pub fn lock(world: &SharedWorld) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn is_traced() -> bool {
    static IS_TRACED: LazyLock<bool> =
        LazyLock::new(|| std::env::var_os("TANDEM_SIMULATION_TRACE").is_some());
    *IS_TRACED
}

impl World {
    pub fn new(weather: Weather, skew_ms: Pair<i64>, mut dice: Random) -> Self {
        let replica = |set, skew: i64, dice: Random| Replica::new(set, BEGINNING_MS + skew, dice);
        Self {
            replicas: Pair::new(
                replica("a-set", skew_ms.a, dice.fork()),
                replica("b-set", skew_ms.b, dice.fork()),
            ),
            skew_ms,
            weather,
            dice,
            cut_until: Pair::new(None, None),
            electing_until: Pair::new(None, None),
            terms: Pair::default(),
            undone: HashSet::new(),
            slow_until: Pair::new(None, None),
            processes: 0,
            deaths: Deaths::default(),
            living: [None; 2],
            asleep_until: [None; 2],
            newest_host: 0,
            has_slept: false,
            holder: None,
            raised: Pair::default(),
            former: Pair::new(None, None),
            started: Instant::now(),
            grown: Pair::default(),
            streams_tell_all: false,
            problems: Vec::new(),
            trace: 0,
            commands: 0,
        }
    }

    /// A cluster at the present time.
    pub fn replica(&mut self, side: Side) -> &mut Replica {
        let passed = self.started.elapsed().as_millis() as i64;
        let replica = &mut self.replicas[side];
        replica.elapsed = self.started.elapsed();
        replica.history_seconds = self.weather.history_seconds;
        replica.batch_documents_max = self.weather.batch_events_max as usize;
        replica.members_lag = Duration::from_millis(self.weather.members_lag_ms);
        replica.wall_ms = BEGINNING_MS + self.skew_ms[side] + passed;
        replica
    }

    pub fn begin_process(&mut self, host: usize) -> Process {
        self.processes += 1;
        let process = Process {
            host,
            number: self.processes,
        };
        self.living[host] = Some(process);
        process
    }

    /// Whether the link is run where a process was started last.
    pub fn is_taken_over(&self) -> bool {
        let mut in_charge = Side::BOTH.iter().map(|side| self.in_charge(*side));
        in_charge.all(|process| process.is_some_and(|one| one.host == self.newest_host))
    }

    pub fn in_charge(&self, side: Side) -> Option<Process> {
        self.raised[side].last().map(|(process, _)| *process)
    }

    /// The process has been killed: its sessions are those on record.
    pub fn bury(&mut self) {
        if self.living.iter().any(Option::is_some) {
            // Nobody knows whose sessions are on record.
            return;
        }
        for side in Side::BOTH {
            let replica = &self.replicas[side];
            let recorded = replica.all("__tandem.sessions", replica.time, None);
            let session = recorded
                .first()
                .and_then(|(_, one)| uuid_of(one.get("_id")?));
            self.former[side] = session.or(self.former[side]);
        }
    }

    /// Wakes the streams of a cluster.
    pub fn written(&self, side: Side) {
        self.grown[side].notify_waiters();
    }

    pub fn is_cut(&self, side: Side) -> bool {
        self.cut_until[side].is_some_and(|until| until > Instant::now())
    }

    /// From here on the network is a good one.
    pub fn heal(&mut self) {
        self.weather = Weather {
            lost_percent: 0,
            lost_commits_percent: 0,
            delay_ms_max: 2,
            late_ms_max: 0,
            members_lag_ms: 1,
            batch_events_max: 100,
            stale_tokens_percent: 0,
            history_seconds: 300,
            elected_percent: 0,
        };
        self.deaths.end();
        self.asleep_until = [None; 2];
        self.cut_until = Pair::new(None, None);
        self.electing_until = Pair::new(None, None);
        for side in Side::BOTH {
            self.replicas[side].shows = None;
        }
        self.slow_until = Pair::new(None, None);
    }

    /// Another member of the cluster becomes primary after some time.
    pub fn elect(&mut self, side: Side, rolled_back: bool, time: Duration) {
        let undone = self.replica(side).elect(rolled_back, time);
        // What nobody has an answer to yet has not happened.
        let kept = self.replicas[side].oplog.len();
        self.raised[side].retain(|(_, entries)| *entries <= kept);
        self.undone.extend(undone);
        self.terms[side] += 1;
        self.electing_until[side] = Some(Instant::now() + time);
        self.note(side, "election", i32::from(rolled_back));
        self.written(side);
    }

    /// A session has committed something: where that settles what became of a commit, the read that
    /// follows may be answered by another primary.
    pub fn has_committed(&mut self, side: Side, session: Option<Uuid>) {
        let oplog = self.replicas[side].oplog.iter().rev();
        let of_session = |entry: &&Entry| entry.transaction.map(|(id, _)| id) == session;
        let last = oplog.take(COMMITS_BEHIND_MAX).find(of_session);
        let mut written = last.into_iter().flat_map(|entry| &entry.operations);
        let has_settled = written.any(|one| one.namespace == MARKERS);
        if has_settled && self.dice.percent(self.weather.elected_percent) {
            self.elect(side, false, ELECTION_TIME);
        }
    }

    pub fn is_electing(&self, side: Side) -> bool {
        self.electing_until[side].is_some_and(|until| until > Instant::now())
    }

    pub fn fate(&mut self, side: Side, process: Process, command: &Document) -> Fate {
        let weather = self.weather;
        let is_slow = self.slow_until[side].is_some_and(|until| until > Instant::now());
        let factor = if is_slow { 40 } else { 1 };
        let mut part = || {
            let micros = self.dice.below(weather.delay_ms_max * 1000 + 1) * factor;
            Duration::from_micros(micros)
        };
        let (mut there, back) = (part(), part());
        let is_cut = self.is_cut(side);
        let is_commit = command.contains_key("commitTransaction");
        let is_lost = is_cut
            || self.dice.percent(weather.lost_percent)
            || (is_commit && self.dice.percent(weather.lost_commits_percent));
        // What a transaction still has under way may come late: nothing else can make it come true.
        if is_lost && command.contains_key("txnNumber") {
            there += Duration::from_millis(self.dice.below(weather.late_ms_max + 1));
        }
        let broken_ms = self.dice.below(100);
        Fate {
            there,
            back,
            broken_after: is_lost.then(|| Duration::from_millis(broken_ms)),
            arrives: !is_lost || (!is_cut && self.dice.percent(60)),
            process,
        }
    }

    /// Whether a command that is under way still reaches its cluster: one of a dead process may not.
    pub fn still_arrives(&mut self, fate: &Fate) -> bool {
        fate.arrives
            && (self.living[fate.process.host] == Some(fate.process) || self.dice.percent(50))
    }

    pub fn note(&mut self, side: Side, what: &str, outcome: i32) {
        self.commands += 1;
        let passed = self.started.elapsed().as_micros() as u64;
        let text = what
            .bytes()
            .fold(passed ^ (side as u64) << 60, |hash, byte| {
                hash.wrapping_mul(0x0100_0000_01B3) ^ u64::from(byte)
            });
        self.trace = Random::new(self.trace ^ text ^ outcome as u64).next();
        if is_traced() {
            eprintln!("{passed:>9} us  {}  {what} {outcome}", side.as_str());
        }
    }
}
