//! One document event of a change stream, kept raw.

use std::sync::Arc;

use bson::RawDocument;

use super::{DocumentKey, Position, RawEvent, Version};

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
    pub raw: RawEvent,
}

/// What an allocation costs beside its bytes: counts of references, the allocator's header, and what
/// is rounded up.
pub(super) const ALLOCATION_BYTES: usize = 32;

/// A document's entry in the ledger, its list of pending writes, and what a hash table keeps free.
const LEDGER_ENTRY_BYTES: usize = 400;

/// Events are shared between a lane's queue and the ledger.
pub type SharedEvent = Arc<ChangeEvent>;

impl ChangeEvent {
    /// The document after an insert or a replacement.
    pub fn full_document(&self) -> Option<&RawDocument> {
        self.raw
            .content()
            .filter(|_| self.operation != Operation::Update)
    }

    /// The oplog's own difference of an update (`showRawUpdateDescription`).
    pub fn difference(&self) -> Option<&RawDocument> {
        self.raw
            .content()
            .filter(|_| self.operation == Operation::Update)
    }

    /// Bytes of the event as the server sent it.
    pub fn bytes(&self) -> usize {
        self.raw.as_bytes().len()
    }

    /// Bytes of memory that an event takes while it waits: itself, its key, its place in a queue,
    /// and the ledger's entry for its document.
    pub fn memory_bytes(&self) -> usize {
        const ALLOCATIONS: usize = 3;
        size_of::<Self>()
            + self.bytes()
            + self.position.token.len()
            + self.key.memory_bytes()
            + ALLOCATIONS * ALLOCATION_BYTES
            + LEDGER_ENTRY_BYTES
    }
}
