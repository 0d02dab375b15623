//! One replica set in memory: documents with all their versions, an oplog, transactions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bson::{Bson, DateTime, Document, RawDocumentBuf, Timestamp, Uuid, doc};

use crate::collections::is_told_of;
use crate::reads::OpenCursor;
use crate::update::difference;

/// The bytes of `{ _id: … }`.
pub type Id = Vec<u8>;

/// Where a document is: its collection's whole name and its `_id`.
pub type Place = (String, Id);

/// One document's change as the oplog has it.
#[derive(Debug, Clone)]
pub struct Operation {
    pub namespace: String,
    pub uuid: Uuid,
    pub id: Bson,
    pub kind: &'static str,
    /// The whole document of an insert or a replacement, the difference of an update.
    pub body: Document,
}

/// Everything of one cluster time.
#[derive(Debug, Clone)]
pub struct Entry {
    pub time: Timestamp,
    pub wall_ms: i64,
    pub operations: Vec<Operation>,
    /// Session and number of a transaction.
    pub transaction: Option<(Uuid, i64)>,
    /// The application's write that this is.
    pub write: Option<u32>,
    /// When a majority of the members has it.
    pub durable_at: Duration,
}

#[derive(Debug)]
pub struct Collection {
    pub uuid: Uuid,
    /// It has its name since then: as of an earlier time it cannot be read.
    pub visible_from: Timestamp,
    /// By `_id`, oldest first; none for an absent document.
    pub versions: BTreeMap<Id, Vec<(Timestamp, Option<Document>)>>,
}

/// An open transaction.
#[derive(Debug, Clone)]
pub struct Transaction {
    pub snapshot: Timestamp,
    /// Collections it has locked: whoever drops or renames them waits for its end.
    pub touched: BTreeSet<String>,
    pub written: BTreeMap<Place, Option<Document>>,
    pub operations: Vec<Operation>,
}

#[derive(Debug, Clone)]
pub enum Standing {
    Open(Transaction),
    Committed,
    Aborted,
}

#[derive(Debug, Clone)]
pub struct SessionState {
    pub number: i64,
    pub standing: Standing,
    /// When it has last committed a write: the session's own record is a document like any other.
    pub written: Timestamp,
}

pub const NEVER: Timestamp = Timestamp {
    time: 0,
    increment: 0,
};

/// Why a write is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Another one has changed the document after the snapshot, or is about to (112).
    Conflict,
    /// A transaction holds the document: a plain write waits.
    Held,
}

#[derive(Debug)]
pub struct Replica {
    pub set: &'static str,
    pub time: Timestamp,
    /// The server's wall clock.
    pub wall_ms: i64,
    /// Since the beginning of the world, whose clock is nobody's.
    pub elapsed: Duration,
    /// How far back it can be read.
    pub history_seconds: u32,
    /// How far the other members are behind the primary.
    pub members_lag: Duration,
    /// A primary that was elected: until when it shows what a majority had at which moment.
    pub shows: Option<(Duration, Duration)>,
    pub collections: BTreeMap<String, Collection>,
    pub oplog: Vec<Entry>,
    pub sessions: HashMap<Uuid, SessionState>,
    pub next_uuid: crate::random::Random,
    /// Collections that a transaction has created by writing into them.
    pub brought_back: Vec<String>,
    /// How many transactions were committed that had written nothing.
    pub empty_commits: u32,
    /// How large it says that a document is, so that a few of them are several ranges.
    pub document_bytes: i64,
    pub batch_documents_max: usize,
    pub cursors: HashMap<i64, OpenCursor>,
    pub last_cursor: i64,
}

impl Replica {
    pub fn new(set: &'static str, wall_ms: i64, next_uuid: crate::random::Random) -> Self {
        Self {
            set,
            time: Timestamp {
                time: (wall_ms / 1000) as u32,
                increment: 1,
            },
            wall_ms,
            elapsed: Duration::ZERO,
            history_seconds: u32::MAX,
            members_lag: Duration::ZERO,
            shows: None,
            collections: BTreeMap::new(),
            oplog: Vec::new(),
            sessions: HashMap::new(),
            next_uuid,
            brought_back: Vec::new(),
            empty_commits: 0,
            document_bytes: 1000,
            batch_documents_max: usize::MAX,
            cursors: HashMap::new(),
            last_cursor: 0,
        }
    }

    pub fn now(&self) -> DateTime {
        DateTime::from_millis(self.wall_ms)
    }

    /// The next cluster time; it never falls, whatever the wall clock does.
    pub fn tick(&mut self) -> Timestamp {
        let seconds = (self.wall_ms / 1000) as u32;
        self.time = match seconds > self.time.time {
            true => Timestamp {
                time: seconds,
                increment: 1,
            },
            false => Timestamp {
                time: self.time.time,
                increment: self.time.increment + 1,
            },
        };
        self.time
    }

    pub fn create(&mut self, namespace: &str) -> Uuid {
        let uuid = self.next_uuid.uuid();
        let collection = self.collections.entry(namespace.to_owned());
        collection
            .or_insert_with(|| Collection {
                uuid,
                visible_from: NEVER,
                versions: BTreeMap::new(),
            })
            .uuid
    }

    /// Whether the versions of this time are no longer kept.
    pub fn is_forgotten(&self, time: Timestamp) -> bool {
        time.time < self.time.time.saturating_sub(self.history_seconds)
    }

    /// The document as of a time.
    pub fn as_of(&self, place: &Place, time: Timestamp) -> Option<&Document> {
        let versions = self.collections.get(&place.0)?.versions.get(&place.1)?;
        latest(versions, time)
    }

    /// All documents of a collection, as a transaction sees them or as of a time.
    pub fn all<'a>(
        &'a self,
        namespace: &str,
        time: Timestamp,
        own: Option<&'a Transaction>,
    ) -> Vec<(&'a Id, &'a Document)> {
        let collection = self.collections.get(namespace);
        let versions = collection.into_iter().flat_map(|found| &found.versions);
        let there = versions.filter_map(|(id, all)| Some((id, latest(all, time)?)));
        let written = own.into_iter().flat_map(|own| &own.written);
        let mut written = written
            .filter(|((of, _), _)| of == namespace)
            .map(|((_, id), after)| (id, after.as_ref()))
            .peekable();
        if written.peek().is_none() {
            return there.collect();
        }
        let mut seen: BTreeMap<&Id, Option<&Document>> =
            there.map(|(id, found)| (id, Some(found))).collect();
        seen.extend(written);
        let seen = seen.into_iter();
        seen.filter_map(|(id, found)| Some((id, found?))).collect()
    }

    /// Whether any transaction is open that has written something.
    pub fn holds_anything(&self) -> bool {
        self.sessions.values().any(|state| match &state.standing {
            Standing::Open(open) => !open.written.is_empty(),
            Standing::Committed | Standing::Aborted => false,
        })
    }

    pub fn is_held(&self, place: &Place, by_another: Option<Uuid>) -> bool {
        self.sessions
            .iter()
            .any(|(id, state)| match &state.standing {
                Standing::Open(open) => Some(*id) != by_another && open.written.contains_key(place),
                Standing::Committed | Standing::Aborted => false,
            })
    }

    pub fn changed_after(&self, place: &Place, time: Timestamp) -> bool {
        let collection = self.collections.get(&place.0);
        let versions = collection.and_then(|found| found.versions.get(&place.1));
        versions
            .and_then(|all| all.last())
            .is_some_and(|(at, _)| *at > time)
    }

    /// Plain writes of one document each, or an application's transaction: one cluster time.
    pub fn write_now(
        &mut self,
        changes: Vec<(Place, Option<Document>)>,
        write: Option<u32>,
        transaction: Option<(Uuid, i64)>,
    ) -> Result<bool, Refused> {
        if changes.iter().any(|(place, _)| self.is_held(place, None)) {
            return Err(Refused::Held);
        }
        for (place, after) in &changes {
            if after.is_some() && is_told_of(&place.0) {
                self.create_told(&place.0);
            }
        }
        let time = self.time;
        let mut operations = Vec::new();
        let mut effective = Vec::new();
        for (place, after) in changes {
            let before = self.as_of(&place, time).cloned();
            if before != after {
                let uuid = self.create(&place.0);
                operations.push(operation(&place.0, uuid, before.as_ref(), after.as_ref()));
                effective.push((place, after));
            }
        }
        if operations.is_empty() {
            return Ok(false);
        }
        self.enter(effective, operations, write, transaction);
        Ok(true)
    }

    pub fn enter(
        &mut self,
        written: Vec<(Place, Option<Document>)>,
        operations: Vec<Operation>,
        write: Option<u32>,
        transaction: Option<(Uuid, i64)>,
    ) {
        let time = self.tick();
        for ((namespace, id), after) in written {
            let collection = self
                .collections
                .get_mut(&namespace)
                .expect("created before");
            collection
                .versions
                .entry(id)
                .or_default()
                .push((time, after));
        }
        let before = self.oplog.last().map_or(Duration::ZERO, |e| e.durable_at);
        self.oplog.push(Entry {
            time,
            wall_ms: self.wall_ms,
            operations,
            transaction,
            write,
            durable_at: before.max(self.elapsed + self.members_lag),
        });
    }
}

/// What a document was as of a time, out of all of its versions.
fn latest(versions: &[(Timestamp, Option<Document>)], time: Timestamp) -> Option<&Document> {
    let past = versions.iter().rev().find(|(at, _)| *at <= time)?;
    past.1.as_ref()
}

pub fn id_of(id: &Bson) -> Id {
    let raw = RawDocumentBuf::try_from(&doc! { "_id": id.clone() }).expect("an _id");
    raw.into_bytes()
}

pub fn operation(
    namespace: &str,
    uuid: Uuid,
    before: Option<&Document>,
    after: Option<&Document>,
) -> Operation {
    let (kind, id, body) = match (before, after) {
        (None, Some(after)) => ("insert", &after["_id"], after.clone()),
        (Some(before), None) => ("delete", &before["_id"], doc! {}),
        (Some(before), Some(after)) => match difference(before, after) {
            Some(difference) => ("update", &before["_id"], difference),
            None => ("replace", &before["_id"], after.clone()),
        },
        (None, None) => panic!("nothing was written"),
    };
    Operation {
        namespace: namespace.to_owned(),
        uuid,
        id: id.clone(),
        kind,
        body,
    }
}
