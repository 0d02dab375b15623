//! What is on record as lost.

use std::collections::{HashMap, HashSet};

use bson::{Document, RawDocumentBuf};
use tandem::change::Side;

use crate::applications::{NAMESPACE, place_of};
use crate::checks::OWN;
use crate::collections::is_told_of;
use crate::schedule::KEPT_KEYS;
use crate::stream::token;
use crate::world::World;

/// A conflict record as far as the account needs it.
#[derive(Debug)]
pub struct Lost {
    pub key: i32,
    pub side: Side,
    /// None where no event has told of the document that lost.
    write: Option<u32>,
    /// The losing side's whole document.
    pub document: Option<Document>,
    pub overturned: bool,
}

impl Lost {
    pub fn is_unread(&self) -> bool {
        self.write.is_none()
    }

    pub fn holds(&self, field: &str) -> bool {
        let document = self.document.as_ref();
        document.is_some_and(|document| document.contains_key(field))
    }

    /// Whether a write has lost, which has set a field of its own.
    pub fn is_about(&self, write: u32, field: &str) -> bool {
        self.write == Some(write) || (self.is_unread() && self.holds(field))
    }
}

/// Which application's write each record is about, or which document from before; none may have two.
pub fn losers(world: &World, records: &[RawDocumentBuf], problems: &mut Vec<String>) -> Vec<Lost> {
    let events = events(world);
    let mut seen = HashSet::new();
    let mut lost = Vec::new();
    for record in records {
        let record = Document::try_from(record).expect("a record");
        let text = |name: &str| record.get_str(name).unwrap_or_default().to_owned();
        match text("kind").as_str() {
            "ddl" => continue,
            "dead_letter" => problems.push(format!("a write cannot be applied: {record}")),
            _ => {}
        }
        let side = match text("pipeline").as_str() {
            "a-to-b" => Side::A,
            _ => Side::B,
        };
        let losing = record.get_document("losing").expect("what has lost");
        let document = losing.get_document("document").ok().cloned();
        let change = losing.get_document("change").ok();
        let told = change.and_then(|change| change.get_document("_id").ok()?.get_str("_data").ok());
        let told = told.map(|told| (side, told.to_owned()));
        let known = match &told {
            Some(told) => events.get(told).map(|(write, key)| (Some(*write), *key)),
            None => held_once(world, side, document.as_ref()).map(|key| (None, key)),
        };
        let Some((write, key)) = known else {
            problems.push(format!("a record is about nobody's write: {record}"));
            continue;
        };
        if write.is_some() && key < KEPT_KEYS && has_seen_its_winner(&record) {
            problems.push(format!("a write lost to one that it had seen: {record}"));
        }
        let what = told.map_or_else(
            || format!("{side:?} {document:?}"),
            |told| format!("{told:?}"),
        );
        if !seen.insert(what) {
            problems.push(format!("what has lost is on record twice: {record}"));
        }
        lost.push(Lost {
            key,
            side,
            write,
            document,
            overturned: text("status") == "overturned",
        });
    }
    lost
}

/// Whether the losing document, which fields are only added to, holds all that the winner has.
fn has_seen_its_winner(record: &Document) -> bool {
    let of = |which: &str| {
        record
            .get_document(which)
            .ok()?
            .get_document("document")
            .ok()
    };
    let (Some(winning), Some(losing)) = (of("winning"), of("losing")) else {
        return false;
    };
    winning.keys().all(|field| losing.contains_key(field))
}

/// Applications' writes by their events.
fn events(world: &World) -> HashMap<(Side, String), (u32, i32)> {
    let mut events = HashMap::new();
    for side in Side::BOTH {
        for entry in &world.replicas[side].oplog {
            for (index, operation) in entry.operations.iter().enumerate() {
                if let (Some(write), true) = (entry.write, is_told_of(&operation.namespace)) {
                    let key = operation.id.as_i32().expect("a key of ours");
                    events.insert((side, token(entry.time, index)), (write, key));
                }
            }
        }
    }
    events
}

/// The key of a document, where it was ever what its cluster held.
fn held_once(world: &World, side: Side, document: Option<&Document>) -> Option<i32> {
    let key = document?.get_i32("_id").ok()?;
    let collection = world.replicas[side].collections.get(NAMESPACE)?;
    let versions = collection.versions.get(&place_of(key).1)?;
    let was_held = versions.iter().any(|(_, held)| held.as_ref() == document);
    was_held.then_some(key)
}

/// The local log holds what the clusters hold.
pub fn records_are_here_too(world: &World, records: &[RawDocumentBuf], problems: &mut Vec<String>) {
    let here: HashSet<&str> = records
        .iter()
        .filter_map(|one| one.get_str("_id").ok())
        .collect();
    for side in Side::BOTH {
        let replica = &world.replicas[side];
        for (_, record) in replica.all(&format!("{OWN}.conflicts"), replica.time, None) {
            let id = record.get_str("_id").unwrap_or_default();
            if !here.contains(id) {
                problems.push(format!("record {id} is not in the local log"));
            }
        }
    }
}
