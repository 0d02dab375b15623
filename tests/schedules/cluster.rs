//! A cluster in memory: documents with all their past states, an oplog, and what tandem stores.

use std::collections::BTreeMap;
use std::sync::Arc;

use bson::{RawDocumentBuf, Timestamp, rawdoc};
use tandem::change::{
    Ahead, ChangeEvent, DocumentKey, Namespace, Operation, PipelineId, Position, Rank, RawEvent,
    SharedEvent, Side, Version, Within,
};
use tandem::resolve::{LostWrite, Share};

/// Writes of applications, one bit each.
pub type Writes = u128;

/// The two fields of a document, or that there is none.
pub type Document = Option<[u16; 2]>;

#[derive(Debug, Clone, Copy)]
pub enum Change {
    Replace([u16; 2]),
    Update { field: usize, value: u16 },
    Delete,
}

impl Change {
    /// What it makes of a document; nothing for an update of one that is not there.
    pub fn after(self, document: Document) -> Document {
        match self {
            Change::Delete => None,
            Change::Replace(fields) => Some(fields),
            Change::Update { field, value } => document.map(|mut fields| {
                fields[field] = value;
                fields
            }),
        }
    }

    fn operation(self, before: Document) -> Operation {
        match self {
            Change::Delete => Operation::Delete,
            Change::Replace(_) if before.is_none() => Operation::Insert,
            Change::Replace(_) => Operation::Replace,
            Change::Update { .. } => Operation::Update,
        }
    }
}

pub struct LocalWrite {
    pub id: usize,
    pub key: usize,
    pub change: Change,
    /// The writes whose effect its document had seen, itself included.
    pub seen: Writes,
    pub event: SharedEvent,
}

pub enum Entry {
    Local(LocalWrite),
    /// A transaction of tandem: the keys it wrote or touched, and its checkpoint.
    Own {
        pipeline: PipelineId,
        lane: usize,
        keys: Vec<usize>,
    },
}

pub struct Logged {
    pub time: u32,
    pub entry: Entry,
}

/// A document as it was from a moment on.
#[derive(Clone, Copy)]
pub struct State {
    pub time: u32,
    pub document: Document,
    pub seen: Writes,
}

/// What tandem keeps beside a document.
#[derive(Default, Clone)]
pub struct Notes {
    pub owed: Option<(Arc<str>, Vec<LostWrite>)>,
    pub included: Option<u32>,
    pub paid: Option<Paid>,
}

/// Full state of the other side has replaced the document.
#[derive(Clone)]
pub struct Paid {
    /// The other side's note that it settles.
    pub value: Option<Arc<str>>,
    /// Local writes up to here are gone from the document.
    pub replaced_through: Timestamp,
}

/// How far a lane has come.
#[derive(Clone)]
pub struct Checkpoint {
    pub through: Position,
    pub ahead: Option<Ahead>,
}

impl Checkpoint {
    fn first() -> Self {
        Self {
            through: Position::after_all_of(timestamp(1), ""),
            ahead: None,
        }
    }

    pub fn of(share: &Share) -> Self {
        Self {
            through: share.through.clone(),
            ahead: share.ahead.clone(),
        }
    }

    /// Whether an event of the lane is applied.
    pub fn passes(&self, event: &ChangeEvent) -> bool {
        let ahead = self.ahead.as_ref();
        event.position <= self.through
            || ahead.is_some_and(|ahead| ahead.holds(event, Within::Keys))
    }
}

pub struct Cluster {
    pub side: Side,
    /// The cluster time of the last entry.
    pub time: u32,
    pub log: Vec<Logged>,
    pub states: Vec<Vec<State>>,
    pub changed_at: Vec<u32>,
    /// Of the lanes of the pipeline into this cluster.
    pub checkpoints: Vec<Checkpoint>,
    pub notes: Vec<Notes>,
    /// Losing writes, and whether each was overturned.
    pub records: BTreeMap<usize, bool>,
    /// Writes that the other side had made too, to the same end.
    pub identical: Writes,
    /// Writes that ended, as the other side's did, in there being no document.
    pub both_absent: Writes,
    keys: Arc<[DocumentKey]>,
    raw: RawDocumentBuf,
}

/// The id of what a document of `side` held before the start.
pub fn id_before(side: Side, key: usize) -> usize {
    const FIRST: [usize; 2] = [120, 124];
    FIRST[side.index()] + key
}

pub fn timestamp(time: u32) -> Timestamp {
    Timestamp { time, increment: 1 }
}

pub fn keys(count: usize) -> Arc<[DocumentKey]> {
    let namespace = Namespace::new("shop", "orders");
    (0..count as i32)
        .map(|id| DocumentKey::of(&namespace, &rawdoc! { "_id": id }).expect("an _id"))
        .collect()
}

impl Cluster {
    pub fn new(side: Side, keys: Arc<[DocumentKey]>, lanes: usize) -> Self {
        let nothing = State {
            time: 0,
            document: None,
            seen: 0,
        };
        Self {
            side,
            time: 1,
            log: Vec::new(),
            states: vec![vec![nothing]; keys.len()],
            changed_at: vec![0; keys.len()],
            checkpoints: vec![Checkpoint::first(); lanes],
            notes: vec![Notes::default(); keys.len()],
            records: BTreeMap::new(),
            identical: 0,
            both_absent: 0,
            keys,
            raw: rawdoc! { "x": 1 },
        }
    }

    /// What was there before the start, without a trace in the log.
    pub fn fill(&mut self, key: usize, document: Document) {
        let side = self.side;
        let first = &mut self.states[key][0];
        first.document = document;
        first.seen = match document {
            Some(_) => 1 << id_before(side, key),
            None => 0,
        };
    }

    pub fn now(&self, key: usize) -> State {
        *self.states[key].last().expect("a first state")
    }

    /// A snapshot read.
    pub fn read_at(&self, key: usize, time: u32) -> State {
        let past = self.states[key].iter().rev();
        *past
            .into_iter()
            .find(|state| state.time <= time)
            .expect("a first state")
    }

    /// A write of an application at the cluster's present time. Nothing where it changes nothing.
    pub fn write(
        &mut self,
        id: usize,
        key: usize,
        change: Change,
        version_ms: i64,
        tie: Side,
    ) -> bool {
        let before = self.now(key);
        let document = change.after(before.document);
        if document == before.document {
            return false;
        }
        let seen = before.seen | (1 << id);
        let event = Arc::new(ChangeEvent {
            position: Position::of_event(timestamp(self.time), token(self.log.len())),
            key: self.keys[key].clone(),
            operation: change.operation(before.document),
            version: Version {
                wall_time_ms: version_ms,
                rank: Rank::of(self.side, tie),
            },
            wall_time_ms: version_ms,
            raw: RawEvent::of(self.raw.clone(), Operation::Update),
        });
        self.set(key, document, seen);
        self.log.push(Logged {
            time: self.time,
            entry: Entry::Local(LocalWrite {
                id,
                key,
                change,
                seen,
                event,
            }),
        });
        true
    }

    pub fn set(&mut self, key: usize, document: Document, seen: Writes) {
        self.changed_at[key] = self.time;
        self.remember(key, document, seen);
    }

    pub fn remember(&mut self, key: usize, document: Document, seen: Writes) {
        self.states[key].push(State {
            time: self.time,
            document,
            seen,
        });
    }

    /// These writes came to the same as the other side's, and that is `document`.
    pub fn came_to_the_same(&mut self, document: Document, writes: Writes) {
        match document {
            Some(_) => self.identical |= writes,
            None => self.both_absent |= writes,
        }
    }

    /// The write that an event tells of.
    pub fn local(&self, event: &SharedEvent) -> &LocalWrite {
        self.find_local(event).expect("a token of ours")
    }

    /// None for what stands for a document from before the start.
    pub fn find_local(&self, event: &SharedEvent) -> Option<&LocalWrite> {
        let at = usize::from_str_radix(&event.position.token, 16).ok()?;
        match &self.log[at].entry {
            Entry::Local(write) => Some(write),
            Entry::Own { .. } => panic!("an event of a write of tandem"),
        }
    }

    pub fn local_writes(&self) -> impl Iterator<Item = &LocalWrite> {
        self.log.iter().filter_map(|logged| match &logged.entry {
            Entry::Local(write) => Some(write),
            Entry::Own { .. } => None,
        })
    }
}

fn token(at: usize) -> String {
    format!("{at:06x}")
}
