//! Notes about keys in conflict, kept in `__tandem.keys` of the cluster they concern.

use std::sync::Arc;

use bson::{
    Bson, DateTime, Document, RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, cstr, rawdoc,
};

use crate::change::{DocumentKey, LEVELS_MAX, SharedEvent, is_deeper_than};

/// What a transaction changes in a key's note on its target.
#[derive(Debug, Clone)]
pub enum Note {
    /// The other pipeline must send full state next; with the losing writes, record and time, that
    /// are in the other document until then.
    Owed {
        value: Arc<str>,
        lost: Vec<(Arc<str>, Timestamp)>,
    },
    /// The document holds the source's history through this time.
    Included { through: Timestamp },
    /// The document was replaced: the note on the source with this value is settled, and what it
    /// lists up to this time of the target is gone.
    Paid {
        value: Option<Arc<str>>,
        replaced_through: Timestamp,
    },
    /// The last event could not be applied.
    Dead,
    /// It could be applied after all.
    Revived,
    /// One-way mode: a local write that the other side has not touched yet.
    Witnessed { event: SharedEvent },
    /// One-way mode: the other side has won over all local writes.
    Unwitnessed,
    /// The lane's checkpoint has passed what `Included` says.
    IncludedPassed { through: Timestamp },
    /// Losing writes that the note lists are in the document after all: those up to this time of
    /// their own cluster.
    Overturned { through: Timestamp },
}

/// The `_id` of a key's note: the same for equal keys.
pub fn key_id(link: &str, key: &DocumentKey) -> RawDocumentBuf {
    let canonical = bytes(key.canonical());
    rawdoc! { "link": link, "ns": key.namespace().as_str(), "key": canonical }
}

fn bytes(of: &[u8]) -> bson::Binary {
    bson::Binary {
        subtype: bson::spec::BinarySubtype::Generic,
        bytes: of.to_vec(),
    }
}

/// `{ _id: … }` of a key, as its note keeps it.
pub fn key_in(note: &Document) -> Option<RawDocumentBuf> {
    match note.get("raw")? {
        Bson::Document(raw) => RawDocumentBuf::try_from(raw).ok(),
        Bson::Binary(raw) => RawDocumentBuf::from_bytes(raw.bytes.clone()).ok(),
        _ => None,
    }
}

/// The statement that puts a note on record.
pub fn note_statement(link: &str, key: &DocumentKey, note: &Note) -> RawDocumentBuf {
    let (change, upsert) = match note {
        Note::Owed { value, lost } => (owed(key, value, lost), true),
        Note::Included { through } => (set(key, &rawdoc! { "included": *through }), true),
        Note::Paid {
            value,
            replaced_through,
        } => {
            let value = value.as_deref().unwrap_or_default();
            let paid = rawdoc! { "value": value, "through": *replaced_through };
            (set(key, &rawdoc! { "paid": paid }), true)
        }
        Note::Dead => (set(key, &rawdoc! { "dead": true }), true),
        Note::Revived => (rawdoc! { "$unset": { "dead": "" } }, false),
        Note::Witnessed { event } => {
            let mut statement = rawdoc! { "q": not_beaten(link, key, event.position.time) };
            statement.append(cstr!("u"), witnessed(key, event));
            statement.append(cstr!("upsert"), true);
            return statement;
        }
        Note::Unwitnessed => (rawdoc! { "$unset": { "local": "" } }, false),
        Note::IncludedPassed { through } => {
            let query = rawdoc! { "_id": key_id(link, key), "included": *through };
            return rawdoc! { "q": query, "u": { "$unset": { "included": "" } } };
        }
        Note::Overturned { through } => {
            let held = rawdoc! { "at": { "$lte": *through } };
            (rawdoc! { "$pull": { "lost": held } }, false)
        }
    };
    let mut statement = rawdoc! { "q": { "_id": key_id(link, key) }, "u": change };
    statement.append(cstr!("upsert"), upsert);
    statement
}

fn owed(key: &DocumentKey, value: &str, lost: &[(Arc<str>, Timestamp)]) -> RawDocumentBuf {
    let mut list = RawArrayBuf::new();
    for (record, at) in lost {
        list.push(rawdoc! { "record": record.as_ref(), "at": *at });
    }
    let mut change = set(key, &rawdoc! { "owed": value });
    change.append(cstr!("$push"), rawdoc! { "lost": { "$each": list } });
    change
}

/// Does not match the note of a document that was replaced since: a duplicate key says so, where the
/// commit that did it is not seen yet.
fn not_beaten(link: &str, key: &DocumentKey, at: Timestamp) -> RawDocumentBuf {
    rawdoc! { "_id": key_id(link, key), "paid.through": { "$not": { "$gte": at } } }
}

/// Told apart by token, since a batch may be noted twice.
fn witnessed(key: &DocumentKey, event: &SharedEvent) -> RawDocumentBuf {
    let local = rawdoc! {
        "token": event.position.token.as_ref(),
        "time": event.position.time,
        "operation": event.operation.as_str(),
        "wall_time": DateTime::from_millis(event.wall_time_ms),
        "version": event.version.wall_time_ms,
    };
    let mut change = set(key, &rawdoc! {});
    change.append(cstr!("$push"), rawdoc! { "local": local });
    change
}

/// Of a key that is nested deeper than a note may be, the bytes alone.
fn set(key: &DocumentKey, fields: &RawDocument) -> RawDocumentBuf {
    let mut fields = fields.to_owned();
    let raw = cstr!("raw");
    match is_deeper_than(key.raw(), LEVELS_MAX) {
        true => fields.append(raw, bytes(key.raw().as_bytes())),
        false => fields.append(raw, key.raw()),
    }
    rawdoc! { "$set": fields }
}
