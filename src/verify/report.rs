//! The outcome of a comparison, as a table for people and as JSON for machines.

use comfy_table::{Table, presets};
use serde_json::{Value, json};

use super::outcome::{DifferingKey, Outcome, Verification};
use super::repair::Repaired;
use crate::change::DocumentKey;
use crate::report::{escaped, write_canonical};

/// The number that changes with the shape of the JSON.
const FORMAT: u32 = 1;

/// `{"format":1,"link","outcome","cut_short","namespaces","schema","differences","unsettled",
/// "not_compared","unpaired_namespaces","dead_letters","repaired"}`; `repaired` is null without a
/// repair; keys are canonical extended JSON.
pub fn as_json(link: &str, found: &Verification, repaired: Option<&Repaired>) -> String {
    let differences = found.differing.iter().map(|one| {
        json!({
            "namespace": one.key.namespace().as_str(),
            "key": key_json(&one.key),
            "kind": one.kind,
            "fields": one.fields,
            "dead_letter": found.dead_letters.contains(&one.key),
        })
    });
    let unsettled = found.unsettled.iter().map(|(key, reason)| {
        json!({
            "namespace": key.namespace().as_str(),
            "key": key_json(key),
            "reason": reason,
        })
    });
    let dead_letters = found
        .dead_letters
        .iter()
        .map(|key| json!({ "namespace": key.namespace().as_str(), "key": key_json(key) }));
    let namespaces = found.namespaces.iter().map(|(name, counts)| {
        json!({
            "namespace": name,
            "documents": counts.documents,
            "differing": counts.differing,
            "unsettled": counts.unsettled,
        })
    });
    let shape = json!({
        "format": FORMAT,
        "link": link,
        "outcome": found.outcome(),
        "cut_short": found.cut_short,
        "namespaces": namespaces.collect::<Vec<_>>(),
        "schema": found.schema,
        "differences": differences.collect::<Vec<_>>(),
        "unsettled": unsettled.collect::<Vec<_>>(),
        "not_compared": found.not_compared,
        "unpaired_namespaces": found.unpaired,
        "dead_letters": dead_letters.collect::<Vec<_>>(),
        "repaired": repaired,
    });
    format!("{shape}\n")
}

/// Counts by namespace, then everything that was found, then one line that sums it up.
pub fn as_table(link: &str, found: &Verification) -> String {
    let mut text = String::new();
    let counts = found.namespaces.iter().map(|(name, counts)| {
        vec![
            escaped(name),
            counts.documents.a.to_string(),
            counts.documents.b.to_string(),
            counts.differing.to_string(),
            counts.unsettled.to_string(),
        ]
    });
    let headings = ["namespace", "on a", "on b", "differing", "unsettled"];
    section(&mut text, &headings, counts.collect());
    let schema = found.schema.iter().map(|one| {
        let subject = escaped(&one.subject);
        vec![escaped(&one.namespace), subject, one.found.clone()]
    });
    let headings = ["namespace", "options and indexes", "found"];
    section(&mut text, &headings, schema.collect());
    let differing = found.differing.iter().map(|one| row(one, found));
    let headings = ["namespace", "key", "difference", "fields"];
    section(&mut text, &headings, differing.collect());
    let unsettled = found.unsettled.iter().map(|(key, reason)| {
        let namespace = escaped(key.namespace().as_str());
        vec![namespace, key_text(key), reason.as_str().to_owned()]
    });
    let headings = ["namespace", "key", "unsettled"];
    section(&mut text, &headings, unsettled.collect());
    let left_out = found
        .not_compared
        .iter()
        .map(|one| vec![escaped(&one.namespace), one.reason.clone()]);
    section(
        &mut text,
        &["namespace", "not compared"],
        left_out.collect(),
    );
    for name in &found.unpaired {
        let name = escaped(name);
        text.push_str(&format!(
            "{name}: its changes are not replicated any more\n"
        ));
    }
    text + &summary(link, found)
}

fn row(one: &DifferingKey, found: &Verification) -> Vec<String> {
    let fields = one.fields.iter().map(|field| match field.path.as_str() {
        "" => field.kind.as_str().to_owned(),
        path => format!("{path}: {}", field.kind.as_str()),
    });
    let mut fields = fields.collect::<Vec<_>>().join(", ");
    if found.dead_letters.contains(&one.key) {
        fields.push_str(" (dead letter)");
    }
    vec![
        escaped(one.key.namespace().as_str()),
        key_text(&one.key),
        one.kind.as_str().to_owned(),
        escaped(&fields),
    ]
}

fn summary(link: &str, found: &Verification) -> String {
    let verdict = match found.outcome() {
        Outcome::Equal => "both clusters are equal",
        Outcome::Different => "the clusters differ",
        Outcome::Undecided => "no difference, but not everything could be compared",
    };
    let documents: u64 = found.namespaces.values().map(|n| n.documents.a).sum();
    let mut text = format!(
        "link {link}: {verdict}: {documents} documents, {} differing, {} unsettled, \
         {} differences in options and indexes, {} dead letters\n",
        found.differing.len(),
        found.unsettled.len(),
        found.schema.len(),
        found.dead_letters.len(),
    );
    if found.cut_short {
        text.push_str("stopped early: --differences-max was reached\n");
    }
    text
}

fn section(text: &mut String, headings: &[&str], rows: Vec<Vec<String>>) {
    if rows.is_empty() {
        return;
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(headings);
    table.add_rows(rows);
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text.push('\n');
}

fn key_text(key: &DocumentKey) -> String {
    let mut text = String::new();
    write_canonical(&mut text, key.raw());
    escaped(&text)
}

fn key_json(key: &DocumentKey) -> Value {
    let text = key_text(key);
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}
