//! The conflict record: one losing write with its whole content, and who won over it.

use bson::{DateTime, RawDocument, RawDocumentBuf, Timestamp, rawdoc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DocumentKey, Namespace, Operation, PipelineId, Side};

/// What kind of race it was, by the net operation of each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    InsertExists,
    UpdateOriginDiffers,
    UpdateDeleted,
    DeleteOriginDiffers,
    Ddl,
    DeadLetter,
}

impl ConflictKind {
    pub const ALL: [ConflictKind; 6] = [
        ConflictKind::InsertExists,
        ConflictKind::UpdateOriginDiffers,
        ConflictKind::UpdateDeleted,
        ConflictKind::DeleteOriginDiffers,
        ConflictKind::Ddl,
        ConflictKind::DeadLetter,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            ConflictKind::InsertExists => "insert_exists",
            ConflictKind::UpdateOriginDiffers => "update_origin_differs",
            ConflictKind::UpdateDeleted => "update_deleted",
            ConflictKind::DeleteOriginDiffers => "delete_origin_differs",
            ConflictKind::Ddl => "ddl",
            ConflictKind::DeadLetter => "dead_letter",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Which rule decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Later,
    Tie,
    Preferred,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Later => "later",
            Reason::Tie => "tie",
            Reason::Preferred => "preferred",
        }
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordStatus {
    Logged,
    /// A later write on the losing side brought it back.
    Overturned,
    Restored,
    /// A dead letter whose document was applied after all.
    Resolved,
    /// A dead letter that somebody threw away.
    Discarded,
}

impl RecordStatus {
    pub const ALL: [RecordStatus; 5] = [
        RecordStatus::Logged,
        RecordStatus::Overturned,
        RecordStatus::Restored,
        RecordStatus::Resolved,
        RecordStatus::Discarded,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RecordStatus::Logged => "logged",
            RecordStatus::Overturned => "overturned",
            RecordStatus::Restored => "restored",
            RecordStatus::Resolved => "resolved",
            RecordStatus::Discarded => "discarded",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

/// The winning side of a conflict.
#[derive(Debug, Clone)]
pub struct Winning {
    pub operation: Operation,
    pub cluster_time: Timestamp,
    pub wall_time: DateTime,
    pub version_ms: i64,
    /// The whole document at the decision; absent where it was deleted.
    pub document: Option<RawDocumentBuf>,
}

/// One losing event.
#[derive(Debug, Clone)]
pub struct Losing {
    pub operation: Operation,
    pub cluster_time: Timestamp,
    pub wall_time: DateTime,
    pub version_ms: i64,
    /// The raw change event.
    pub change: Option<RawDocumentBuf>,
    /// The losing side's whole document at the decision; absent where there was none.
    pub document: Option<RawDocumentBuf>,
}

/// What goes to `__tandem.conflicts` and to the local conflict log.
#[derive(Debug, Clone)]
pub struct ConflictRecord {
    /// 24 hex digits, see [`record_id`].
    pub id: String,
    pub logged_at: DateTime,
    /// The pipeline of the losing write's cluster.
    pub pipeline: PipelineId,
    pub key: DocumentKey,
    pub kind: ConflictKind,
    /// `last-write-wins`, `prefer-a`, `prefer-b` or `one-way`.
    pub policy: &'static str,
    /// The winner's name and side; none for a dead letter.
    pub winner: Option<(String, Side)>,
    pub reason: String,
    pub winning: Option<Winning>,
    pub losing: Losing,
    pub clock_skew_ms: Option<i64>,
    /// Further fields: `settled_by` of a conflict; `index`, `other_key`, `attempts` and
    /// [`LASTING_NAMESPACE`] of a dead letter.
    pub extra: RawDocumentBuf,
    pub status: RecordStatus,
}

/// What a dead letter's document is marked by: the lasting name of its collection, whatever it is
/// called by now.
pub const LASTING_NAMESPACE: &bson::raw::CStr = bson::cstr!("lasting_namespace");

/// The document of a dead letter under the lasting name of its collection.
pub fn lasting_key(record: &RawDocument) -> Option<DocumentKey> {
    let lasting = record.get_str(LASTING_NAMESPACE);
    let namespace = Namespace::parse(lasting.or_else(|_| record.get_str("namespace")).ok()?)?;
    DocumentKey::of(&namespace, record.get_document("document_key").ok()?)
}

/// The id of a record: the same for the same losing event, whoever logs it.
///
/// 24 hex digits of SHA-256 over the link, the losing cluster's replica-set id and the losing
/// event's resume token.
pub fn record_id(link: &str, replica_set_id: &str, token: &str) -> String {
    const ID_BYTES: usize = 12;
    let mut hash = Sha256::new();
    for part in [link, replica_set_id, token] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize()[..ID_BYTES]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl ConflictRecord {
    /// The whole record with `_id` first. It may be larger than a server stores; see
    /// [`split_record`](super::split_record).
    pub fn to_raw(&self) -> RawDocumentBuf {
        let mut raw = rawdoc! {
            "_id": self.id.as_str(),
            "logged_at": self.logged_at,
            "pipeline": self.pipeline.as_str(),
            "namespace": self.key.namespace().as_str(),
            "document_key": self.key.raw().to_owned(),
            "kind": self.kind.as_str(),
            "policy": self.policy,
        };
        match &self.winner {
            Some((name, side)) => {
                raw.append(bson::cstr!("winner"), name.as_str());
                raw.append(bson::cstr!("winner_cluster"), side.as_str());
            }
            None => {
                raw.append(bson::cstr!("winner"), bson::RawBson::Null);
                raw.append(bson::cstr!("winner_cluster"), bson::RawBson::Null);
            }
        }
        raw.append(bson::cstr!("reason"), self.reason.as_str());
        raw.append(bson::cstr!("winning"), self.winning_raw());
        raw.append(bson::cstr!("losing"), self.losing_raw());
        raw.append(bson::cstr!("clock_skew_ms"), optional(self.clock_skew_ms));
        for (name, value) in self.extra.iter().flatten() {
            raw.append(name, value);
        }
        raw.append(bson::cstr!("status"), self.status.as_str());
        raw
    }

    fn winning_raw(&self) -> bson::RawBson {
        let Some(winning) = &self.winning else {
            return bson::RawBson::Null;
        };
        let mut raw = rawdoc! {
            "operation": winning.operation.as_str(),
            "cluster_time": winning.cluster_time,
            "wall_time": winning.wall_time,
            "version": winning.version_ms,
        };
        raw.append(
            bson::cstr!("document"),
            document(winning.document.as_deref()),
        );
        raw.into()
    }

    fn losing_raw(&self) -> RawDocumentBuf {
        let losing = &self.losing;
        let mut raw = rawdoc! {
            "operation": losing.operation.as_str(),
            "cluster_time": losing.cluster_time,
            "wall_time": losing.wall_time,
            "version": losing.version_ms,
        };
        raw.append(bson::cstr!("change"), document(losing.change.as_deref()));
        raw.append(
            bson::cstr!("document"),
            document(losing.document.as_deref()),
        );
        raw
    }
}

fn document(document: Option<&RawDocument>) -> bson::RawBson {
    match document {
        Some(document) => bson::RawBson::Document(document.to_owned()),
        None => bson::RawBson::Null,
    }
}

fn optional(number: Option<i64>) -> bson::RawBson {
    number.map_or(bson::RawBson::Null, bson::RawBson::Int64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_id_depends_on_link_cluster_and_token() {
        let id = record_id("eu-us", "set", "82a");
        assert_eq!(id.len(), 24);
        assert_eq!(id, record_id("eu-us", "set", "82a"));
        assert_ne!(id, record_id("eu-u", "sset", "82a"));
        assert_ne!(id, record_id("eu-us", "set", "82b"));
    }

    #[test]
    fn every_name_reads_back() {
        for kind in ConflictKind::ALL {
            assert_eq!(ConflictKind::parse(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
        for status in RecordStatus::ALL {
            assert_eq!(RecordStatus::parse(status.as_str()), Some(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }
}
