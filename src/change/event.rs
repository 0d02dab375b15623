//! One document event of a change stream, kept raw.

use std::sync::Arc;

use bson::{RawDocument, RawDocumentBuf};

use super::{DocumentKey, Position, Version};

/// What a change event did to its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Insert,
    Update,
    Replace,
    Delete,
}

impl Operation {
    pub const ALL: [Operation; 4] = [
        Operation::Insert,
        Operation::Update,
        Operation::Replace,
        Operation::Delete,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Insert => "insert",
            Operation::Update => "update",
            Operation::Replace => "replace",
            Operation::Delete => "delete",
        }
    }

    pub fn parse(name: &str) -> Option<Operation> {
        Self::ALL.into_iter().find(|op| op.as_str() == name)
    }
}

/// A local write on a cluster, as its change stream told it.
#[derive(Debug, Clone)]
pub struct ChangeEvent {
    pub position: Position,
    pub key: DocumentKey,
    pub operation: Operation,
    pub version: Version,
    /// The server's wall time of the write, ms since 1970.
    pub wall_time_ms: i64,
    /// The whole event as the server sent it.
    pub raw: RawDocumentBuf,
}

/// Events are shared between a lane's queue and the ledger.
pub type SharedEvent = Arc<ChangeEvent>;

impl ChangeEvent {
    /// The document after an insert or a replacement.
    pub fn full_document(&self) -> Option<&RawDocument> {
        self.raw.get_document("fullDocument").ok()
    }

    /// The oplog's own difference of an update (`showRawUpdateDescription`).
    pub fn difference(&self) -> Option<&RawDocument> {
        let description = self.raw.get_document("rawUpdateDescription").ok()?;
        description.get_document("diff").ok()
    }

    pub fn bytes(&self) -> usize {
        self.raw.as_bytes().len()
    }
}
