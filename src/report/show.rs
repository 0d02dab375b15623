//! One conflict in full: what happened, why it ended so, and both versions side by side.

use std::fmt::Write;

use bson::RawDocument;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::json;

use super::csv_rows::cell;
use super::explain::{Explanation, explain};
use super::extjson::record_json;
use super::fields::{Differs, Field, Fields, compare};
use super::table::escaped;
use crate::change::{Pair, PipelineId};
use crate::error::{Error, Result};

/// A terminal that does not tell its width.
const WIDTH: u16 = 100;
/// Longer values are in the JSON.
const VALUE_CHARS_MAX: usize = 240;

/// What both clusters hold of the document at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Now {
    Equal,
    EqualToWinner,
    /// Whether it is the winner's nobody can tell: values of that are not on record.
    EqualAndRedacted,
    Differ,
}

impl Now {
    pub fn sentence(self) -> &'static str {
        match self {
            Now::Equal => "both sides hold the same document, written since",
            Now::EqualToWinner => "both sides hold the winning version",
            Now::EqualAndRedacted => {
                "both sides hold the same document; whether it is the winning version, a record \
                 without its redacted values cannot tell"
            }
            Now::Differ => "they differ; a write may be on its way, look again",
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Now::Equal | Now::EqualAndRedacted => "equal",
            Now::EqualToWinner => "equal_to_winner",
            Now::Differ => "differ",
        }
    }
}

/// The two versions of a record.
pub fn versions(record: &RawDocument) -> Fields {
    let document = |side: &str| {
        let part = record.get_document(side).ok();
        part.and_then(|part| part.get_document("document").ok())
    };
    let mut fields = compare(document("losing"), document("winning"));
    // Markers of one type are the same; what they stand for was not.
    for path in redacted_and_different(record) {
        let holds = |row: &&mut Field| {
            let rest = path.strip_prefix(&row.path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        for row in fields.rows.iter_mut().filter(holds) {
            if row.differs == Differs::Same {
                row.differs = Differs::Changed;
            }
        }
    }
    fields
}

fn redacted_and_different(record: &RawDocument) -> Vec<String> {
    let redacted = record.get_array("redacted").ok();
    let named = redacted.into_iter().flatten().filter_map(Result::ok);
    let paths = named.filter_map(|one| {
        let one = one.as_document()?;
        let differs = one.get_bool("differs").unwrap_or(false);
        differs.then(|| one.get_str("path").ok().map(str::to_owned))?
    });
    paths.collect()
}

/// One JSON document: the record as `conflict-report` prints it, its fields compared, its story.
///
/// # Errors
/// Never, unless the record makes no JSON, which is a defect.
pub fn to_json(record: &RawDocument, names: &Pair<String>, now: Option<Now>) -> Result<String> {
    let record_json: serde_json::Value = serde_json::from_str(&record_json(record))
        .map_err(|cause| Error::bug("a record that makes no JSON").caused_by(cause))?;
    let shown = json!({
        "format": 1,
        "record": record_json,
        "fields": versions(record),
        "explanation": explain(record, names),
        "now": now.map(Now::as_str),
    });
    serde_json::to_string_pretty(&shown)
        .map(|text| text + "\n")
        .map_err(|cause| Error::bug("cannot write a conflict as JSON").caused_by(cause))
}

/// For people. Nothing in it is obeyed by a terminal.
pub fn to_text(record: &RawDocument, names: &Pair<String>, now: Option<Now>) -> String {
    let text = |path: &[&str]| escaped(&cell(record, path));
    let [id, kind, status] = ["_id", "kind", "status"].map(|name| text(&[name]));
    let [namespace, key] = ["namespace", "document_key"].map(|name| text(&[name]));
    let mut out = format!("conflict {id}\n{kind}, {status}\n{namespace} {key}\n\n");
    let _ = writeln!(out, "{}\n", sides(record, names));
    let fields = versions(record);
    if !fields.rows.is_empty() {
        let _ = writeln!(out, "{}", side_by_side(&fields, record, names));
    }
    if fields.left_out > 0 {
        let _ = writeln!(out, "{} more fields: --json has them all", fields.left_out);
    }
    if fields.order_differs {
        out.push_str("the fields are the same, their order differs\n");
    }
    out.push('\n');
    for (name, sentence) in story(&explain(record, names), now) {
        let _ = writeln!(out, "{name:<9} {}", escaped(&sentence));
    }
    out
}

/// Each part of an explanation under its name.
pub(super) fn story(told: &Explanation, now: Option<Now>) -> Vec<(&'static str, String)> {
    let mut story = vec![
        ("happened", told.happened.clone()),
        ("decided", told.decided.clone()),
        ("clocks", told.clocks.clone()),
        ("written", told.written.clone()),
        ("agreed", told.agreed.clone()),
        ("since", told.became.clone()),
    ];
    if let Some(now) = now {
        story.push(("now", now.sentence().to_owned()));
    }
    story
}

/// What the losing and the winning side are called, as headings.
pub(super) fn headings(record: &RawDocument, names: &Pair<String>) -> [String; 2] {
    let text = |name: &str| record.get_str(name).unwrap_or_default();
    let loser = PipelineId::parse(text("pipeline")).map(PipelineId::source);
    let lost = loser.map_or("?", |side| names[side].as_str());
    match (text("winner"), loser) {
        ("", Some(side)) => [format!("{lost}, not applied"), names[side.other()].clone()],
        ("", None) => [lost.to_owned(), "?".to_owned()],
        (won, _) => [format!("{lost}, lost"), format!("{won}, won")],
    }
}

fn sides(record: &RawDocument, names: &Pair<String>) -> Table {
    let mut table = plain();
    let [lost, won] = headings(record, names);
    table.set_header(["", lost.as_str(), won.as_str()].map(escaped));
    for name in ["operation", "wall_time", "cluster_time", "version"] {
        let of = |side: &str| escaped(&cell(record, &[side, name]));
        table.add_row([name.replace('_', " "), of("losing"), of("winning")]);
    }
    table
}

fn side_by_side(fields: &Fields, record: &RawDocument, names: &Pair<String>) -> Table {
    let mut table = plain();
    table.set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(WIDTH);
    }
    let [lost, won] = headings(record, names);
    table.set_header(["", "field", lost.as_str(), won.as_str()].map(escaped));
    for row in &fields.rows {
        let shown = |value: &Option<String>| {
            let value = value.as_deref().unwrap_or("(absent)");
            shortened(&escaped(value))
        };
        let (losing, winning) = (shown(&row.losing), shown(&row.winning));
        table.add_row([
            mark(row.differs).to_owned(),
            escaped(&row.path),
            losing,
            winning,
        ]);
    }
    table
}

/// A sign that needs no colour.
pub(super) fn mark(differs: Differs) -> &'static str {
    match differs {
        Differs::Same => "",
        Differs::Changed => "≠",
        Differs::OnlyLosing => "-",
        Differs::OnlyWinning => "+",
    }
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
