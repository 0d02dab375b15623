//! `tandem runs`: the history of runs.

use bson::DateTime;
use clap::Args;
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::{Common, output};
use crate::change::{Pair, PipelineId, rfc3339};
use crate::error::{ExitCode, Result};
use crate::link::runs;
use crate::store::{Moved, Run, RunKind, RunOutcome};

/// The number that changes with the shape of the JSON.
const FORMAT: u32 = 1;

/// List past runs: when, what was moved, how they came out
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem runs --json")]
pub struct RunsArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// # Errors
/// A config error (3), or a store that cannot be read (7).
pub async fn run(common: &Common, args: &RunsArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let found = runs::runs(&config.link.state_dir).await?;
    output::print(&if args.json {
        as_json(&config.link.name, &found)
    } else {
        as_table(&found)
    })?;
    Ok(ExitCode::Done)
}

/// What a run has moved, for the last line of `run`.
pub fn summary(run: &Run) -> String {
    let Pair { a, b } = run.moved;
    let sum = |of: fn(Moved) -> u64| of(a) + of(b);
    let took_ms = run.ended_at_ms.unwrap_or(run.started_at_ms) - run.started_at_ms;
    format!(
        "{} operations applied, {} conflicts, {} dead letters in {:.1} s",
        sum(|moved| moved.operations_applied),
        sum(|moved| moved.conflicts),
        sum(|moved| moved.dead_letters),
        took_ms as f64 / 1000.0
    )
}

fn as_json(link: &str, found: &[Run]) -> String {
    let time = |ms: i64| rfc3339(DateTime::from_millis(ms));
    let found = found.iter().map(|run| {
        let pipelines = PipelineId::BOTH.map(|id| {
            let moved = run.moved[id.source()];
            json!({
                "id": id.as_str(),
                "operations_applied": moved.operations_applied,
                "conflicts": moved.conflicts,
                "dead_letters": moved.dead_letters,
            })
        });
        json!({
            "kind": run.kind,
            "started_at": time(run.started_at_ms),
            "ended_at": run.ended_at_ms.map(time),
            "outcome": run.outcome,
            "exit_code": run.exit_code,
            "error": run.error,
            "pipelines": pipelines,
            "steps": steps_json(run),
        })
    });
    let shape = json!({ "format": FORMAT, "link": link, "runs": found.collect::<Vec<_>>() });
    format!("{shape}\n")
}

/// The steps of a cutover.
pub fn steps_json(run: &Run) -> Vec<Value> {
    let steps = run.steps.iter().map(|step| {
        json!({
            "step": step.step,
            "started_at": rfc3339(DateTime::from_millis(step.started_at_ms)),
            "took_ms": step.took_ms,
            "succeeded": step.succeeded,
            "found": step.found,
        })
    });
    steps.collect()
}

fn as_table(found: &[Run]) -> String {
    let mut table = Table::new();
    let headings = [
        "started",
        "ended",
        "outcome",
        "exit",
        "a-to-b",
        "b-to-a",
        "conflicts",
        "dead letters",
    ];
    table.load_preset(presets::NOTHING).set_header(headings);
    for run in found {
        let time = |ms: i64| rfc3339(DateTime::from_millis(ms));
        let Pair { a, b } = run.moved;
        table.add_row([
            time(run.started_at_ms),
            run.ended_at_ms.map(time).unwrap_or_default(),
            match run.kind {
                RunKind::Run => run.outcome.as_str().to_owned(),
                RunKind::Cutover if run.outcome == RunOutcome::CutOver => "cut over".to_owned(),
                RunKind::Cutover => format!("cutover {}", run.outcome.as_str()),
            },
            run.exit_code
                .map(|code| code.to_string())
                .unwrap_or_default(),
            a.operations_applied.to_string(),
            b.operations_applied.to_string(),
            (a.conflicts + b.conflicts).to_string(),
            (a.dead_letters + b.dead_letters).to_string(),
        ]);
    }
    let lines = table.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_both_pipelines() {
        let mut run = Run::started(DateTime::from_millis(1000));
        run.ended_at_ms = Some(3500);
        run.moved.a.operations_applied = 7;
        run.moved.b.operations_applied = 5;
        run.moved.b.conflicts = 1;
        assert_eq!(
            summary(&run),
            "12 operations applied, 1 conflicts, 0 dead letters in 2.5 s"
        );
    }
}
