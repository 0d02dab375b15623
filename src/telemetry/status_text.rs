//! The status of a link as people read it.

use std::fmt::Write;

use bson::DateTime;
use comfy_table::{ContentArrangement, Table, presets};

use super::status::{ClusterStatus, IndexProblem, LinkStatus, PipelineStatus, PositionStatus};
use crate::change::{PipelineId, Side, rfc3339};

const UNKNOWN: &str = "-";

/// How wide the terminal is; none where there is none.
pub fn terminal_width() -> Option<u16> {
    Table::new().width()
}

/// Two small tables, clusters and pipelines, no wider than `width`, and what needs attention below
/// them.
pub fn to_text(status: &LinkStatus, width: Option<u16>) -> String {
    let mut text = head(status, width);
    let _ = write!(text, "\n\n{}\n\n", clusters(status, width));
    let _ = writeln!(text, "{}", pipelines(status, width));
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

/// The link in a line, or in more where the terminal is narrow.
fn head(status: &LinkStatus, width: Option<u16>) -> String {
    let mut facts = vec![format!("link {}: {}", status.link, status.state.as_str())];
    facts.extend(status.pid.map(|pid| format!("pid {pid}")));
    let since = |time| format!("since {}", rfc3339(time));
    facts.extend(status.since.map(since));
    let from = |time| format!("replicating from {}", rfc3339(time));
    facts.extend(status.started_from.map(from));
    if let Some(PipelineId::BToA) = status.direction {
        let (from, to) = (&status.clusters.b.name, &status.clusters.a.name);
        facts.push(format!("turned round: from {from} to {to}"));
    }
    let mut text = String::new();
    let mut taken = 0;
    for fact in facts {
        let more = fact.chars().count() + ", ".len();
        if taken > 0 && width.is_some_and(|width| taken + more > usize::from(width)) {
            text.push_str(",\n  ");
            taken = 2;
        } else if taken > 0 {
            text.push_str(", ");
        }
        text.push_str(&fact);
        taken += more;
    }
    text
}

fn clusters(status: &LinkStatus, width: Option<u16>) -> Table {
    let header = [
        "cluster",
        "name",
        "set",
        "version",
        "reachable",
        "skew",
        "oplog holds",
        "time left",
    ];
    let row = |side: Side| {
        let ClusterStatus {
            name,
            set_name,
            version,
            reachable,
            clock_skew_ms,
            oplog_window_seconds,
            oplog_seconds_left,
        } = &status.clusters[side];
        [
            side.as_str().to_owned(),
            name.clone(),
            or_unknown(set_name.clone()),
            or_unknown(version.clone()),
            or_unknown(reachable.map(|yes| if yes { "yes" } else { "no" })),
            or_unknown(clock_skew_ms.map(|ms| format!("{ms} ms"))),
            or_unknown(oplog_window_seconds.map(span)),
            or_unknown(oplog_seconds_left.map(span)),
        ]
    };
    table(header, &Side::BOTH.map(row), width)
}

fn pipelines(status: &LinkStatus, width: Option<u16>) -> Table {
    let header = [
        "pipeline",
        "phase",
        "lag",
        "applied through",
        "read",
        "applied",
        "conflicts",
        "dead letters",
    ];
    let row = |pipeline: &PipelineStatus| {
        [
            pipeline.id.as_str().to_owned(),
            pipeline.phase.as_str().to_owned(),
            or_unknown(pipeline.lag_seconds.map(|lag| format!("{lag:.2} s"))),
            or_unknown(pipeline.applied_through.as_ref().map(position)),
            pipeline.events_read_total.to_string(),
            pipeline.operations_applied_total.to_string(),
            pipeline.conflicts_total.to_string(),
            pipeline.dead_letters_total.to_string(),
        ]
    };
    let rows: Vec<_> = status.pipelines.iter().map(row).collect();
    table(header, &rows, width)
}

/// A line for each row; where that is too wide, a column for each.
fn table<const N: usize>(header: [&str; N], rows: &[[String; N]], width: Option<u16>) -> Table {
    let mut wide = plain_table();
    wide.set_header(header).add_rows(rows);
    let fits = |line: String| width.is_none_or(|width| line.chars().count() <= usize::from(width));
    if wide.lines().all(fits) {
        return wide;
    }
    let mut narrow = plain_table();
    narrow.set_content_arrangement(ContentArrangement::Dynamic);
    narrow.set_width(width.unwrap_or_default());
    for (at, name) in header.into_iter().enumerate() {
        let values = rows.iter().map(|row| row[at].clone());
        narrow.add_row(std::iter::once(name.to_owned()).chain(values));
    }
    narrow
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

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn span(seconds: u64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{:.1} h", seconds as f64 / 3600.0),
        _ => format!("{:.1} d", seconds as f64 / 86_400.0),
    }
}

fn time(time: Option<DateTime>) -> String {
    or_unknown(time.map(rfc3339))
}

fn or_unknown(text: Option<impl Into<String>>) -> String {
    text.map_or_else(|| UNKNOWN.to_owned(), Into::into)
}
