//! What a run is asked for, and what it has come to.

use std::sync::Arc;
use std::time::Duration;

use bson::DateTime;

use super::initial_sync::Progress;
use super::merge::{Job, Repairs};
use super::reloading::Reloads;
use super::start::FirstStart;
use crate::error::ExitCode;
use crate::store::{Run, RunOutcome, Store};
use crate::telemetry::board::Board;

/// What a run does besides replicating.
#[derive(Debug, Clone, Default)]
pub enum Work {
    #[default]
    Nothing,
    Resync {
        job: Job,
        progress: Arc<Progress>,
    },
    /// Done once everything has been caught up.
    Repair(Repairs),
}

impl Work {
    pub(super) fn resync(&self) -> Option<&Job> {
        match self {
            Work::Resync { job, .. } => Some(job),
            Work::Nothing | Work::Repair(_) => None,
        }
    }
}

/// How a run ends by itself, and what it does until then.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    pub until_caught_up: bool,
    pub timeout: Option<Duration>,
    pub first_start: FirstStart,
    pub work: Work,
    pub showing: Showing,
    pub reloads: Arc<Reloads>,
    /// Where the run shows how it is, if anybody watches.
    pub board: Option<Board>,
    /// One that is open already, and stays so. Whoever holds it can ask the run itself: there is no
    /// control socket then.
    pub store: Option<Store>,
}

/// What a run shows beside its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Showing {
    #[default]
    Nothing,
    /// Bars on standard error, which is a terminal.
    Bars,
}

/// What a run has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    CaughtUp,
    Stopped,
    /// A cutover has decided something: the link has to begin again with it.
    Turned,
    /// A cutover has ended the link.
    CutOver,
}

/// A run that ended well, and what is on record of it.
#[derive(Debug, Clone)]
pub struct Completed {
    pub ended: Ended,
    pub run: Run,
}

impl Completed {
    /// Stopped while the clusters were still looked for.
    pub(super) fn before_anything() -> Self {
        let now = DateTime::now();
        let mut run = Run::started(now);
        run.ended_at_ms = Some(now.timestamp_millis());
        run.outcome = RunOutcome::Stopped;
        run.exit_code = Some(ExitCode::Done as i32);
        Self {
            ended: Ended::Stopped,
            run,
        }
    }
}
