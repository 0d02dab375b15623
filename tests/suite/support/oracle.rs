//! The application's own account of its writes, held against what became of them.
//!
//! Every write has an id that it appends to `seen` of its document, so that a document tells
//! which writes it holds. When all has settled, each acknowledged id must be accounted for:
//!
//! - it is in the final `seen` of its document, exactly once; or
//! - it lost, and exactly one record says so: the record's change carries the id as the last one
//!   that it appended; or
//! - it was removed on purpose: an acknowledged delete took away a document whose `seen` held it
//!   (deletes are findOneAndDelete, so the writer knows), and that delete stood. A delete that
//!   itself lost accounts for nothing: what it removed must live on with the winner, or be
//!   accounted for otherwise.
//!
//! And nothing comes back: the id of a record is not in the final `seen` unless the record is
//! overturned, and what a standing delete removed is not there either.
//!
//! A record of a delete carries no id. It is matched to the writer's delete by cluster time: the
//! writer noted the operation times before and after. Where two deletes fit one record, both count
//! as "perhaps lost", which may hide a fault and never invents one.

use std::collections::{BTreeMap, BTreeSet};

use bson::Document;
use serde_json::Value;

use super::losses::{Loss, digits_of_key, held_by_records, loss_of, number_in};

/// Seconds and increment of a cluster time.
pub type Time = (u32, u32);
/// Namespace and the number of the key.
pub type Place = (String, u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    A,
    B,
}

impl Side {
    pub fn prefix(self) -> &'static str {
        match self {
            Side::A => "a",
            Side::B => "b",
        }
    }

    /// The pipeline that carries this side's writes.
    pub fn pipeline(self) -> &'static str {
        match self {
            Side::A => "a-to-b",
            Side::B => "b-to-a",
        }
    }
}

/// One acknowledged write.
#[derive(Debug, Clone)]
pub struct Write {
    pub id: String,
    pub side: Side,
    pub place: Place,
    /// Operation times of the cluster before and after it.
    pub time: (Time, Time),
    /// The `seen` that it deleted; none for a write that leaves a document.
    pub removed: Option<Vec<String>>,
}

/// All that the application knows.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub writes: Vec<Write>,
    /// The application's sessions, to tell its transactions from tandem's.
    pub sessions: Vec<Vec<u8>>,
    /// Writes from before the start of the link.
    pub copied: BTreeSet<String>,
    /// Writes that ended in an error, so that nobody knows whether they were done.
    pub perhaps: Vec<(String, Place)>,
    /// Documents that a delete of that kind was about.
    pub perhaps_deleted: BTreeSet<Place>,
}

/// Top-level fields that the workload writes.
pub const FIELDS: [&str; 16] = [
    "_id", "seen", "name", "title", "count", "factor", "low", "high", "list", "tags", "flags",
    "touched", "items", "nested", "total", "version",
];

const VIOLATIONS_SHOWN: usize = 10;

impl History {
    pub fn merge(mut self, other: History) -> History {
        self.writes.extend(other.writes);
        self.sessions.extend(other.sessions);
        self.copied.extend(other.copied);
        self.perhaps.extend(other.perhaps);
        self.perhaps_deleted.extend(other.perhaps_deleted);
        self
    }

    /// All of it happened before the start of the link.
    pub fn before_the_start(mut self) -> History {
        self.copied = self.writes.iter().map(|write| write.id.clone()).collect();
        self
    }

    /// Holds the history against the final documents and the conflict records.
    ///
    /// The documents must be those of both sides, converged. Gives every violation.
    pub fn check(&self, documents: &[(String, Document)], records: &[Value]) -> Vec<String> {
        let mut broken = Vec::new();
        let mut finals: BTreeMap<Place, Vec<String>> = BTreeMap::new();
        for (namespace, document) in documents {
            check_fields(namespace, document, &mut broken);
            let place = (namespace.clone(), number_in(&id_text(document)));
            finals.insert(place, seen_of(document));
        }
        let losses: Vec<Loss> = records.iter().filter_map(loss_of).collect();
        let held = held_by_records(records);
        self.check_known(&finals, &losses, &mut broken);
        let fates = self.fates(&losses, &mut broken);
        let (copied, later): (Vec<&Write>, Vec<&Write>) = self
            .writes
            .iter()
            .partition(|write| self.copied.contains(&write.id));
        for write in later {
            self.check_write(write, &finals, &losses, &fates, &mut broken);
        }
        for write in copied {
            self.check_copied(write, &finals, &held, &fates, &mut broken);
        }
        broken
    }

    /// Panics where [`History::check`] finds something.
    pub fn assert_accounted(&self, documents: &[(String, Document)], records: &[Value]) {
        let broken = self.check(documents, records);
        for what in broken.iter().take(VIOLATIONS_SHOWN) {
            self.show(what, documents, records);
        }
        let shown = broken.iter().take(VIOLATIONS_SHOWN).cloned();
        assert!(
            broken.is_empty(),
            "{} violations:\n{}",
            broken.len(),
            shown.collect::<Vec<_>>().join("\n")
        );
    }

    /// Everything about the document of a violation, for whoever has to find out why.
    fn show(&self, what: &str, documents: &[(String, Document)], records: &[Value]) {
        let here = |place: &Place| what.contains(&format!("{place:?}"));
        for write in self.writes.iter().filter(|write| here(&write.place)) {
            println!("{write:?}");
        }
        for record in records {
            let key = number_in(&digits_of_key(&record["document_key"]["_id"]));
            let namespace = record["namespace"].as_str().unwrap_or_default();
            if here(&(namespace.to_owned(), key)) {
                println!("{record}");
            }
        }
        for (namespace, document) in documents {
            if here(&(namespace.clone(), number_in(&id_text(document)))) {
                println!("{namespace} {document}");
            }
        }
    }

    /// Ids that turn up must be of acknowledged writes, once each.
    fn check_known(
        &self,
        finals: &BTreeMap<Place, Vec<String>>,
        losses: &[Loss],
        broken: &mut Vec<String>,
    ) {
        let writes = self.writes.iter().map(|write| (&write.id, &write.place));
        let perhaps = self.perhaps.iter().map(|(id, place)| (id, place));
        let known: BTreeMap<&str, &Place> = writes
            .chain(perhaps)
            .map(|(id, place)| (id.as_str(), place))
            .collect();
        for (place, seen) in finals {
            let mut once = BTreeSet::new();
            for id in seen {
                if !once.insert(id) {
                    broken.push(format!("{id} is in {place:?} twice"));
                }
                if known.get(id.as_str()) != Some(&place) {
                    broken.push(format!("{id} is in {place:?}, where nobody wrote it"));
                }
            }
        }
        for loss in losses {
            let unknown = loss
                .id
                .as_ref()
                .filter(|id| !known.contains_key(id.as_str()));
            if let Some(id) = unknown {
                broken.push(format!("a record tells of {id}, which nobody wrote"));
            }
        }
    }

    /// For every place, the deletes that stood for sure and those that perhaps did.
    fn fates(&self, losses: &[Loss], broken: &mut Vec<String>) -> BTreeMap<Place, Vec<Fate<'_>>> {
        let mut fates: BTreeMap<Place, Vec<Fate<'_>>> = BTreeMap::new();
        for write in &self.writes {
            if let Some(removed) = &write.removed {
                fates.entry(write.place.clone()).or_default().push(Fate {
                    write,
                    removed,
                    stood: Stood::Surely,
                });
            }
        }
        for loss in losses.iter().filter(|loss| loss.id.is_none()) {
            let here = fates
                .get_mut(&loss.place)
                .map_or(&mut [][..], Vec::as_mut_slice);
            let fitting = |fate: &&mut Fate<'_>| {
                fate.write.side == loss.side
                    && fate.write.time.0 <= loss.time
                    && loss.time <= fate.write.time.1
            };
            let mut fit: Vec<&mut Fate<'_>> = here.iter_mut().filter(fitting).collect();
            let only = fit.len() == 1;
            if fit.is_empty() && !self.perhaps_deleted.contains(&loss.place) {
                broken.push(format!(
                    "a record tells of a delete that nobody made: {loss:?}"
                ));
            }
            if loss.overturned {
                continue;
            }
            for fate in &mut fit {
                fate.stood = if only { Stood::Not } else { Stood::Perhaps };
            }
        }
        fates
    }

    /// What a document held before the start has no event of its own: it lives on, or a record
    /// keeps the whole document that held it, or it was deleted: by a delete that stood, or by
    /// its own side, so that it was never copied.
    fn check_copied(
        &self,
        write: &Write,
        finals: &BTreeMap<Place, Vec<String>>,
        held: &BTreeSet<String>,
        fates: &BTreeMap<Place, Vec<Fate<'_>>>,
        broken: &mut Vec<String>,
    ) {
        let kept = finals
            .get(&write.place)
            .is_some_and(|seen| seen.contains(&write.id));
        let removers = fates.get(&write.place).into_iter().flatten();
        let is_deleted = removers
            .filter(|fate| fate.removed.contains(&write.id))
            .any(|fate| fate.write.side == write.side || fate.stood != Stood::Not);
        let is_delete = write.removed.is_some();
        if !kept && !is_deleted && !is_delete && !held.contains(&write.id) {
            broken.push(format!(
                "{} in {:?}: copied, and lost",
                write.id, write.place
            ));
        }
    }

    fn check_write(
        &self,
        write: &Write,
        finals: &BTreeMap<Place, Vec<String>>,
        losses: &[Loss],
        fates: &BTreeMap<Place, Vec<Fate<'_>>>,
        broken: &mut Vec<String>,
    ) {
        if write.removed.is_some() {
            return;
        }
        let id = &write.id;
        let kept = finals
            .get(&write.place)
            .is_some_and(|seen| seen.contains(id));
        let lost: Vec<&Loss> = losses
            .iter()
            .filter(|loss| loss.id.as_ref() == Some(id))
            .collect();
        let removers = fates.get(&write.place).into_iter().flatten();
        let removers: Vec<Stood> = removers
            .filter(|fate| fate.removed.contains(id))
            .map(|fate| fate.stood)
            .collect();
        let removed_perhaps = removers.iter().any(|stood| *stood != Stood::Not)
            || self.perhaps_deleted.contains(&write.place);
        let counts = lost.iter().filter(|loss| !loss.overturned).count();
        let what = format!("{id} in {:?}", write.place);
        if lost.len() > 1 {
            broken.push(format!("{what}: {} records of one write", lost.len()));
        }
        if kept && counts > 0 {
            broken.push(format!("{what}: lost on record, and in the document"));
        }
        if kept && removers.contains(&Stood::Surely) {
            broken.push(format!("{what}: deleted, and back in the document"));
        }
        if !kept && counts == 0 && !removed_perhaps {
            let why = if lost.is_empty() {
                "no record"
            } else {
                "its record is overturned"
            };
            broken.push(format!("{what}: lost, {why}"));
        }
        if lost
            .iter()
            .any(|loss| loss.side != write.side || loss.place != write.place)
        {
            broken.push(format!("{what}: its record names another side or document"));
        }
    }
}

struct Fate<'a> {
    write: &'a Write,
    removed: &'a [String],
    stood: Stood,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stood {
    Surely,
    Perhaps,
    Not,
}

fn id_text(document: &Document) -> String {
    document
        .get("_id")
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn check_fields(namespace: &str, document: &Document, broken: &mut Vec<String>) {
    for field in document
        .keys()
        .filter(|field| !FIELDS.contains(&field.as_str()))
    {
        broken.push(format!(
            "{namespace}: nobody wrote the field {field}: {document}"
        ));
    }
}

/// The ids in a document's `seen`.
pub fn seen_of(document: &Document) -> Vec<String> {
    let seen = document.get_array("seen").cloned().unwrap_or_default();
    let texts = seen.iter().filter_map(|id| id.as_str());
    texts.map(str::to_owned).collect()
}
