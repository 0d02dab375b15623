//! Records as rows of fixed columns.

use bson::{RawBsonRef, RawDocument};

use super::extjson::write_plain;

/// A column's name and where its value stands in a record.
const COLUMNS: [(&str, &[&str]); 31] = [
    ("id", &["_id"]),
    ("logged_at", &["logged_at"]),
    ("pipeline", &["pipeline"]),
    ("namespace", &["namespace"]),
    ("document_key", &["document_key"]),
    ("kind", &["kind"]),
    ("policy", &["policy"]),
    ("winner", &["winner"]),
    ("winner_cluster", &["winner_cluster"]),
    ("reason", &["reason"]),
    ("winning_operation", &["winning", "operation"]),
    ("winning_cluster_time", &["winning", "cluster_time"]),
    ("winning_wall_time", &["winning", "wall_time"]),
    ("winning_version", &["winning", "version"]),
    ("winning_document", &["winning", "document"]),
    ("losing_operation", &["losing", "operation"]),
    ("losing_cluster_time", &["losing", "cluster_time"]),
    ("losing_wall_time", &["losing", "wall_time"]),
    ("losing_version", &["losing", "version"]),
    ("losing_change", &["losing", "change"]),
    ("losing_document", &["losing", "document"]),
    ("clock_skew_ms", &["clock_skew_ms"]),
    ("index", &["index"]),
    ("other_key", &["other_key"]),
    ("attempts", &["attempts"]),
    ("status", &["status"]),
    ("settled_by", &["settled_by"]),
    ("redacted", &["redacted"]),
    ("restored_at", &["restored", "at"]),
    ("restored_by", &["restored", "user"]),
    ("restored_as", &["restored", "account"]),
];

/// What makes a spreadsheet take a cell for a formula.
pub(super) const FORMULA_STARTS: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\n'];

pub(super) fn header() -> Vec<u8> {
    line(COLUMNS.iter().map(|(name, _)| (*name).to_owned()))
}

pub(super) fn row(record: &RawDocument) -> Vec<u8> {
    line(COLUMNS.iter().map(|(_, path)| cell(record, path)))
}

/// Empty for null and for what a record does not have.
pub(super) fn cell(document: &RawDocument, path: &[&str]) -> String {
    let Some((name, rest)) = path.split_first() else {
        return String::new();
    };
    if !rest.is_empty() {
        let part = document.get_document(name);
        return part.map_or_else(|_| String::new(), |part| cell(part, rest));
    }
    let mut elements = document.iter_elements().map_while(Result::ok);
    let Some(element) = elements.find(|element| element.key().as_str() == *name) else {
        return String::new();
    };
    match element.value() {
        Ok(RawBsonRef::Null) => String::new(),
        Ok(RawBsonRef::String(text)) => safe_text(text),
        Ok(RawBsonRef::DateTime(time)) => crate::change::rfc3339(time),
        _ => {
            let mut text = String::new();
            write_plain(&mut text, &element);
            text
        }
    }
}

/// Whoever shows the file on a terminal is spared what the terminal would obey.
pub(super) fn safe_text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 1);
    if text.starts_with(FORMULA_STARTS) {
        safe.push('\'');
    }
    for character in text.chars() {
        match character {
            '\t' | '\r' | '\n' => safe.push(character),
            other if other.is_control() => safe.extend(other.escape_default()),
            other => safe.push(other),
        }
    }
    safe
}

pub(super) fn line(cells: impl Iterator<Item = String>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(cells).expect("a row goes to memory");
    writer.into_inner().expect("a row goes to memory")
}
