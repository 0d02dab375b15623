//! What the server said to a command of a transaction: all of it is looked at, `ok: 1` included.

use bson::{Document, RawDocumentBuf, Timestamp};

use crate::change::DocumentKey;
use crate::cluster::errors::{COLLECTION_UUID_MISMATCH, DUPLICATE_KEY};
use crate::cluster::{Failure, errors};
use crate::error::{Class, Error};

/// Why a transaction was not committed.
#[derive(Debug)]
pub enum Refusal {
    /// Something changed after the fence, or the server could not run it now: wait until the
    /// target's reader has passed `at`, decide again.
    Unseen { at: Option<Timestamp>, code: i32 },
    /// Deltas of these keys met a document that they do not fit: send full state.
    FullStateNeeded(Vec<DocumentKey>),
    /// The key is equal but not identical (1 and 1.0): delete and insert.
    IdentityNeeded(DocumentKey),
    /// A unique index refused it; at a past snapshot this is often false.
    Duplicate {
        at: Option<Timestamp>,
        error: Box<WriteError>,
    },
    /// The server will not take this write.
    Impossible {
        at: Option<Timestamp>,
        error: Box<WriteError>,
    },
    /// It did not end within `apply.transaction_time_max`.
    TookTooLong,
    /// Another process has taken the link over.
    Fenced,
    /// The connection or the server failed before the commit was sent.
    Failed(Error),
}

/// A write that the server refused, and for which document.
#[derive(Debug, Clone)]
pub struct WriteError {
    pub key: Option<DocumentKey>,
    pub code: i32,
    pub code_name: String,
    /// The unique index and the value that collided, where it is a duplicate.
    pub index: Option<String>,
    pub key_value: Option<Document>,
    pub key_pattern: Option<Document>,
    /// The document that holds the value already, `{ _id: … }`; looked up by the lane.
    pub other_key: Option<RawDocumentBuf>,
}

const IMMUTABLE_FIELD: i32 = 66;
const NO_SUCH_TRANSACTION: i32 = 251;

/// What a write command did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    /// Statements that found or made their document.
    pub matched: usize,
    /// Statements that changed something.
    pub effective: usize,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.matched += more.matched;
        self.effective += more.effective;
    }
}

/// Reads the reply of `insert`, `update` or `delete` with one statement for each of `keys`.
///
/// # Errors
/// The refusal that its first write error or write concern error means.
pub fn counts(reply: &Document, keys: &[DocumentKey], doing: &str) -> Result<Counts, Refusal> {
    if let Ok(first) = reply.get_array("writeErrors").map(|errors| &errors[0]) {
        let at = operation_time(reply);
        return Err(refusal_of(first.as_document(), keys, at, doing));
    }
    if let Ok(concern) = reply.get_document("writeConcernError") {
        let code = concern.get_i32("code").unwrap_or(0);
        return Err(Refusal::Unseen {
            at: operation_time(reply),
            code,
        });
    }
    let number = |name: &str| count(reply, name);
    let upserted = reply.get_array("upserted").map_or(0, |ids| ids.len());
    Ok(Counts {
        matched: number("n"),
        effective: if reply.contains_key("nModified") {
            number("nModified") + upserted
        } else {
            number("n")
        },
    })
}

fn count(reply: &Document, name: &str) -> usize {
    let value = reply.get(name);
    value
        .and_then(|n| n.as_i32().map(i64::from).or(n.as_i64()))
        .map_or(0, |n| n.max(0) as usize)
}

fn refusal_of(
    error: Option<&Document>,
    keys: &[DocumentKey],
    at: Option<Timestamp>,
    doing: &str,
) -> Refusal {
    let Some(error) = error else {
        return Refusal::Failed(Error::bug("a write error without a body"));
    };
    let index = error.get_i32("index").unwrap_or(0).max(0) as usize;
    let code = error.get_i32("code").unwrap_or(0);
    let key = keys.get(index).cloned();
    let write = WriteError {
        key: key.clone(),
        code,
        code_name: error
            .get_str("codeName")
            .unwrap_or(name_of(code))
            .to_owned(),
        index: error
            .get_str("errmsg")
            .ok()
            .and_then(index_in)
            .map(str::to_owned),
        key_value: error.get_document("keyValue").ok().cloned(),
        key_pattern: error.get_document("keyPattern").ok().cloned(),
        other_key: None,
    };
    match (code, key) {
        (COLLECTION_UUID_MISMATCH, _) => Refusal::Unseen { at, code },
        (IMMUTABLE_FIELD, Some(key)) => Refusal::IdentityNeeded(key),
        (DUPLICATE_KEY, _) => Refusal::Duplicate {
            at,
            error: Box::new(write),
        },
        _ if is_retryable(code) => Refusal::Unseen { at, code },
        // The whole cluster refuses, while a cutover blocks writes for example: it says nothing
        // about this document.
        _ if errors::class_of_code(code).is_some() => {
            Refusal::Failed(errors::reported(error, doing))
        }
        _ => Refusal::Impossible {
            at,
            error: Box::new(write),
        },
    }
}

/// What an error of a whole command means.
pub fn refusal(failure: Failure, doing: &str) -> Refusal {
    let at = failure.operation_time;
    match failure.code {
        Some(code) if code == COLLECTION_UUID_MISMATCH || is_retryable(code) => {
            Refusal::Unseen { at, code }
        }
        Some(code)
            if errors::class_of_code(code).is_none()
                && failure.has_label(errors::TRANSIENT_TRANSACTION_LABEL) =>
        {
            Refusal::Unseen { at, code }
        }
        Some(code) if errors::class_of_code(code).is_none() => Refusal::Impossible {
            at,
            error: Box::new(WriteError {
                key: None,
                code,
                code_name: name_of(code).to_owned(),
                index: None,
                key_value: None,
                key_pattern: None,
                other_key: None,
            }),
        },
        _ => Refusal::Failed(errors::classify(failure, doing)),
    }
}

/// Codes that a transaction meets in normal operation and that a later fence resolves.
fn is_retryable(code: i32) -> bool {
    const PASSING: [i32; 5] = [112, 24, 246, 239, NO_SUCH_TRANSACTION];
    PASSING.contains(&code)
}

fn name_of(code: i32) -> &'static str {
    match code {
        DUPLICATE_KEY => "DuplicateKey",
        _ => "Error",
    }
}

/// The index's name in `… index: NAME dup key: …`.
fn index_in(message: &str) -> Option<&str> {
    let rest = message.split_once(" index: ")?.1;
    rest.split_whitespace().next()
}

pub fn operation_time(reply: &Document) -> Option<Timestamp> {
    reply.get_timestamp("operationTime").ok()
}

/// A refusal as an error for the log.
impl std::fmt::Display for Refusal {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Unseen { code, .. } => write!(out, "unseen change ({code})"),
            Refusal::FullStateNeeded(_) => out.write_str("full state needed"),
            Refusal::IdentityNeeded(_) => out.write_str("equal but not identical key"),
            Refusal::Duplicate { .. } => out.write_str("duplicate key"),
            Refusal::Impossible { error, .. } => {
                write!(out, "{} ({})", error.code_name, error.code)
            }
            Refusal::TookTooLong => out.write_str("took too long"),
            Refusal::Fenced => out.write_str("fenced"),
            Refusal::Failed(error) => write!(out, "{error}"),
        }
    }
}

impl Refusal {
    /// Whether a server that is away or electing is behind it.
    pub fn is_outage(&self) -> bool {
        matches!(self, Refusal::Failed(error) if error.class == Class::Retry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Namespace;
    use bson::{doc, rawdoc};

    fn keys() -> Vec<DocumentKey> {
        let namespace = Namespace::new("shop", "orders");
        (0..2)
            .map(|id| DocumentKey::of(&namespace, &rawdoc! { "_id": id }).unwrap())
            .collect()
    }

    #[test]
    fn an_upsert_counts_as_effective() {
        let reply = doc! { "n": 3, "nModified": 1, "upserted": [{ "index": 0 }], "ok": 1.0 };
        let counts = counts(&reply, &keys(), "write to us").unwrap();
        assert_eq!((counts.matched, counts.effective), (3, 2));
    }

    #[test]
    fn an_error_inside_ok_is_found_with_its_document_and_index() {
        let reply = doc! { "ok": 1.0, "n": 0, "writeErrors": [{
            "index": 1, "code": 11000,
            "errmsg": "E11000 duplicate key error collection: shop.orders index: sku_1 dup key: { sku: 1 }",
            "keyPattern": { "sku": 1 }, "keyValue": { "sku": 1 },
        }] };
        let Err(Refusal::Duplicate { error, .. }) = counts(&reply, &keys(), "write to us") else {
            panic!("not a duplicate");
        };
        assert_eq!(error.index.as_deref(), Some("sku_1"));
        assert_eq!(error.key.as_ref(), Some(&keys()[1]));
    }

    #[test]
    fn a_write_concern_error_inside_ok_is_no_success() {
        let reply = doc! { "ok": 1.0, "n": 1, "writeConcernError": { "code": 64 } };
        assert!(counts(&reply, &keys(), "write to us").is_err());
    }

    #[test]
    fn a_cluster_that_refuses_all_writes_for_now_makes_no_dead_letter() {
        for code in [errors::WRITES_BLOCKED, 14031] {
            let reply = doc! { "ok": 1.0, "writeErrors": [{ "index": 0, "code": code }] };
            let refusal = counts(&reply, &keys(), "write to us").err().unwrap();
            assert!(refusal.is_outage(), "{refusal}");
        }
    }

    #[test]
    fn a_privilege_that_is_missing_makes_no_dead_letter_and_ends_the_link() {
        let reply = doc! { "ok": 1.0, "writeErrors": [{ "index": 0, "code": 13 }] };
        let Err(Refusal::Failed(error)) = counts(&reply, &keys(), "write to us") else {
            panic!("taken for a fault of the document");
        };
        assert_eq!(error.class, Class::Operator);
        assert!(
            error.to_string().starts_with("cannot write to us"),
            "{error}"
        );
    }

    #[test]
    fn another_collection_under_the_name_is_waited_for() {
        let reply = doc! { "ok": 1.0, "writeErrors": [{ "index": 0, "code": 361 }] };
        assert!(matches!(
            counts(&reply, &keys(), "write to us"),
            Err(Refusal::Unseen { code: 361, .. })
        ));
    }
}
