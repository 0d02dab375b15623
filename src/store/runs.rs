//! The history of runs: when each began and ended, what it moved, and how it came out.

use bson::DateTime;
use serde::{Deserialize, Serialize};

use super::{Store, Totals};
use crate::change::{Pair, PipelineId};
use crate::error::Result;

/// Runs on record; older ones are forgotten. They all fit into one answer of a running link, and
/// a run every hour fills six weeks.
const RUNS_MAX: usize = 1000;

/// How a run came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// It goes on.
    Running,
    CaughtUp,
    /// It was asked to stop.
    Stopped,
    /// A cutover that came to its end.
    CutOver,
    /// The time given to it ran out.
    TimedOut,
    Failed,
    /// Its process ended without a word.
    Killed,
}

impl RunOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            RunOutcome::Running => "running",
            RunOutcome::CaughtUp => "caught up",
            RunOutcome::Stopped => "stopped",
            RunOutcome::CutOver => "cut over",
            RunOutcome::TimedOut => "timed out",
            RunOutcome::Failed => "failed",
            RunOutcome::Killed => "killed",
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    #[default]
    Run,
    Cutover,
}

/// One step of a cutover, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStep {
    pub step: String,
    /// Milliseconds since 1970.
    pub started_at_ms: i64,
    pub took_ms: i64,
    pub succeeded: bool,
    /// In words for people.
    pub found: String,
}

/// What a pipeline did in one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub operations_applied: u64,
    pub conflicts: u64,
    pub dead_letters: u64,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Milliseconds since 1970.
    pub started_at_ms: i64,
    /// None while it goes on, and where its process was killed.
    pub ended_at_ms: Option<i64>,
    pub outcome: RunOutcome,
    pub exit_code: Option<i32>,
    pub error: Option<String>,
    /// By the pipeline's source; zeros where the process was killed.
    pub moved: Pair<Moved>,
    #[serde(default)]
    pub kind: RunKind,
    /// Of a cutover.
    #[serde(default)]
    pub steps: Vec<RunStep>,
}

impl Run {
    /// A run that begins.
    pub fn started(at: DateTime) -> Self {
        Self {
            started_at_ms: at.timestamp_millis(),
            ended_at_ms: None,
            outcome: RunOutcome::Running,
            exit_code: None,
            error: None,
            moved: Pair::default(),
            kind: RunKind::Run,
            steps: Vec::new(),
        }
    }
}

impl Moved {
    /// What happened between two readings of the totals.
    pub fn between(before: &Totals, after: &Totals) -> Self {
        let applied = |totals: &Totals| {
            totals.inserts_applied
                + totals.updates_applied
                + totals.replaces_applied
                + totals.deletes_applied
                + totals.ddl_applied
        };
        Self {
            operations_applied: applied(after).saturating_sub(applied(before)),
            conflicts: after.conflicts.saturating_sub(before.conflicts),
            dead_letters: after.dead_letters.saturating_sub(before.dead_letters),
        }
    }
}

impl Store {
    /// The totals of both pipelines, by their sources.
    pub fn totals_of_both(&self) -> Result<Pair<Totals>> {
        Ok(Pair::new(
            self.totals(PipelineId::AToB)?,
            self.totals(PipelineId::BToA)?,
        ))
    }

    /// Puts a run on record, or its end. Runs are told apart by their start.
    pub fn put_run(&self, run: &Run) -> Result<()> {
        let bytes = serde_json::to_vec(run).map_err(|cause| {
            crate::error::Error::bug("cannot write a run as JSON").caused_by(cause)
        })?;
        let runs = &self.0.runs;
        let put = runs.insert(run.started_at_ms.to_be_bytes(), bytes);
        put.map_err(|cause| self.sled_error(cause))?;
        while runs.len() > RUNS_MAX {
            runs.pop_min().map_err(|cause| self.sled_error(cause))?;
        }
        Ok(())
    }

    /// All runs on record, the oldest first. See [`with_killed`] for those without an end.
    pub fn runs(&self) -> Result<Vec<Run>> {
        let mut found = Vec::new();
        for entry in self.0.runs.iter() {
            let (_, bytes) = entry.map_err(|cause| self.sled_error(cause))?;
            let run = serde_json::from_slice(&bytes);
            found.push(run.map_err(|cause| self.damaged("a run").caused_by(cause))?);
        }
        Ok(found)
    }
}

/// Runs without an end were killed, but for the last `running` ones. A cutover is under way until
/// it has come to an end or was given up, whatever became of its process.
pub fn with_killed(mut runs: Vec<Run>, running: usize) -> Vec<Run> {
    let of_links = runs.iter_mut().filter(|run| run.kind == RunKind::Run);
    for run in of_links.rev().skip(running) {
        if run.outcome == RunOutcome::Running {
            run.outcome = RunOutcome::Killed;
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_moved_is_the_difference_of_the_totals() {
        let before = Totals {
            inserts_applied: 5,
            conflicts: 2,
            ..Totals::default()
        };
        let after = Totals {
            inserts_applied: 6,
            deletes_applied: 3,
            conflicts: 2,
            dead_letters: 1,
            ..Totals::default()
        };
        let moved = Moved::between(&before, &after);
        assert_eq!((moved.operations_applied, moved.conflicts), (4, 0));
        assert_eq!(moved.dead_letters, 1);
    }

    #[test]
    fn a_run_without_an_end_was_killed_unless_it_goes_on() {
        let runs = vec![Run::started(DateTime::from_millis(1)); 2];
        let outcomes = |running: usize| {
            let runs = with_killed(runs.clone(), running);
            runs.iter().map(|run| run.outcome).collect::<Vec<_>>()
        };
        let mut with_cutover = runs.clone();
        with_cutover[1].kind = RunKind::Cutover;
        let found = with_killed(with_cutover, 1);
        assert!(found.iter().all(|run| run.outcome == RunOutcome::Running));
        assert_eq!(outcomes(1), [RunOutcome::Killed, RunOutcome::Running]);
        assert_eq!(outcomes(0), [RunOutcome::Killed, RunOutcome::Killed]);
    }
}
