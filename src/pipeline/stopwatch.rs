//! How long each step of a batch takes, for the debug log.

use std::time::Duration;

use tokio::time::Instant;

use crate::resolve::Plan;

/// A part of a batch's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What the decisions need of the source.
    Read,
    /// The statements of the transaction.
    Write,
    Commit,
    /// Until the target's reader has passed the commit.
    Echo,
}

const STEPS: usize = 4;

pub struct Stopwatch {
    last: Instant,
    took: [Duration; STEPS],
}

impl Stopwatch {
    pub fn start() -> Self {
        Self {
            last: Instant::now(),
            took: [Duration::ZERO; STEPS],
        }
    }

    /// The step ends here.
    pub fn lap(&mut self, step: Step) {
        let now = Instant::now();
        self.took[step as usize] = now - self.last;
        self.last = now;
    }

    pub fn took(&self, step: Step) -> Duration {
        self.took[step as usize]
    }

    pub fn tell(&self, plan: &Plan) {
        let micros = |step: Step| self.took(step).as_micros() as u64;
        tracing::debug!(
            pipeline = plan.pipeline.as_str(),
            lane = plan.leader(),
            lanes = plan.shares.len(),
            size = plan.size(),
            read_us = micros(Step::Read),
            write_us = micros(Step::Write),
            commit_us = micros(Step::Commit),
            echo_us = micros(Step::Echo),
            "batch applied"
        );
    }
}
