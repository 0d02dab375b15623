//! The status of a link as people read it.

use std::fmt::Write;

use bson::DateTime;
use comfy_table::{Table, presets};

use super::status::{ClusterStatus, IndexProblem, LinkStatus, PositionStatus};
use crate::change::{PipelineId, Side, rfc3339};

const UNKNOWN: &str = "-";
const HOUR: u64 = 3600;

/// Two small tables, clusters and pipelines, and what needs attention below them.
pub fn to_text(status: &LinkStatus) -> String {
    let mut text = format!("link {}: {}", status.link, status.state.as_str());
    if let Some(pid) = status.pid {
        let _ = write!(text, ", pid {pid}");
    }
    if let Some(since) = status.since {
        let _ = write!(text, ", since {}", rfc3339(since));
    }
    if let Some(from) = status.started_from {
        let _ = write!(text, ", replicating from {}", rfc3339(from));
    }
    if let Some(PipelineId::BToA) = status.direction {
        let (from, to) = (&status.clusters.b.name, &status.clusters.a.name);
        let _ = write!(text, ", turned round: from {from} to {to}");
    }
    let _ = write!(text, "\n\n{}\n\n", clusters(status));
    let _ = writeln!(text, "{}", pipelines(status));
    for pipeline in &status.pipelines {
        if let Some(on) = &pipeline.waiting_on {
            let _ = writeln!(text, "\n{} waits ({on})", pipeline.id.as_str());
        }
    }
    for pipeline in &status.pipelines {
        if let Some(paused) = &pipeline.paused {
            let (id, since) = (pipeline.id.as_str(), time(paused.since));
            let by = &paused.by;
            let _ = writeln!(text, "\n{id} is paused since {since} by {by}");
            let _ = writeln!(text, "  hint: `tandem resume {id}` lets it go on");
        }
    }
    if !status.unpaired_namespaces.is_empty() {
        let names = status.unpaired_namespaces.join(", ");
        let _ = writeln!(text, "\nno longer replicated: {names}");
        let hint = "with the link stopped, `tandem resync --namespace NAME` takes one up again";
        let _ = writeln!(text, "  hint: {hint}");
    }
    for problem in &status.index_problems {
        let IndexProblem {
            cluster,
            namespace,
            name,
            reason,
        } = problem;
        let cluster = &status.clusters[*cluster].name;
        let _ = writeln!(text, "\n{cluster} refuses {name} of {namespace}: {reason}");
    }
    if let Some(reload) = &status.last_reload {
        let at = time(reload.at);
        let taken = reload.taken.join(", ");
        let taken = if taken.is_empty() { "nothing" } else { &taken };
        let _ = writeln!(text, "\nlast reload, {at}: taken: {taken}");
        for refused in &reload.refused {
            let _ = writeln!(text, "  refused: {}: {}", refused.key, refused.reason);
        }
        if let Some(error) = &reload.error {
            let _ = writeln!(text, "  {error}");
        }
    }
    if let Some(error) = &status.last_error {
        let at = time(error.at);
        let _ = writeln!(text, "\nlast error, {at}: {}", error.message);
        if let Some(hint) = &error.hint {
            let _ = writeln!(text, "  hint: {hint}");
        }
    }
    text
}

/// A line for each direction, for a log that is added to; what is unknown is `-`.
pub fn to_lines(status: &LinkStatus, now: DateTime) -> String {
    let mut text = String::new();
    for pipeline in &status.pipelines {
        let lag = or_unknown(pipeline.lag_seconds.map(|lag| format!("{lag:.2}s")));
        let _ = writeln!(
            text,
            "{} {} {} {} {} lag={lag} read={} applied={} conflicts={} dead_letters={}",
            rfc3339(now),
            status.link,
            status.state.as_str(),
            pipeline.id.as_str(),
            pipeline.phase.as_str(),
            pipeline.events_read_total,
            pipeline.operations_applied_total,
            pipeline.conflicts_total,
            pipeline.dead_letters_total
        );
    }
    text
}

fn clusters(status: &LinkStatus) -> Table {
    let mut table = plain_table(&[
        "cluster",
        "name",
        "set",
        "version",
        "reachable",
        "skew",
        "oplog",
    ]);
    for side in Side::BOTH {
        let ClusterStatus {
            name,
            set_name,
            version,
            reachable,
            clock_skew_ms,
            oplog_window_seconds,
            oplog_seconds_left: _,
        } = &status.clusters[side];
        table.add_row([
            side.as_str().to_owned(),
            name.clone(),
            or_unknown(set_name.clone()),
            or_unknown(version.clone()),
            or_unknown(reachable.map(|yes| if yes { "yes" } else { "no" })),
            or_unknown(clock_skew_ms.map(|ms| format!("{ms} ms"))),
            or_unknown(oplog_window_seconds.map(window)),
        ]);
    }
    table
}

fn pipelines(status: &LinkStatus) -> Table {
    let mut table = plain_table(&[
        "pipeline",
        "phase",
        "lag",
        "applied through",
        "read",
        "applied",
        "conflicts",
        "dead letters",
    ]);
    for pipeline in &status.pipelines {
        table.add_row([
            pipeline.id.as_str().to_owned(),
            pipeline.phase.as_str().to_owned(),
            or_unknown(pipeline.lag_seconds.map(|lag| format!("{lag:.2} s"))),
            or_unknown(pipeline.applied_through.as_ref().map(position)),
            pipeline.events_read_total.to_string(),
            pipeline.operations_applied_total.to_string(),
            pipeline.conflicts_total.to_string(),
            pipeline.dead_letters_total.to_string(),
        ]);
    }
    table
}

fn position(position: &PositionStatus) -> String {
    let [seconds, increment] = position.ts;
    match position.wall_time {
        Some(time) => rfc3339(time),
        None => format!(
            "{} +{increment}",
            rfc3339(DateTime::from_millis(i64::from(seconds) * 1000))
        ),
    }
}

fn window(seconds: u64) -> String {
    match seconds {
        0..HOUR => format!("{} min", seconds / 60),
        HOUR.. => format!("{:.1} h", seconds as f64 / HOUR as f64),
    }
}

fn plain_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn time(time: Option<DateTime>) -> String {
    or_unknown(time.map(rfc3339))
}

fn or_unknown(text: Option<impl Into<String>>) -> String {
    text.map_or_else(|| UNKNOWN.to_owned(), Into::into)
}
