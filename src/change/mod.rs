//! The nouns: what a change is, where it stands in a cluster's history, and what it is compared by.

mod ahead;
mod canonical;
mod chunks;
mod event;
mod held;
#[cfg(test)]
pub(crate) mod hostile;
mod key;
mod namespace;
mod pattern;
mod policy;
mod position;
mod raw;
mod raw_event;
mod raw_writer;
mod record;
mod redact;
mod renames;
mod selection;
mod version;
mod wall_time;

pub use ahead::{Ahead, KeyPlace, Within, by_place};
pub use chunks::{LEVELS_MAX, SplitRecord, chunk_ids, joined_record, split_record};
pub use event::{ChangeEvent, Operation, SharedEvent};
pub use held::{HeldDocument, Whole};
pub use key::{DocumentKey, KeyMap, KeySet};
pub use namespace::{NAMESPACE_BYTES_MAX, Namespace, NamespaceFilter};
pub use pattern::{
    Pattern, expression_of, fixed_database, pattern_covers, pattern_matches, patterns_may_overlap,
    wildcard_matches,
};
pub use policy::{Mode, Policy};
pub use position::{AppliedThrough, ObservedThrough, Position};
pub use raw::{
    DEPTH_MAX, LIST_ELEMENT_BYTES_MAX, RawElement, document_of, each_element, elements,
    is_deeper_than, renamed, with_list, with_room,
};
pub use raw_event::RawEvent;
pub use raw_writer::RawWriter;
pub use record::{
    ConflictKind, ConflictRecord, LASTING_NAMESPACE, Losing, Reason, RecordStatus, Winning,
    lasting_key, record_id,
};
pub use redact::{MARKER, Redaction, redacted_of_loser};
pub use renames::{Rename, Renames};
pub use selection::{Deletes, Filter, Filters, Selection, pattern_of};
pub use version::{Rank, Version};
pub use wall_time::{parse_rfc3339, rfc3339};

use serde::{Deserialize, Serialize};

/// One of the two clusters of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    A,
    B,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::A, Side::B];

    pub fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }

    pub fn index(self) -> usize {
        self as usize
    }
}

/// One direction of a link, named by its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PipelineId {
    AToB,
    BToA,
}

impl PipelineId {
    pub const BOTH: [PipelineId; 2] = [PipelineId::AToB, PipelineId::BToA];

    pub fn from_source(source: Side) -> PipelineId {
        match source {
            Side::A => PipelineId::AToB,
            Side::B => PipelineId::BToA,
        }
    }

    pub fn parse(name: &str) -> Option<PipelineId> {
        Self::BOTH.into_iter().find(|id| id.as_str() == name)
    }

    pub fn source(self) -> Side {
        match self {
            PipelineId::AToB => Side::A,
            PipelineId::BToA => Side::B,
        }
    }

    pub fn target(self) -> Side {
        self.source().other()
    }

    pub fn as_str(self) -> &'static str {
        match self {
            PipelineId::AToB => "a-to-b",
            PipelineId::BToA => "b-to-a",
        }
    }
}

/// One value for each cluster of a link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair<T> {
    pub a: T,
    pub b: T,
}

impl<T> Pair<T> {
    pub fn new(a: T, b: T) -> Self {
        Self { a, b }
    }

    pub fn map<U>(self, mut with: impl FnMut(T) -> U) -> Pair<U> {
        Pair {
            a: with(self.a),
            b: with(self.b),
        }
    }

    pub fn as_ref(&self) -> Pair<&T> {
        Pair {
            a: &self.a,
            b: &self.b,
        }
    }
}

impl<T> std::ops::Index<Side> for Pair<T> {
    type Output = T;

    fn index(&self, side: Side) -> &T {
        match side {
            Side::A => &self.a,
            Side::B => &self.b,
        }
    }
}

impl<T> std::ops::IndexMut<Side> for Pair<T> {
    fn index_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }
}
