//! A schedule: what applications write, what breaks, and when; all of it out of one seed.

use std::time::Duration;

use tandem::change::{Pair, Side};

use crate::beginnings::{Beginning, Kind};
use crate::deaths::Death;
use crate::process::LEASE_DURATION;
use crate::random::Random;
use crate::world::Weather;

/// Keys whose documents are only inserted and updated, so that every write can be accounted for.
pub const KEPT_KEYS: i32 = 4;
/// All keys; the rest is replaced and deleted as well.
pub const KEYS: i32 = 6;

/// Collections that come and go, beside the one that stays.
pub const COLLECTIONS_ASIDE: usize = 3;

#[derive(Debug, Clone)]
pub enum What {
    /// Inserts the document, or adds a field of its own to it.
    Write {
        side: Side,
        key: i32,
    },
    /// The same with two documents in one transaction.
    Transaction {
        side: Side,
        keys: [i32; 2],
    },
    Replace {
        side: Side,
        key: i32,
    },
    Delete {
        side: Side,
        key: i32,
    },
    /// Sets a field to what it is.
    NoChange {
        side: Side,
        key: i32,
    },
    /// Adds a field to a document of a collection that comes and goes, and makes both where they are
    /// not there.
    WriteAside {
        side: Side,
        collection: usize,
        key: i32,
    },
    Create {
        side: Side,
        collection: usize,
    },
    Drop {
        side: Side,
        collection: usize,
    },
    /// Over another one, where that has the name.
    Rename {
        side: Side,
        collection: usize,
        to: usize,
    },
    /// The process is killed and started again after this time.
    Crash {
        down: Duration,
    },
    /// The process stands still, while another one takes over as soon as its lease has run out.
    Sleep {
        time: Duration,
    },
    /// The first statement of a killed process's transaction arrives only now, and opens it.
    Latecomer {
        side: Side,
        key: i32,
    },
    /// Nothing reaches a cluster for this time.
    Cut {
        side: Side,
        time: Duration,
    },
    Slow {
        side: Side,
        time: Duration,
    },
    /// A cluster gets another primary, without what only the last one had where it is rolled back.
    Election {
        side: Side,
        time: Duration,
        rolled_back: bool,
    },
    ClockJump {
        side: Side,
        ms: i64,
    },
}

/// Who changes collections that come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changers {
    /// Creates, drops and renames them.
    One(Side),
    /// Create and drop them. Nobody has to give way then.
    Both,
    /// Rename them, too: some give way, and are passed over from then on.
    BothWithRenames,
}

/// What schedules have more of than chance gives them, so that something is noticed sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emphasis {
    Nothing,
    Collections,
    /// The same amid a copy or a merge.
    CollectionsAmid,
    LostReplies,
    Copies,
    Merges,
}

impl Emphasis {
    pub const VARIABLE: &str = "TANDEM_SIMULATION_OF";

    fn chosen() -> Self {
        match std::env::var(Self::VARIABLE).as_deref() {
            Err(_) => Emphasis::Nothing,
            Ok("collections") => Emphasis::Collections,
            Ok("collections_amid") => Emphasis::CollectionsAmid,
            Ok("lost_replies") => Emphasis::LostReplies,
            Ok("copies") => Emphasis::Copies,
            Ok("merges") => Emphasis::Merges,
            Ok(other) => panic!("{} knows no {other}", Self::VARIABLE),
        }
    }

    /// Whether collections come and go.
    fn is_of_collections(self, any: bool) -> bool {
        match self {
            Emphasis::Collections | Emphasis::CollectionsAmid => true,
            Emphasis::Nothing | Emphasis::LostReplies => any,
            Emphasis::Copies | Emphasis::Merges => false,
        }
    }

    fn kind(self, dice: &mut Random) -> Kind {
        let any = [Kind::Nothing, Kind::Nothing, Kind::Copy, Kind::Merge];
        let any = any[dice.below(4) as usize];
        match self {
            Emphasis::Nothing | Emphasis::LostReplies => any,
            Emphasis::Collections => Kind::Nothing,
            Emphasis::CollectionsAmid if any == Kind::Nothing => Kind::Merge,
            Emphasis::CollectionsAmid => Kind::Copy,
            Emphasis::Copies => Kind::Copy,
            Emphasis::Merges => Kind::Merge,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Step {
    pub at: Duration,
    pub what: What,
}

#[derive(Debug, Clone)]
pub struct Schedule {
    pub seed: u64,
    pub weather: Weather,
    pub skew_ms: Pair<i64>,
    pub lanes: usize,
    pub batch_operations_max: usize,
    pub queue_bytes_max: usize,
    /// At an effect of its own, whatever else happens.
    pub deaths: Vec<Death>,
    /// The very first start falls asleep once the clusters have done so many commands, for longer than
    /// its lease lasts.
    pub asleep_after_commands: Option<u64>,
    pub beginning: Beginning,
    pub steps: Vec<Step>,
}

impl Schedule {
    pub fn of(seed: u64) -> Self {
        let emphasis = Emphasis::chosen();
        let mut dice = Random::new(seed);
        let mut weather = Weather {
            lost_percent: [0, 0, 1, 4][dice.below(4) as usize],
            lost_commits_percent: [0, 0, 10][dice.below(3) as usize],
            delay_ms_max: [1, 4, 20][dice.below(3) as usize],
            late_ms_max: [0, 50, 1500][dice.below(3) as usize],
            members_lag_ms: [0, 2, 5, 30][dice.below(4) as usize],
            batch_events_max: [1, 3, 100][dice.below(3) as usize],
            stale_tokens_percent: [0, 30, 80][dice.below(3) as usize],
            history_seconds: [1, 5, 300][dice.below(3) as usize],
            elected_percent: [0, 50][dice.below(2) as usize],
        };
        if emphasis == Emphasis::LostReplies {
            weather.lost_percent = 4;
            weather.lost_commits_percent = 10;
        }
        let skew = |dice: &mut Random| [0, 0, 40, 3_600_000][dice.below(4) as usize];
        let skew_ms = Pair::new(skew(&mut dice), skew(&mut dice));
        let length_ms = [300, 1000, 3000][dice.below(3) as usize];
        let count = 3 + dice.below(40);
        let all = [
            Changers::One(Side::A),
            Changers::One(Side::B),
            Changers::Both,
            Changers::BothWithRenames,
        ];
        let kind = emphasis.kind(&mut dice);
        let changers = all[dice.below(4) as usize];
        let any = dice.percent(50);
        let changers = emphasis.is_of_collections(any).then_some(changers);
        let share = match emphasis {
            Emphasis::Collections | Emphasis::CollectionsAmid => 90,
            Emphasis::Nothing | Emphasis::LostReplies | Emphasis::Copies | Emphasis::Merges => 40,
        };
        let mut steps: Vec<Step> = (0..count)
            .map(|_| Step {
                at: Duration::from_millis(dice.below(length_ms)),
                what: match changers {
                    Some(changers) if dice.percent(share) => aside(&mut dice, changers),
                    Some(_) | None => what(&mut dice),
                },
            })
            .collect();
        steps.sort_by_key(|step| step.at);
        Self {
            seed,
            weather,
            skew_ms,
            lanes: 1 + dice.below(3) as usize,
            batch_operations_max: [1, 3, 100][dice.below(3) as usize],
            queue_bytes_max: [16_384, 67_108_864][dice.below(2) as usize],
            asleep_after_commands: None,
            beginning: Beginning::of(kind, &mut dice),
            steps,
            deaths: (0..dice.below(4)).map(|_| Death::any(&mut dice)).collect(),
        }
    }
}

impl Schedule {
    /// What a process has sent before it falls asleep is answered when it wakes.
    pub fn operation_timeout(&self) -> Duration {
        let sleeps = |step: &Step| matches!(step.what, What::Sleep { .. });
        let any = self.asleep_after_commands.is_some() || self.steps.iter().any(sleeps);
        Duration::from_secs(if any { 10 } else { 2 })
    }
}

/// Nothing but changes of collections by one side, and writes into them.
pub fn restless(dice: &mut Random, count: usize, apart: Duration) -> Vec<Step> {
    let changes = (1..).map(|number| Step {
        at: apart * number,
        what: aside(dice, Changers::One(Side::A)),
    });
    changes.take(count).collect()
}

/// Something about collections that come and go. Any side writes into them.
fn aside(dice: &mut Random, changers: Changers) -> What {
    let any = if dice.percent(50) { Side::A } else { Side::B };
    let collection = dice.below(COLLECTIONS_ASIDE as u64) as usize;
    let other = 1 + dice.below(COLLECTIONS_ASIDE as u64 - 1) as usize;
    match (dice.below(100), changers) {
        (0..=59, _) => What::WriteAside {
            side: any,
            collection,
            key: dice.below(2) as i32,
        },
        (60..=72, Changers::Both) => What::Create {
            side: any,
            collection,
        },
        (_, Changers::Both) => What::Drop {
            side: any,
            collection,
        },
        (kind, Changers::One(_) | Changers::BothWithRenames) => {
            let side = match changers {
                Changers::One(side) => side,
                Changers::Both | Changers::BothWithRenames => any,
            };
            match kind {
                60..=67 => What::Create { side, collection },
                68..=81 => What::Drop { side, collection },
                _ => What::Rename {
                    side,
                    collection,
                    to: (collection + other) % COLLECTIONS_ASIDE,
                },
            }
        }
    }
}

fn what(dice: &mut Random) -> What {
    let side = if dice.percent(50) { Side::A } else { Side::B };
    let time = Duration::from_millis(1 + dice.below(800));
    let any = |dice: &mut Random| dice.below(KEYS as u64) as i32;
    let free = |dice: &mut Random| KEPT_KEYS + dice.below((KEYS - KEPT_KEYS) as u64) as i32;
    match dice.below(100) {
        0..=54 => What::Write {
            side,
            key: any(dice),
        },
        55..=64 => {
            let first = any(dice);
            What::Transaction {
                side,
                keys: [first, (first + 1) % KEYS],
            }
        }
        65..=70 => What::Replace {
            side,
            key: free(dice),
        },
        71..=78 => What::Delete {
            side,
            key: free(dice),
        },
        79..=82 => What::NoChange {
            side,
            key: any(dice),
        },
        83..=84 => What::Election {
            side,
            time: time / 2,
            rolled_back: dice.percent(70),
        },
        85..=89 => What::Crash { down: time / 4 },
        90 => What::Sleep {
            time: LEASE_DURATION + 2 * time,
        },
        91..=92 => What::Latecomer {
            side,
            key: any(dice),
        },
        93..=95 => What::Cut { side, time },
        96..=98 => What::Slow { side, time },
        _ => What::ClockJump {
            side,
            ms: dice.below(20_000) as i64 - 10_000,
        },
    }
}
