//! What the conflict records say of the writes that lost.

use std::collections::BTreeSet;

use serde_json::Value;

use super::oracle::{Place, Side, Time};

/// What a conflict record says of its losing write.
#[derive(Debug, Clone)]
pub struct Loss {
    pub side: Side,
    pub place: Place,
    /// None for a delete.
    pub id: Option<String>,
    pub time: Time,
    pub overturned: bool,
}

/// The last run of digits in `text`: keys are numbers, strings and sub-documents around a number.
pub fn number_in(text: &str) -> u32 {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    let digits = parts.rfind(|part| !part.is_empty());
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(u32::MAX)
}

/// The ids that the losing documents of the records hold.
pub fn held_by_records(records: &[Value]) -> BTreeSet<String> {
    let of = |record: &Value| record["losing"]["document"]["seen"].as_array().cloned();
    let seen = records.iter().filter_map(of).flatten();
    seen.filter_map(|id| id.as_str().map(str::to_owned))
        .collect()
}

/// Reads a record of `conflict-report --format json`.
///
/// None for DDL, for dead letters and for writes without an id, which a test may add.
pub fn loss_of(record: &Value) -> Option<Loss> {
    if ["ddl", "dead_letter"].contains(&record["kind"].as_str()?) {
        return None;
    }
    let losing = &record["losing"];
    let number = |at: usize| losing["cluster_time"][at].as_u64().unwrap_or(0) as u32;
    let id = id_in(&losing["change"]);
    if id.is_none() && losing["operation"] != "delete" {
        return None;
    }
    let a_lost = record["pipeline"] == Side::A.pipeline();
    Some(Loss {
        side: if a_lost { Side::A } else { Side::B },
        place: (
            record["namespace"].as_str()?.to_owned(),
            number_in(&digits_of_key(&record["document_key"]["_id"])),
        ),
        id,
        time: (number(0), number(1)),
        overturned: record["status"] == "overturned",
    })
}

/// The values alone: type names of extended JSON hold digits too (`$numberInt` has none, but
/// `$numberDecimal128` might come).
pub fn digits_of_key(id: &Value) -> String {
    match id {
        Value::String(text) => text.clone(),
        Value::Object(fields) => fields.values().map(digits_of_key).collect(),
        other => other.to_string(),
    }
}

/// The id that a change appended: the last of the `seen` it carries, or of the elements it set.
fn id_in(change: &Value) -> Option<String> {
    let last = |seen: &Value| Some(seen.as_array()?.last()?.as_str()?.to_owned());
    if let Some(id) = last(&change["fullDocument"]["seen"]) {
        return Some(id);
    }
    let difference = &change["rawUpdateDescription"]["diff"];
    let whole = ["u", "i"]
        .iter()
        .find_map(|part| last(&difference[part]["seen"]));
    if whole.is_some() {
        return whole;
    }
    let elements = difference["sseen"]
        .as_object()?
        .iter()
        .filter_map(|(part, value)| {
            let index: u32 = part.strip_prefix('u')?.parse().ok()?;
            Some((index, value.as_str()?.to_owned()))
        });
    elements.max().map(|(_, id)| id)
}
