//! One conflict on the page: a line that opens to all that is known of it.

use std::fmt::Write;

use bson::RawDocument;

use super::{plain, safe, time};
use crate::change::Pair;
use crate::report::csv_rows::cell;
use crate::report::explain::explain;
use crate::report::extjson::record_json;
use crate::report::fields::{Differs, Field};
use crate::report::show::{headings, mark, story, versions};

/// A record's JSON is shown up to here; other formats have all of it.
const JSON_CHARS_MAX: usize = 8000;
const KEY_CHARS_MAX: usize = 120;

pub(super) fn write(out: &mut String, record: &RawDocument, names: &Pair<String>) {
    let text = |name: &str| cell(record, &[name]);
    let [id, kind, status] = ["_id", "kind", "status"].map(text);
    let winner = match text("winner") {
        name if name.is_empty() => "nobody".to_owned(),
        name => name,
    };
    let side = match text("winner_cluster").as_str() {
        "a" => "w0",
        "b" => "w1",
        _ => "w2",
    };
    let _ = write!(
        out,
        "<details class=\"one\" id=\"c-{}\"><summary><span class=\"at\">{}</span>\
         <span class=\"what\"><b>{}</b> <code>{}</code></span>\
         <span class=\"kind\">{}</span><span class=\"winner\"><i class=\"{side}\"></i>{}</span>\
         <span class=\"status {}\">{}</span></summary>\n<div class=\"body\">\n",
        id_of(&id),
        time(&text("logged_at")),
        safe(&text("namespace")),
        safe(&cut(&plain::key(&text("document_key")), KEY_CHARS_MAX)),
        safe(&kind.replace('_', " ")),
        safe(&winner),
        id_of(&status),
        safe(&status),
    );
    out.push_str("<dl class=\"story\">\n");
    for (name, sentence) in story(&explain(record, names), None) {
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", safe(&sentence));
    }
    out.push_str("</dl>\n");
    write_sides(out, record, names);
    write_fields(out, record, names);
    let json = cut(&record_json(record), JSON_CHARS_MAX);
    let _ = write!(
        out,
        "<details class=\"raw\"><summary>The record, id <code>{}</code></summary><pre>{}</pre></details>\n</div></details>\n",
        safe(&id),
        safe(&json)
    );
}

fn write_sides(out: &mut String, record: &RawDocument, names: &Pair<String>) {
    let [lost, won] = headings(record, names);
    let _ = writeln!(
        out,
        "<div class=\"scroll\"><table class=\"sides\"><thead><tr><th></th><th>{}</th><th>{}</th></tr></thead><tbody>",
        safe(&lost),
        safe(&won)
    );
    for name in ["operation", "wall_time", "cluster_time", "version"] {
        if name == "version" && versions_are_wall_times(record) {
            continue;
        }
        let of = |side: &str| match (name, cell(record, &[side, name])) {
            (_, none) if none.is_empty() => "-".to_owned(),
            ("wall_time", at) => time(&at),
            ("cluster_time", at) => safe(&at.trim_matches(['[', ']']).replace(',', ", ")),
            (_, text) => safe(&text),
        };
        let shown = name.replace('_', " ");
        let _ = writeln!(
            out,
            "<tr><th>{shown}</th><td>{}</td><td>{}</td></tr>",
            of("losing"),
            of("winning")
        );
    }
    out.push_str("</tbody></table></div>\n");
}

/// They are, unless a field of the documents is the version.
fn versions_are_wall_times(record: &RawDocument) -> bool {
    let mut sides = ["losing", "winning"]
        .into_iter()
        .filter_map(|side| record.get_document(side).ok());
    sides.all(|side| {
        let wall = side
            .get_datetime("wall_time")
            .map(bson::DateTime::timestamp_millis);
        side.get_i64("version").ok() == wall.ok()
    })
}

fn write_fields(out: &mut String, record: &RawDocument, names: &Pair<String>) {
    let fields = versions(record);
    if fields.rows.is_empty() {
        out.push_str("<p class=\"note\">Neither side had a document.</p>\n");
        return;
    }
    let [lost, won] = headings(record, names);
    let _ = writeln!(
        out,
        "<table class=\"fields\"><thead><tr><th><span class=\"far\">differs</span></th><th>field</th><th>{}</th><th>{}</th></tr></thead><tbody>",
        safe(&lost),
        safe(&won)
    );
    for row in &fields.rows {
        write_row(out, row, [&lost, &won]);
    }
    out.push_str("</tbody></table>\n");
    if fields.left_out > 0 {
        let _ = writeln!(
            out,
            "<p class=\"note\">{} more fields are in the other formats.</p>",
            fields.left_out
        );
    }
    if fields.order_differs {
        out.push_str("<p class=\"note\">The fields are the same; their order differs.</p>\n");
    }
}

fn write_row(out: &mut String, row: &Field, headings: [&String; 2]) {
    let (class, differs) = match row.differs {
        Differs::Same => ("same", ""),
        Differs::Changed => ("changed", "changed"),
        Differs::OnlyLosing => ("lost", "only in the losing version"),
        Differs::OnlyWinning => ("won", "only in the winning version"),
    };
    let [losing, winning] = plain::sides(row).map(|value| match value {
        Some(value) => format!("<code>{}</code>", safe(&value)),
        None => "<em>absent</em>".to_owned(),
    });
    let _ = writeln!(
        out,
        "<tr class=\"{class}\"><td title=\"{differs}\">{}</td><th scope=\"row\">{}</th><td data-of=\"{}\">{}</td><td data-of=\"{}\">{}</td></tr>",
        mark(row.differs),
        safe(&row.path),
        safe(headings[0]),
        losing,
        safe(headings[1]),
        winning
    );
}

/// Only what an id or a class may have.
fn id_of(text: &str) -> String {
    let fits = |character: &char| {
        character.is_ascii_alphanumeric() || *character == '-' || *character == '_'
    };
    text.chars().filter(fits).collect()
}

fn cut(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
