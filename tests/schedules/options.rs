//! The shape of a schedule, and the one rule that it may break on purpose.

use tandem::change::{Mode, Policy, Side};
use tandem::resolve::{Room, Rules};

use crate::random::Random;

/// A rule that is left out, to see that the checks notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Nothing,
    /// A winner's own pipeline is not told to send full state.
    Owed,
    /// Nobody remembers how much of the source's history a full state held.
    Included,
    /// A write that changes nothing at the fence is not checked against later writes.
    ForcedCheck,
    /// A reader calls a cluster time complete in the middle of a transaction.
    CompleteTimes,
    /// Full state is read at the head and not at the complete time.
    ExactRead,
    /// Writes after the fence are overwritten.
    Fence,
    /// While a's documents are copied, b's writes are sent to a as if nothing were there.
    Hold,
    /// While both sides' documents are merged, writes are sent as if they were the same.
    MergeHold,
    /// A merge takes whatever differs for a difference, though it may be on its way.
    Base,
    /// Where a losing side's document is the same, its batch is passed over and nothing settled.
    Agreement,
    /// Both readers wait for room where both are full.
    Room,
    /// What a copy has read is sent whatever was written to it since.
    StaleCopy,
    /// After a restart nobody foresees what tandem itself had written.
    Recovery,
    /// After a restart nobody knows what lanes had applied beyond their checkpoints' positions.
    Ahead,
}

/// What was there before the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Nothing,
    /// a held documents, which are copied.
    Copied,
    /// Both sides held some, which are merged before anything else goes over.
    Merged,
    /// The same, but that everything else goes on while each document is settled.
    Settled,
}

#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub broken: Broken,
    pub rules: Rules,
    pub tie: Side,
    pub keys: usize,
    pub lanes: usize,
    /// Application transactions, each of one to four writes.
    pub transactions: usize,
    pub transaction_writes_max: usize,
    pub crashes: usize,
    /// Different values of a field: the fewer, the more writes change nothing.
    pub values: usize,
    pub batch_operations_max: usize,
    /// ms that each cluster's clock is ahead.
    pub skew: [i64; 2],
    /// Versions have nothing to do with time, as where a field of the document holds them.
    pub versions_at_random: bool,
    pub full_state_requests: bool,
    pub before: Before,
    /// The side whose documents stay in a merge, whatever the rules say.
    pub from: Option<Side>,
    /// A reader waits where more than this waits in the queues. An event takes about 1000 bytes.
    pub room: Room,
    pub pace: Pace,
}

/// How often each step is taken, in parts of their sum.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub application: usize,
    pub reader: [usize; 2],
    pub pipeline: [usize; 2],
    pub sweeper: usize,
    pub fate: usize,
}

impl Pace {
    /// What is left to do once the applications have ended is done at an even pace.
    pub const DRAINING: Pace = Pace {
        application: 0,
        reader: [20, 20],
        pipeline: [20, 20],
        sweeper: 6,
        fate: 1,
    };

    fn of(random: &mut Random) -> Self {
        Self {
            application: random.pick(&[4, 12, 40]),
            reader: [(); 2].map(|()| random.pick(&[3, 20, 20, 60])),
            pipeline: [(); 2].map(|()| random.pick(&[3, 20, 20, 60])),
            sweeper: random.pick(&[1, 6]),
            fate: random.pick(&[1, 1, 5]),
        }
    }
}

impl Options {
    pub fn of(random: &mut Random, policy: Policy, broken: Broken) -> Self {
        Self {
            broken,
            rules: Rules {
                mode: Mode::TwoWay,
                policy,
            },
            tie: random.pick(&Side::BOTH),
            keys: random.pick(&[1, 1, 1, 2, 3]),
            lanes: random.pick(&[1, 2, 3]),
            transactions: random.pick(&[3, 5, 8, 12, 20]),
            transaction_writes_max: random.pick(&[1, 1, 2, 4]),
            crashes: random.pick(&[0, 1, 2, 6]),
            values: random.pick(&[2, 3, 1000]),
            batch_operations_max: random.pick(&[1, 3, 4, 8]),
            skew: [random.pick(&[0, 0, 5, -5]), 0],
            versions_at_random: random.one_in(5),
            full_state_requests: random.one_in(4),
            before: match broken {
                Broken::Hold | Broken::StaleCopy => Before::Copied,
                Broken::MergeHold | Broken::Base => Before::Merged,
                _ => random.pick(&[
                    Before::Nothing,
                    Before::Nothing,
                    Before::Nothing,
                    Before::Copied,
                    Before::Merged,
                    Before::Settled,
                ]),
            },
            from: random.pick(&[None, None, Some(Side::A), Some(Side::B)]),
            room: Room {
                queue_bytes_max: random.pick(&[1, 1500, 5000, usize::MAX]),
                entries_max: random.pick(&[1, 1000]),
            },
            pace: Pace::of(random),
        }
    }
}
