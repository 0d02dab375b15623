//! Processes that die at one of their effects, or do not hear of one.
//!
//! What a process holds in memory is gone with it, so all that counts of the moment of its death is
//! which effects it has had. A death at each boundary between two of them is one at each `await`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bson::Document;
use tandem::change::Side;
use tokio::sync::Notify;

use crate::beginnings::{Beginning, Kind};
use crate::first_seed;
use crate::known::{drop_of, rename, schedule, step, write};
use crate::play::play;
use crate::random::Random;
use crate::schedule::{Schedule, What};
use crate::world::{Process, SharedWorld, lock};

/// Starts of a process of which one may be to die, and their effects.
const STARTS: u64 = 3;
const EFFECTS: [u64; 3] = [30, 100, 300];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The command is not sent.
    Before,
    /// It has come to its end, and its reply is not seen.
    After,
    /// As [`Moment::After`], and the process lives on: the connection broke.
    Unheard,
}

#[derive(Debug, Clone, Copy)]
pub struct Death {
    /// Of the process: the first one is 1.
    pub start: u32,
    /// How many effects it has had before.
    pub effects: u64,
    pub moment: Moment,
    /// How long it takes until the next process starts.
    pub down: Duration,
}

impl Death {
    pub fn any(dice: &mut Random) -> Self {
        let effects_max = EFFECTS[dice.below(EFFECTS.len() as u64) as usize];
        Self {
            start: 1 + dice.below(STARTS) as u32,
            effects: dice.below(effects_max),
            moment: [Moment::Before, Moment::After, Moment::Unheard][dice.below(3) as usize],
            down: Duration::from_millis(dice.below(200)),
        }
    }
}

/// The deaths to come, and those that there were.
#[derive(Debug, Default)]
pub struct Deaths {
    to_come: Vec<Death>,
    /// By the number of the process.
    effects: BTreeMap<u32, u64>,
    /// With the time until the next one starts.
    died: BTreeMap<u32, Duration>,
    /// Replies that were not seen.
    unheard: u32,
    bell: Arc<Notify>,
}

impl Deaths {
    pub fn to_come(to_come: Vec<Death>) -> Self {
        Self {
            to_come,
            ..Self::default()
        }
    }

    /// From here on nobody dies.
    pub fn end(&mut self) {
        self.to_come.clear();
    }

    pub fn count(&self) -> u32 {
        self.died.len() as u32
    }

    pub fn unheard(&self) -> u32 {
        self.unheard
    }

    /// A process is about to send a command. Tells the death that it is to die of that.
    fn of_command(&mut self, process: Process, command: &Document) -> Option<Death> {
        if !is_effect(command) {
            return None;
        }
        let before = self.effects.entry(process.number).or_default();
        let is_this = |one: &&Death| one.start == process.number && one.effects == *before;
        let death = self.to_come.iter().find(is_this).copied();
        *before += 1;
        death
    }

    fn is_dead(&self, process: Process) -> bool {
        self.died.contains_key(&process.number)
    }
}

fn is_effect(command: &Document) -> bool {
    const READS: [&str; 12] = [
        "aggregate",
        "buildInfo",
        "collStats",
        "connectionStatus",
        "find",
        "getMore",
        "getParameter",
        "hello",
        "listCollections",
        "listDatabases",
        "listIndexes",
        "ping",
    ];
    let name = command.keys().next().expect("a command has a name");
    !READS.contains(&name.as_str())
}

/// To be asked before a command is sent: does not return where the process dies of that, or is dead.
pub async fn outlive_sending(
    world: &SharedWorld,
    process: Process,
    command: &Document,
) -> Option<Death> {
    let death = {
        let deaths = &mut lock(world).deaths;
        let is_dead = deaths.is_dead(process);
        let death = deaths.of_command(process, command);
        if !is_dead && death.is_none_or(|death| death.moment != Moment::Before) {
            return death;
        }
        death
    };
    die(world, process, death).await
}

/// To be asked before a reply is seen; tells whether it is.
pub async fn outlive_reply(world: &SharedWorld, process: Process, death: Option<Death>) -> bool {
    let is_dead = lock(world).deaths.is_dead(process);
    match death.map(|death| death.moment) {
        Some(Moment::Unheard) if !is_dead => {
            lock(world).deaths.unheard += 1;
            false
        }
        None if !is_dead => true,
        _ => die(world, process, death).await,
    }
}

/// Nothing of the process goes on from here.
async fn die(world: &SharedWorld, process: Process, death: Option<Death>) -> ! {
    kill(world, process, death);
    loop {
        std::future::pending::<()>().await;
    }
}

/// The process dies, if that is its death, though nobody may wait for the reply any more.
pub fn kill(world: &SharedWorld, process: Process, death: Option<Death>) {
    if let Some(death) = death.filter(|death| death.moment != Moment::Unheard) {
        let deaths = &mut lock(world).deaths;
        deaths.died.insert(process.number, death.down);
        deaths.bell.notify_waiters();
    }
}

/// Returns once the process has died, and for how long nothing runs then.
pub async fn death_of(world: &SharedWorld, process: Process) -> Duration {
    loop {
        let bell = lock(world).deaths.bell.clone();
        let rung = bell.notified();
        if let Some(down) = lock(world).deaths.died.get(&process.number) {
            return *down;
        }
        rung.await;
    }
}

/// Some of everything: conflicts won by either side, a delete, a transaction, a collection that is
/// created, renamed and dropped.
fn two_way(kind: Kind, seed: u64) -> Schedule {
    let written = |at, side, key| step(at, What::Write { side, key });
    let steps = vec![
        written(10, Side::A, 0),
        written(40, Side::B, 0),
        written(70, Side::A, 1),
        written(70, Side::B, 1),
        step(75, write(Side::A, 0)),
        written(80, Side::B, 2),
        written(81, Side::A, 2),
        step(
            100,
            What::Transaction {
                side: Side::B,
                keys: [4, 5],
            },
        ),
        step(
            110,
            What::Delete {
                side: Side::A,
                key: 4,
            },
        ),
        step(
            110,
            What::Write {
                side: Side::B,
                key: 4,
            },
        ),
        step(130, rename(Side::A, 0, 1)),
        step(160, write(Side::B, 1)),
        step(200, drop_of(Side::A, 1)),
        // By then everything has arrived.
        written(600, Side::B, 3),
    ];
    let mut schedule = schedule(seed, steps);
    schedule.beginning = Beginning::of(kind, &mut Random::new(seed));
    schedule.beginning.early.clear();
    schedule.lanes = 2;
    schedule
}

/// What a link of some hundred effects has at least.
const EFFECTS_MIN: u64 = 100;

/// Among them every one of a first start. That once ended with 5 for good: the link was ready, and the
/// ids of its sessions not on record yet.
#[test]
fn a_process_that_dies_at_any_of_its_effects_leaves_what_the_next_one_can_go_on_with() {
    let first = first_seed();
    let kind = Kind::ALL[first as usize % Kind::ALL.len()];
    let mut schedule = two_way(kind, first);
    let moments = [Moment::Before, Moment::After].into_iter().cycle();
    // The other ones in the next run.
    let moments = moments.skip(first as usize / Kind::ALL.len() % 2);
    for (effects, moment) in (0..).zip(moments) {
        schedule.deaths = vec![Death {
            start: 1,
            effects,
            moment,
            down: Duration::from_millis(20),
        }];
        let outcome = play(&schedule);
        let problems = outcome.problems;
        assert!(
            problems.is_empty(),
            "{moment:?} effect {effects}, {kind:?}, seed {first}: {problems:#?}"
        );
        if outcome.crashes == 0 {
            assert!(effects > EFFECTS_MIN, "{effects} effects, {kind:?}");
            return;
        }
    }
}

/// A collection of either side: one is renamed, one dropped, and what had their names is made again once
/// the process was killed.
fn changed_and_made_again(seed: u64) -> Schedule {
    let crash = What::Crash {
        down: Duration::from_millis(30),
    };
    let steps = vec![
        step(20, write(Side::A, 0)),
        step(20, write(Side::B, 1)),
        step(200, rename(Side::A, 0, 2)),
        step(300, drop_of(Side::A, 1)),
        // With time to ask again.
        step(1500, crash),
        step(1545, write(Side::A, 1)),
        step(1545, write(Side::B, 0)),
        step(1600, write(Side::A, 2)),
        step(1600, write(Side::B, 2)),
    ];
    schedule(seed, steps)
}

/// What is on record of collections and of commands under way is what the next process goes by.
#[test]
fn a_process_that_does_not_hear_of_any_of_its_effects_leaves_what_the_next_one_can_go_on_with() {
    let seed = first_seed();
    let mut schedule = changed_and_made_again(seed);
    for effects in 0.. {
        schedule.deaths = vec![Death {
            start: 1,
            effects,
            moment: Moment::Unheard,
            down: Duration::ZERO,
        }];
        let outcome = play(&schedule);
        let problems = outcome.problems;
        assert!(
            problems.is_empty(),
            "effect {effects}, seed {seed}: {problems:#?}"
        );
        if outcome.unheard == 0 {
            assert!(effects > EFFECTS_MIN / 2, "{effects} effects");
            return;
        }
    }
}
