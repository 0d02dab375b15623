//! One schedule: random steps of applications, readers, lanes, the sweeper and fate.

use tandem::change::{PipelineId, Policy, Side};

use crate::checks::{Failure, check};
use crate::cluster::Change;
use crate::link::Link;
use crate::options::{Broken, Options, Pace};
use crate::random::Random;
use crate::trace::Trace;

const STEPS_MAX: usize = 20_000;

struct Schedule {
    random: Random,
    link: Link,
    clock_ms: i64,
    next_write: usize,
    transactions_left: usize,
    crashes_left: usize,
}

/// Runs a schedule to its end.
pub fn run(
    seed: u64,
    policy: Policy,
    broken: Broken,
    trace: Trace,
) -> (Result<(), Failure>, Trace) {
    let mut random = Random::new(seed);
    let options = Options::of(&mut random, policy, broken);
    let mut trace = trace;
    trace.step(|| format!("{options:?}"));
    let mut schedule = Schedule {
        random,
        link: Link::new(options, trace),
        clock_ms: 100,
        next_write: 0,
        transactions_left: options.transactions,
        crashes_left: options.crashes,
    };
    let outcome = schedule.run();
    (outcome, schedule.link.trace)
}

impl Schedule {
    fn run(&mut self) -> Result<(), Failure> {
        for _ in 0..STEPS_MAX {
            self.step();
            self.link.is_draining = self.transactions_left == 0;
            if self.link.is_draining && self.random.one_in(4) && self.link.is_idle() {
                return check(&self.link);
            }
        }
        Err(Failure::Stuck)
    }

    fn step(&mut self) {
        let pace = match self.link.is_draining {
            true => Pace::DRAINING,
            false => self.link.options.pace,
        };
        let steps = [
            pace.application,
            pace.reader[0],
            pace.reader[1],
            pace.pipeline[0],
            pace.pipeline[1],
            pace.sweeper,
            pace.fate,
        ];
        let mut dice = self.random.below(steps.iter().sum());
        let step = steps
            .iter()
            .position(|weight| match dice.checked_sub(*weight) {
                Some(rest) => {
                    dice = rest;
                    false
                }
                None => true,
            });
        match step {
            Some(0) => self.applications_write(),
            Some(1) => self.link.read(Side::A),
            Some(2) => self.link.read(Side::B),
            Some(3) => self.advance(PipelineId::AToB),
            Some(4) => self.advance(PipelineId::BToA),
            Some(5) => self.link.sweep(&mut self.random),
            _ if self.random.one_in(2) => self.request_full_state(),
            _ => self.crash(),
        }
    }

    fn advance(&mut self, pipeline: PipelineId) {
        let lane = self.random.below(self.link.options.lanes);
        self.link.advance(pipeline, lane, &mut self.random);
    }

    fn request_full_state(&mut self) {
        if self.link.options.full_state_requests && self.transactions_left > 0 {
            let pipeline = self.random.pick(&PipelineId::BOTH);
            let key = self.random.below(self.link.options.keys);
            self.link.request_full_state(pipeline, key);
        }
    }

    fn crash(&mut self) {
        if self.crashes_left > 0 {
            self.crashes_left -= 1;
            self.link.start();
        }
    }

    /// One transaction of an application, its writes all at one cluster time.
    fn applications_write(&mut self) {
        if self.transactions_left == 0 {
            return;
        }
        self.transactions_left -= 1;
        self.clock_ms += self.random.pick(&[0, 1, 1, 2]);
        let side = self.random.pick(&Side::BOTH);
        let version_ms = if self.link.options.versions_at_random {
            self.random.below(20) as i64
        } else {
            self.clock_ms + self.link.options.skew[side.index()]
        };
        self.link.clusters[side].time += 1;
        let writes = 1 + self.random.below(self.link.options.transaction_writes_max);
        for _ in 0..writes {
            let key = self.random.below(self.link.options.keys);
            let change = self.change_of(side, key);
            let (id, tie) = (self.next_write, self.link.options.tie);
            let cluster = &mut self.link.clusters[side];
            let time = cluster.time;
            if cluster.write(id, key, change, version_ms, tie) {
                self.next_write += 1;
                self.link.trace.step(|| {
                    let side = side.as_str();
                    format!(
                        "write {id} on {side} at {time} version {version_ms}: key {key} {change:?}"
                    )
                });
            }
        }
    }

    fn change_of(&mut self, side: Side, key: usize) -> Change {
        let values = self.link.options.values;
        let fields = [(); 2].map(|()| self.random.below(values) as u16);
        let exists = self.link.clusters[side].now(key).document.is_some();
        match self.random.below(10) {
            0..6 if exists => {
                let field = self.random.below(2);
                Change::Update {
                    field,
                    value: fields[field],
                }
            }
            8.. if exists => Change::Delete,
            _ => Change::Replace(fields),
        }
    }
}
