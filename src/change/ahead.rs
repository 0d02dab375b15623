//! What a lane has applied beyond the position of its checkpoint, where it goes by keys.

use std::cmp::Ordering;

use bson::spec::BinarySubtype;
use bson::{Binary, Document, RawDocumentBuf, rawdoc};

use super::{ChangeEvent, Namespace, Position};

/// So much of a key tells where it stands; the rest of it hardly matters for that.
const KEY_BYTES_MAX: usize = 32;

/// How the events of a namespace stand among each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Within {
    /// Those of one document in the order of its history, and documents by their keys.
    Keys,
    /// All of them in the order of their history.
    History,
}

/// Where an event stands in a stretch: by its namespace, its key and its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlace {
    namespace: Namespace,
    /// The first bytes of the canonical key; none where keys do not count.
    key: Vec<u8>,
    /// The key's own hash, for keys that begin alike.
    hash: u64,
    position: Position,
}

/// Of the events up to `end`, those whose place is not behind `last` are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// The end of the stretch in the history.
    pub end: Position,
    pub last: KeyPlace,
}

/// Which of two events of a lane comes first in a stretch.
pub fn by_place(one: &ChangeEvent, other: &ChangeEvent, within: Within) -> Ordering {
    parts(one, within).cmp(&parts(other, within))
}

type Parts<'a> = (&'a Namespace, &'a [u8], u64, &'a Position);

fn parts(event: &ChangeEvent, within: Within) -> Parts<'_> {
    let namespace = event.key.namespace();
    let (key, hash) = match within {
        Within::Keys => (beginning(event.key.canonical()), event.key.stable_hash()),
        Within::History => (&[][..], 0),
    };
    (namespace, key, hash, &event.position)
}

fn beginning(key: &[u8]) -> &[u8] {
    &key[..key.len().min(KEY_BYTES_MAX)]
}

impl KeyPlace {
    pub fn of(event: &ChangeEvent, within: Within) -> Self {
        let (namespace, key, hash, position) = parts(event, within);
        Self {
            namespace: namespace.clone(),
            key: key.to_vec(),
            hash,
            position: position.clone(),
        }
    }

    fn parts(&self) -> Parts<'_> {
        (&self.namespace, &self.key, self.hash, &self.position)
    }
}

impl Ahead {
    /// Whether an event is among those that are applied already.
    pub fn holds(&self, event: &ChangeEvent, within: Within) -> bool {
        event.position <= self.end && parts(event, within) <= self.last.parts()
    }

    /// As a checkpoint has it.
    pub fn to_raw(&self) -> RawDocumentBuf {
        let KeyPlace {
            namespace,
            key,
            hash,
            position,
        } = &self.last;
        rawdoc! {
            "end": position_to_raw(&self.end),
            "last": position_to_raw(position),
            "namespace": namespace.as_str(),
            "key": Binary { subtype: BinarySubtype::Generic, bytes: key.clone() },
            "hash": *hash as i64,
        }
    }

    /// None where it is not whole.
    pub fn of_document(found: &Document) -> Option<Self> {
        Some(Self {
            end: Position::of_document(found.get_document("end").ok()?)?,
            last: KeyPlace {
                namespace: Namespace::parse(found.get_str("namespace").ok()?)?,
                key: found.get_binary_generic("key").ok()?.clone(),
                hash: found.get_i64("hash").ok()? as u64,
                position: Position::of_document(found.get_document("last").ok()?)?,
            },
        })
    }
}

fn position_to_raw(position: &Position) -> RawDocumentBuf {
    rawdoc! { "time": position.time, "token": position.token.as_ref(), "whole": position.whole }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{DocumentKey, Operation, Rank, RawEvent, Version};
    use bson::{RawDocument, Timestamp};

    fn event(id: &RawDocument, time: u32) -> ChangeEvent {
        let at = Timestamp { time, increment: 1 };
        ChangeEvent {
            position: Position::of_event(at, format!("82{time:08}")),
            key: DocumentKey::of(&Namespace::new("shop", "orders"), id).unwrap(),
            operation: Operation::Update,
            version: Version {
                wall_time_ms: 0,
                rank: Rank::Wins,
            },
            wall_time_ms: 0,
            raw: RawEvent::of(rawdoc! {}, Operation::Update),
        }
    }

    fn is_before(one: &ChangeEvent, other: &ChangeEvent) -> bool {
        by_place(one, other, Within::Keys) == Ordering::Less
    }

    #[test]
    fn documents_go_by_their_keys_and_the_events_of_one_by_their_time() {
        let of = |id: i64, time| event(&rawdoc! { "_id": id }, time);
        assert!(is_before(&of(1, 9), &of(2, 5)));
        assert!(is_before(&of(9, 9), &of(10, 5)));
        assert!(is_before(&of(2, 5), &of(2, 6)));
        let same = by_place(&of(1, 9), &of(2, 5), Within::History);
        assert_eq!(same, Ordering::Greater);
    }

    #[test]
    fn long_keys_that_begin_alike_are_told_apart() {
        let long = |end: &str| format!("{}{end}", "x".repeat(KEY_BYTES_MAX));
        let of = |end: &str, time| event(&rawdoc! { "_id": long(end) }, time);
        let (one, other) = (of("a", 5), of("b", 6));
        let forth = is_before(&one, &other);
        assert_ne!(forth, is_before(&other, &one));
        // Whatever their times: no event of one document comes between those of another.
        assert_eq!(forth, is_before(&of("a", 8), &of("b", 6)));
    }

    #[test]
    fn what_is_ahead_is_what_was_taken_of_the_stretch_and_nothing_behind_its_end() {
        let of = |id: i64, time| event(&rawdoc! { "_id": id }, time);
        let ahead = Ahead {
            end: of(0, 7).position,
            last: KeyPlace::of(&of(3, 5), Within::Keys),
        };
        let holds = |id, time| ahead.holds(&of(id, time), Within::Keys);
        assert!(holds(2, 7) && holds(3, 4) && holds(3, 5));
        assert!(!holds(3, 6) && !holds(4, 3) && !holds(2, 8));
    }

    #[test]
    fn a_checkpoint_gives_back_what_was_put_in() {
        let id = rawdoc! { "_id": "text" };
        let ahead = Ahead {
            end: event(&id, 7).position,
            last: KeyPlace::of(&event(&id, 5), Within::Keys),
        };
        let stored = Document::try_from(ahead.to_raw()).unwrap();
        assert_eq!(Ahead::of_document(&stored), Some(ahead));
        assert_eq!(Ahead::of_document(&Document::new()), None);
    }
}
