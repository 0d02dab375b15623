//! From decisions to grouped statements: per collection deletes, then inserts, then updates.
//!
//! Inside a transaction the order between different documents is free as long as no unique index
//! is involved; the events of one document come to one net write and the deltas after it.

use std::collections::HashMap;

use bson::{RawDocument, RawDocumentBuf, Uuid};
use smallvec::SmallVec;

use super::delta::update_statements;
use super::statements::{Statement, delete, replace, survives_insert, survives_replacement};
use crate::change::{ChangeEvent, DocumentKey, Namespace, Operation, SharedEvent};

/// What must be known of a collection of the target to write into it.
#[derive(Debug, Clone)]
pub struct CollectionInfo {
    /// What it is called there.
    pub name: Namespace,
    pub uuid: Uuid,
    /// First fields of its unique secondary indexes.
    pub unique_fields: Vec<String>,
    /// Its default collation is not the simple one: keys of other bytes may be the same.
    pub collated: bool,
}

/// Statements of one command, and the document each of them is about.
#[derive(Debug, Default)]
pub struct Group {
    pub statements: Vec<Statement>,
    pub keys: Vec<DocumentKey>,
}

impl Group {
    fn push(&mut self, key: &DocumentKey, statement: impl Into<Statement>) {
        self.statements.push(statement.into());
        self.keys.push(key.clone());
    }
}

/// The writes into one collection.
#[derive(Debug)]
pub struct CollectionWrites {
    pub namespace: Namespace,
    pub deletes: Group,
    pub inserts: Group,
    pub updates: Group,
}

impl CollectionWrites {
    /// The document becomes `document`, whatever was there.
    fn put(&mut self, key: &DocumentKey, document: &RawDocument) {
        match survives_replacement(document) {
            true => self.updates.push(key, replace(key, document)),
            false => self.put_anew(key, document),
        }
    }

    /// The same, where nothing may be left of what was there.
    fn put_anew(&mut self, key: &DocumentKey, document: &RawDocument) {
        self.deletes.push(key, delete(key));
        if survives_insert(document) {
            self.inserts.push(key, document.to_owned());
        } else {
            self.updates.push(key, replace(key, document));
        }
    }
}

/// All data writes of a transaction. A collection may have its turn several times.
#[derive(Debug, Default)]
pub struct WriteSet {
    pub collections: Vec<CollectionWrites>,
    /// Keys whose deltas could not be put into operators.
    pub full_state_needed: Vec<DocumentKey>,
    /// Keys written by deltas, which need their document to be there, and without the fields that
    /// they add at its end.
    pub needs_document: Vec<DocumentKey>,
    by_name: HashMap<Namespace, usize>,
    /// The one that was written to last.
    last: Option<usize>,
    /// Of events that were added in order.
    last_turn: HashMap<Namespace, Turn>,
}

/// The groups of a collection's writes, in the order in which they are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Delete,
    Insert,
    Update,
}

impl Turn {
    /// The first and the last one that an event has a part in.
    fn of(event: &ChangeEvent, met: Met) -> (Self, Self) {
        let one = |turn| (turn, turn);
        match (event.operation, event.full_document()) {
            (Operation::Delete, _) => one(Turn::Delete),
            (Operation::Insert, Some(document)) if inserts(document, met) => one(Turn::Insert),
            (Operation::Insert | Operation::Replace, Some(document))
                if !survives_replacement(document) =>
            {
                (Turn::Delete, Turn::Update)
            }
            (Operation::Insert | Operation::Update | Operation::Replace, _) => one(Turn::Update),
        }
    }
}

/// Whether the insert of a document stays one.
fn inserts(document: &RawDocument, met: Met) -> bool {
    met == Met::Nothing && survives_insert(document)
}

impl WriteSet {
    /// The net write of one document's events.
    pub fn add_deltas(&mut self, key: &DocumentKey, events: &[SharedEvent], met: Met) {
        let base = events
            .iter()
            .rposition(|event| event.operation != Operation::Update);
        let is_whole = base.is_none_or(|at| has_its_content(&events[at]));
        let Some(deltas) = self.deltas_after(base, events).filter(|_| is_whole) else {
            self.full_state_needed.push(key.clone());
            return;
        };
        let writes = self.collection(key.namespace());
        if let Some(at) = base {
            let met = match at {
                0 => met,
                _ => Met::Anything,
            };
            add_base(writes, key, &events[at], met);
        }
        let may_miss = !deltas.is_empty();
        for statement in deltas {
            writes.updates.push(key, statement);
        }
        if may_miss {
            self.needs_document.push(key.clone());
        }
    }

    fn deltas_after(
        &self,
        base: Option<usize>,
        events: &[SharedEvent],
    ) -> Option<SmallVec<[RawDocumentBuf; 1]>> {
        let first = base.map_or(0, |at| at + 1);
        let mut statements = SmallVec::new();
        for event in &events[first..] {
            statements.extend(update_statements(event)?);
        }
        Some(statements)
    }

    /// One event, behind everything that was added before in its collection, of whatever document.
    pub fn add_in_order(&mut self, event: &SharedEvent, met: Met) {
        let (first, last) = Turn::of(event, met);
        let before = self.last_turn.insert(event.key.namespace().clone(), last);
        if before.is_some_and(|before| before > first) {
            self.by_name.remove(event.key.namespace());
            self.last = None;
        }
        self.add_deltas(&event.key, std::slice::from_ref(event), met);
    }

    /// The whole document, or its absence.
    pub fn add_full_state(&mut self, key: &DocumentKey, document: Option<&RawDocument>) {
        let writes = self.collection(key.namespace());
        match document {
            Some(document) => writes.put(key, document),
            None => writes.deletes.push(key, delete(key)),
        }
    }

    /// The whole document, where there should be none.
    pub fn add_copy(&mut self, key: &DocumentKey, document: impl Into<Statement>) {
        let document = document.into();
        if survives_insert(&document) {
            self.collection(key.namespace()).inserts.push(key, document);
        } else {
            self.add_full_state(key, Some(&document));
        }
    }

    /// The whole document under an `_id` that is equal to the old one but of another type.
    pub fn add_with_new_identity(&mut self, key: &DocumentKey, document: &RawDocument) {
        self.collection(key.namespace()).put_anew(key, document);
    }

    fn collection(&mut self, namespace: &Namespace) -> &mut CollectionWrites {
        let is_it = |at: &usize| self.collections[*at].namespace == *namespace;
        if let Some(at) = self.last.filter(is_it) {
            return &mut self.collections[at];
        }
        let at = *self.by_name.entry(namespace.clone()).or_insert_with(|| {
            self.collections.push(CollectionWrites {
                namespace: namespace.clone(),
                deletes: Group::default(),
                inserts: Group::default(),
                updates: Group::default(),
            });
            self.collections.len() - 1
        });
        self.last = Some(at);
        &mut self.collections[at]
    }

    pub fn is_empty(&self) -> bool {
        self.collections.is_empty()
    }
}

/// What an insert finds on the target under its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Met {
    /// Nothing, as on the source.
    Nothing,
    /// Whatever came before on the source may still be there.
    Anything,
}

fn has_its_content(event: &ChangeEvent) -> bool {
    event.operation == Operation::Delete || event.full_document().is_some()
}

fn add_base(writes: &mut CollectionWrites, key: &DocumentKey, base: &SharedEvent, met: Met) {
    match (base.operation, base.full_document()) {
        (Operation::Delete, _) | (_, None) => writes.deletes.push(key, delete(key)),
        (Operation::Insert, Some(document)) if inserts(document, met) => {
            writes.inserts.push(key, Statement::Brought(base.clone()));
        }
        (_, Some(document)) => writes.put(key, document),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Position, Rank, RawEvent, Version};
    use bson::{Timestamp, rawdoc};
    use std::sync::Arc;

    fn event(operation: Operation, body: RawDocumentBuf) -> SharedEvent {
        let namespace = Namespace::new("shop", "orders");
        Arc::new(ChangeEvent {
            position: Position::of_event(
                Timestamp {
                    time: 1,
                    increment: 1,
                },
                "82",
            ),
            key: DocumentKey::of(&namespace, &rawdoc! { "_id": 1 }).unwrap(),
            operation,
            version: Version {
                wall_time_ms: 1,
                rank: Rank::Wins,
            },
            wall_time_ms: 1,
            raw: RawEvent::of(body, operation),
        })
    }

    fn insert(value: i32) -> SharedEvent {
        let document = rawdoc! { "_id": 1, "v": value };
        event(Operation::Insert, rawdoc! { "fullDocument": document })
    }

    fn set(value: i32) -> SharedEvent {
        let diff = rawdoc! { "u": { "v": value } };
        event(
            Operation::Update,
            rawdoc! { "rawUpdateDescription": { "diff": diff } },
        )
    }

    fn delete_event() -> SharedEvent {
        event(Operation::Delete, RawDocumentBuf::new())
    }

    fn sizes(events: &[SharedEvent]) -> (usize, usize, usize) {
        let mut set = WriteSet::default();
        set.add_deltas(&events[0].key, events, Met::Nothing);
        let writes = &set.collections[0];
        (
            writes.deletes.keys.len(),
            writes.inserts.keys.len(),
            writes.updates.keys.len(),
        )
    }

    #[test]
    fn an_insert_and_its_updates_stay_an_insert_and_updates() {
        assert_eq!(sizes(&[insert(1), set(2), set(3)]), (0, 1, 2));
    }

    #[test]
    fn what_came_before_a_delete_does_not_matter() {
        assert_eq!(sizes(&[insert(1), set(2), delete_event()]), (1, 0, 0));
    }

    #[test]
    fn a_delete_and_an_insert_are_one_replacement() {
        assert_eq!(sizes(&[delete_event(), insert(2), set(3)]), (0, 0, 2));
    }

    #[test]
    fn what_a_plain_replacement_does_not_store_is_deleted_and_written_anew() {
        let empty = Timestamp {
            time: 0,
            increment: 0,
        };
        let dollar = rawdoc! { "_id": 1, "$v": 1 };
        let timed = rawdoc! { "_id": 1, "at": empty };
        for (document, expected) in [(dollar, (1, 1, 1)), (timed, (1, 0, 2))] {
            let replacement = event(
                Operation::Replace,
                rawdoc! { "fullDocument": document.clone() },
            );
            assert_eq!(sizes(&[replacement.clone(), set(3)]), expected);
            let mut in_order = WriteSet::default();
            for event in [set(1), replacement, delete_event()] {
                in_order.add_in_order(&event, Met::Anything);
            }
            assert_eq!(in_order.collections.len(), 3, "{document:?}");
        }
    }

    #[test]
    fn deltas_need_their_document_as_it_was_whatever_came_before_them() {
        let needs = |events: &[SharedEvent]| {
            let mut set = WriteSet::default();
            set.add_deltas(&events[0].key, events, Met::Nothing);
            set.needs_document.contains(&events[0].key)
        };
        assert!(needs(&[set(1)]));
        assert!(needs(&[insert(1), set(2)]));
        assert!(!needs(&[insert(1)]));
        assert!(!needs(&[set(1), delete_event()]));
    }

    #[test]
    fn events_in_order_begin_a_new_turn_only_where_their_group_has_been_sent() {
        let mut writes = WriteSet::default();
        let steps = [delete_event(), insert(1), set(2), insert(3), delete_event()];
        for event in &steps {
            writes.add_in_order(event, Met::Nothing);
        }
        let sizes = writes.collections.iter().map(|turn| {
            let of = |group: &Group| group.keys.len();
            (of(&turn.deletes), of(&turn.inserts), of(&turn.updates))
        });
        let sizes: Vec<_> = sizes.collect();
        assert_eq!(sizes, [(1, 1, 1), (0, 1, 0), (1, 0, 0)]);
    }
}
