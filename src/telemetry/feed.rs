//! The newest records of the conflict log, as a page shows them.

use bson::{Bson, RawDocument};
use serde::Serialize;

use super::status::LinkStatus;
use crate::change::rfc3339;
use crate::store::Store;

/// What fits on a page.
const RECORDS_MAX: usize = 50;
/// A key is shown whole in a report.
const KEY_CHARS_MAX: usize = 120;
/// The log is looked at even where no total has moved: records change their status.
const LOOKS_WITHOUT_CHANGE_MAX: u32 = 10;

/// One record, without its documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    pub id: String,
    pub logged_at: String,
    /// The pipeline of the losing write's cluster.
    pub pipeline: String,
    pub kind: String,
    pub namespace: String,
    pub key: String,
    pub winner: Option<String>,
    pub reason: String,
    pub status: String,
}

/// The newest records, newest first.
#[derive(Debug, Default)]
pub struct Feed {
    generation: u64,
    records: Vec<Seen>,
    /// The totals at the last look.
    totals: Option<u64>,
    looks_without_change: u32,
}

impl Feed {
    /// What changed after `generation`; a generation of 0 has seen nothing.
    pub fn since(&self, generation: u64) -> Option<(u64, Vec<Seen>)> {
        (self.generation > generation).then(|| (self.generation, self.records.clone()))
    }

    /// Reads the newest records where something may have changed.
    pub fn look(&mut self, store: &Store, status: &LinkStatus) {
        let totals = status
            .pipelines
            .iter()
            .map(|pipeline| pipeline.conflicts_total + pipeline.dead_letters_total)
            .sum();
        self.looks_without_change += 1;
        if self.totals == Some(totals) && self.looks_without_change < LOOKS_WITHOUT_CHANGE_MAX {
            return;
        }
        self.totals = Some(totals);
        self.looks_without_change = 0;
        // A store that cannot be read ends the link elsewhere.
        if let Ok(newest) = store.newest_records(RECORDS_MAX) {
            self.take(newest.iter().map(|record| seen(record)).collect());
        }
    }

    fn take(&mut self, records: Vec<Seen>) {
        if self.generation == 0 || records != self.records {
            self.generation += 1;
            self.records = records;
        }
    }
}

fn seen(record: &RawDocument) -> Seen {
    let text = |name: &str| record.get_str(name).unwrap_or_default().to_owned();
    let logged_at = record.get_datetime("logged_at").map(rfc3339);
    Seen {
        id: text("_id"),
        logged_at: logged_at.unwrap_or_default(),
        pipeline: text("pipeline"),
        kind: text("kind"),
        namespace: text("namespace"),
        key: key(record),
        winner: record.get_str("winner").ok().map(str::to_owned),
        reason: text("reason"),
        status: text("status"),
    }
}

/// The key as relaxed extended JSON; of a key of `_id` alone, its value.
fn key(record: &RawDocument) -> String {
    let Ok(Some(key)) = record.get("document_key") else {
        return String::new();
    };
    let Ok(key) = Bson::try_from(key) else {
        return String::new();
    };
    let alone = match &key {
        Bson::Document(fields) if fields.len() == 1 => fields.get("_id").cloned(),
        _ => None,
    };
    let text = match alone.unwrap_or(key) {
        Bson::ObjectId(id) => id.to_hex(),
        Bson::String(text) => text,
        other => other.into_relaxed_extjson().to_string(),
    };
    match text.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::{DateTime, rawdoc};

    fn record(id: &str) -> bson::RawDocumentBuf {
        rawdoc! {
            "_id": id,
            "logged_at": DateTime::from_millis(0),
            "pipeline": "a-to-b",
            "namespace": "shop.orders",
            "document_key": { "_id": 7 },
            "kind": "update_origin_differs",
            "winner": "us",
            "reason": "later",
            "losing": { "document": { "_id": 7, "card": "4111" } },
            "status": "logged",
        }
    }

    #[test]
    fn a_record_is_shown_by_its_key_and_without_its_documents() {
        let shown = seen(&record("0a"));
        assert_eq!(
            (shown.key.as_str(), shown.winner.as_deref()),
            ("7", Some("us"))
        );
        assert!(!serde_json::to_string(&shown).unwrap().contains("4111"));
    }

    #[test]
    fn a_long_key_is_cut_and_one_of_several_fields_is_whole() {
        let long = rawdoc! { "document_key": { "_id": "ä".repeat(500) } };
        assert_eq!(key(&long).chars().count(), KEY_CHARS_MAX + 1);
        let id = bson::oid::ObjectId::from_bytes([10; 12]);
        assert_eq!(
            key(&rawdoc! { "document_key": { "_id": id } }),
            "0a".repeat(12)
        );
        let several = rawdoc! { "document_key": { "region": "eu", "_id": 1 } };
        assert_eq!(key(&several), r#"{"region":"eu","_id":1}"#);
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let mut feed = Feed::default();
        assert!(feed.since(0).is_none());
        feed.take(Vec::new());
        assert_eq!(feed.since(0), Some((1, Vec::new())));
        feed.take(vec![seen(&record("0a"))]);
        feed.take(vec![seen(&record("0a"))]);
        assert!(feed.since(2).is_none());
        assert_eq!(feed.since(1).map(|(now, _)| now), Some(2));
    }
}
