//! The record of a run, from its start to its end, and what is told of all runs.

use std::path::Path;

use bson::DateTime;

use super::control::{Answer, Request, Response};
use super::reporting::{Source, source, unexpected};
use super::run::Ended;
use crate::change::{Pair, Side};
use crate::error::{Error, ExitCode, Result};
use crate::store::{Moved, Run, RunOutcome, Store, Totals, with_killed};

/// Characters kept of what a run failed with; the log has all of it.
const ERROR_CHARS_MAX: usize = 300;

/// A run whose start is on record.
pub(super) struct OpenRun {
    run: Run,
    before: Pair<Totals>,
}

impl OpenRun {
    /// # Errors
    /// As the store says.
    pub(super) fn begin(store: &Store) -> Result<Self> {
        let run = Run::started(DateTime::now());
        store.put_run(&run)?;
        Ok(Self {
            run,
            before: store.totals_of_both()?,
        })
    }

    /// # Errors
    /// As the store says.
    pub(super) fn end(
        self,
        store: &Store,
        outcome: std::result::Result<&Ended, &Error>,
    ) -> Result<Run> {
        let mut run = self.run;
        let after = store.totals_of_both()?;
        for side in Side::BOTH {
            run.moved[side] = Moved::between(&self.before[side], &after[side]);
        }
        run.ended_at_ms = Some(DateTime::now().timestamp_millis());
        (run.outcome, run.exit_code) = match outcome {
            Ok(Ended::CaughtUp) => (RunOutcome::CaughtUp, Some(ExitCode::Done as i32)),
            Ok(Ended::Stopped | Ended::Turned | Ended::CutOver) => {
                (RunOutcome::Stopped, Some(ExitCode::Done as i32))
            }
            Err(error) => (outcome_of(error), Some(error.exit as i32)),
        };
        run.error = outcome.err().map(shortened);
        store.put_run(&run)?;
        Ok(run)
    }
}

fn shortened(error: &Error) -> String {
    error.to_string().chars().take(ERROR_CHARS_MAX).collect()
}

fn outcome_of(error: &Error) -> RunOutcome {
    match error.exit {
        ExitCode::TimedOut => RunOutcome::TimedOut,
        _ => RunOutcome::Failed,
    }
}

/// All runs on record, the oldest first; asks the running link where there is one.
///
/// # Errors
/// A store that cannot be read (7).
pub async fn runs(state_dir: &Path) -> Result<Vec<Run>> {
    match source(state_dir, &Request::Runs).await? {
        Source::Process(Answer::Line(Response::Runs { runs })) => Ok(with_killed(runs, 1)),
        Source::Process(Answer::Line(response)) => Err(unexpected(&response)),
        Source::Process(Answer::Records(_)) => {
            Err(Error::bug("the running tandem sent records for its runs"))
        }
        Source::Store(store) => Ok(with_killed(store.runs()?, 0)),
        Source::Nobody => Ok(Vec::new()),
    }
}
