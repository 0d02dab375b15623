//! A collection in pieces: ranges of `_id` in the order of its index, each read exactly once.

mod range;
mod read;
mod split;

use bson::{Document, Uuid};

use crate::change::{Namespace, Selection};

pub use range::Range;
pub use read::{RangeReader, ReadAt, documents, read};
pub use split::{RANGE_BYTES_TARGET, Size, split, split_of_size};

/// How the documents of a collection are walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Along the index of `_id`, or along the documents of a clustered collection.
    ById,
    /// As they were inserted: a capped collection is one range, and has no snapshots.
    Natural,
}

impl Order {
    /// What the options of `listCollections` ask for.
    pub fn of(options: &Document) -> Order {
        match options.get_bool("capped") {
            Ok(true) => Order::Natural,
            Ok(false) | Err(_) => Order::ById,
        }
    }
}

/// The collection that is read. Where another one has taken its name, every read is refused with
/// code 361 (`CollectionUUIDMismatch`).
#[derive(Debug, Clone, PartialEq)]
pub struct Scanned {
    pub namespace: Namespace,
    pub uuid: Uuid,
    pub order: Order,
    pub selection: Selection,
}
