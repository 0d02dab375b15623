//! The work: documents that are there before, and the operations that wait to be drained.

use std::collections::BTreeMap;

use bson::{Document, doc};
use futures_util::future::join_all;
use mongodb::Client;

/// Statements of one command, and documents of one insert so far as they fit into its bytes.
const COMMAND_OPERATIONS: usize = 1000;
const COMMAND_BYTES: usize = 8 * 1024 * 1024;

/// A mix comes in groups of so many operations: half inserts, two fifths updates, deletes.
const MIX_GROUP: usize = 100;
const MIX_INSERTS: usize = 50;
const MIX_UPDATES: usize = 40;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Updates,
    Inserts,
    Mix,
}

impl Shape {
    pub const ALL: [Shape; 3] = [Shape::Updates, Shape::Inserts, Shape::Mix];

    pub fn as_str(self) -> &'static str {
        match self {
            Shape::Updates => "updates",
            Shape::Inserts => "inserts",
            Shape::Mix => "mix",
        }
    }
}

/// The same documents and operations for whoever drains them.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    pub shape: Shape,
    pub operations: usize,
    pub document_bytes: usize,
    pub place: Place,
    pub keys: Keys,
    pub index: Index,
    /// Documents are spread over so many, by their keys.
    pub collections: usize,
}

/// Which documents the updates are about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Keys {
    Spread,
    /// The n-th most frequent one is drawn in proportion to n^-0.99, as YCSB does.
    Zipf,
    /// Every tenth update is about the same document.
    OneHot,
    /// Both sides write documents of their own, but for so many operations of a hundred.
    Shared {
        percent: usize,
    },
}

/// What the collections have beside the index of `_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    None,
    Unique,
}

/// Where the backlog is, and in which mode it drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    OneSide,
    /// The same on both sides, under other keys.
    BothSides,
    OneWay,
}

impl Backlog {
    pub fn new(shape: Shape, operations: usize, document_bytes: usize) -> Self {
        Self {
            shape,
            operations,
            document_bytes,
            place: Place::OneSide,
            keys: Keys::Spread,
            index: Index::None,
            collections: 1,
        }
    }

    pub fn with_keys(self, keys: Keys) -> Self {
        Self { keys, ..self }
    }

    pub fn with_index(self, index: Index) -> Self {
        Self { index, ..self }
    }

    pub fn over_collections(self, collections: usize) -> Self {
        Self {
            collections,
            ..self
        }
    }

    /// What a line of the table says of it.
    pub fn label(&self) -> String {
        let what = format!("{} {}", self.operations, self.shape.as_str());
        match self.place {
            Place::OneSide => what,
            Place::BothSides => format!("{what} on each side"),
            Place::OneWay => format!("{what}, one-way"),
        }
    }

    /// Operations on both sides.
    pub fn drained(&self) -> usize {
        match self.place {
            Place::BothSides => self.operations * 2,
            Place::OneSide | Place::OneWay => self.operations,
        }
    }

    /// Documents that are there before the backlog is written.
    fn documents_before(&self) -> usize {
        match self.shape {
            Shape::Inserts => 1,
            Shape::Updates | Shape::Mix => (self.operations / 2).max(MIX_GROUP),
        }
    }

    /// Writes what is there before, the same on every server.
    pub async fn prepare(&self, client: &Client) {
        for collection in 0..self.collections {
            // What is measured is documents: each new collection is a barrier.
            let name = name_of(collection);
            run(client, doc! { "create": &name }).await;
            if self.index == Index::Unique {
                let index = doc! { "key": { "number": 1 }, "name": "number_1", "unique": true };
                run(client, doc! { "createIndexes": name, "indexes": [index] }).await;
            }
        }
        self.insert(client, 0..self.documents_before()).await;
    }

    /// Writes the other side's backlog: inserts under other keys, updates of other documents but for
    /// those that are shared.
    pub async fn write_elsewhere(&self, client: &Client) {
        const OTHER_KEYS: usize = 1 << 32;
        match self.shape {
            Shape::Inserts | Shape::Mix => {
                let keys = OTHER_KEYS..OTHER_KEYS + self.operations;
                self.insert(client, keys).await;
            }
            Shape::Updates => self.update(client, &self.keys_of(Half::Upper)).await,
        }
    }

    /// The documents that the updates are about, in their order.
    fn keys_of(&self, half: Half) -> Vec<usize> {
        let before = self.documents_before();
        let zipf = Zipf::new(before);
        let key = |n: usize| match self.keys {
            Keys::Spread => scatter(n, before),
            Keys::Zipf => zipf.key(n),
            Keys::OneHot if n.is_multiple_of(10) => 0,
            Keys::OneHot => scatter(n, before),
            Keys::Shared { percent } if n % 100 < percent => scatter(n, before),
            Keys::Shared { .. } => match half {
                Half::Lower => scatter(n, before / 2),
                Half::Upper => before / 2 + scatter(n, before / 2),
            },
        };
        (0..self.operations).map(key).collect()
    }

    /// The collection of the backlog's first operation, and what finds its document once it is done. The
    /// other side writes the same where documents are shared: then it is the first one that is not.
    pub fn first_operation(&self) -> (String, Document) {
        let first = match self.keys {
            Keys::Shared { percent } => percent % 100,
            Keys::Spread | Keys::Zipf | Keys::OneHot => 0,
        };
        let (key, mut filter) = match self.shape {
            Shape::Inserts | Shape::Mix => (self.documents_before(), doc! {}),
            Shape::Updates => (self.keys_of(Half::Lower)[first], doc! { "state": "paid" }),
        };
        filter.insert("_id", key as i64);
        (name_of(key % self.collections), filter)
    }

    /// Writes the backlog.
    pub async fn write(&self, client: &Client) {
        let before = self.documents_before();
        match self.shape {
            Shape::Inserts => self.insert(client, before..before + self.operations).await,
            Shape::Updates => self.update(client, &self.keys_of(Half::Lower)).await,
            Shape::Mix => self.write_mix(client, before).await,
        }
    }

    /// Deletes take documents from the front, updates scatter over those that stay.
    async fn write_mix(&self, client: &Client, before: usize) {
        let groups = self.operations / MIX_GROUP;
        let deletes = MIX_GROUP - MIX_INSERTS - MIX_UPDATES;
        let gone = groups * deletes;
        assert!(gone < before, "the mix deletes fewer than are there");
        for group in 0..groups {
            let first = before + group * MIX_INSERTS;
            self.insert(client, first..first + MIX_INSERTS).await;
            let numbers = group * MIX_UPDATES..(group + 1) * MIX_UPDATES;
            let keys: Vec<usize> = numbers.map(|n| gone + scatter(n, before - gone)).collect();
            self.update(client, &keys).await;
            let dead = group * deletes..(group + 1) * deletes;
            let statements: Vec<Document> = dead
                .map(|key| doc! { "q": { "_id": key as i64 }, "limit": 1 })
                .collect();
            run(client, doc! { "delete": "orders", "deletes": statements }).await;
        }
    }

    async fn insert(&self, client: &Client, keys: std::ops::Range<usize>) {
        let all: Vec<usize> = keys.collect();
        let at_once = (COMMAND_BYTES / self.document_bytes).clamp(1, COMMAND_OPERATIONS);
        for some in all.chunks(at_once) {
            join_all(self.by_collection(some).map(async |(name, keys)| {
                let documents: Vec<Document> = keys.iter().map(|key| self.document(*key)).collect();
                run(client, doc! { "insert": name, "documents": documents }).await;
            }))
            .await;
        }
    }

    async fn update(&self, client: &Client, keys: &[usize]) {
        for some in keys.chunks(COMMAND_OPERATIONS) {
            join_all(self.by_collection(some).map(async |(name, keys)| {
                let statements: Vec<Document> = keys
                    .iter()
                    .map(|key| {
                        let change = doc! { "$inc": { "version": 1 }, "$set": { "state": "paid", "totals.net": *key as f64 } };
                        doc! { "q": { "_id": *key as i64 }, "u": change }
                    })
                    .collect();
                run(client, doc! { "update": name, "updates": statements }).await;
            }))
            .await;
        }
    }

    fn by_collection(&self, keys: &[usize]) -> impl Iterator<Item = (String, Vec<usize>)> + use<> {
        let mut parts: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for key in keys {
            let name = name_of(key % self.collections);
            parts.entry(name).or_default().push(*key);
        }
        parts.into_iter()
    }

    fn document(&self, key: usize) -> Document {
        const FIXED_BYTES: usize = 100;
        let mut document = doc! {
            "_id": key as i64,
            "state": "new",
            "version": 1,
        };
        if self.index == Index::Unique {
            document.insert("number", key as i64);
        }
        let Some(text_bytes) = self.document_bytes.checked_sub(FIXED_BYTES + 1) else {
            return document;
        };
        document.insert("totals", doc! { "net": 1.5, "tax": 0.3 });
        document.insert("text", text(key, text_bytes));
        document
    }
}

/// Which of both sides' documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Lower,
    Upper,
}

/// The first one is the one that everybody else looks at.
pub fn name_of(collection: usize) -> String {
    match collection {
        0 => "orders".to_owned(),
        number => format!("orders{number}"),
    }
}

/// The number behind a name.
pub fn collection_of(name: &str) -> usize {
    let number = name.strip_prefix("orders");
    number.and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Draws keys in proportion to n^-0.99, by the formula of Gray et al. that YCSB uses.
struct Zipf {
    keys: usize,
    zeta: f64,
}

impl Zipf {
    const THETA: f64 = 0.99;

    fn new(keys: usize) -> Self {
        let zeta = Self::zeta(keys);
        Self { keys, zeta }
    }

    fn zeta(keys: usize) -> f64 {
        (1..=keys).map(|n| (n as f64).powf(-Self::THETA)).sum()
    }

    fn key(&self, number: usize) -> usize {
        let alpha = 1.0 / (1.0 - Self::THETA);
        let keys = self.keys as f64;
        let eta = (1.0 - (2.0 / keys).powf(1.0 - Self::THETA)) / (1.0 - Self::zeta(2) / self.zeta);
        let chance = (next(next(number as u64)) >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = chance * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(Self::THETA) {
            return 1;
        }
        let rank = keys * (eta * chance - eta + 1.0).powf(alpha);
        (rank as usize).min(self.keys - 1)
    }
}

/// Text that does not compress to nothing.
fn text(key: usize, bytes: usize) -> String {
    let mut state = key as u64 + 1;
    let letter = |_| {
        state = next(state);
        char::from(b'a' + (state >> 33) as u8 % 26)
    };
    (0..bytes).map(letter).collect()
}

fn next(state: u64) -> u64 {
    state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407)
}

/// A key below `limit`, spread over all of them.
fn scatter(number: usize, limit: usize) -> usize {
    (next(next(number as u64)) >> 20) as usize % limit
}

/// Nobody waits for the journal: with a thousand collections, commands have one document each.
async fn run(client: &Client, mut command: Document) {
    command.insert("writeConcern", doc! { "w": 1 });
    let reply = client.database("shop").run_command(command).await;
    let reply = reply.expect("written");
    assert!(!reply.contains_key("writeErrors"), "{reply}");
}
