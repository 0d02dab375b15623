//! The work: documents that are there before, and the operations that wait to be drained.

use bson::{Document, doc};
use mongodb::{Client, Collection};

/// Documents of one insert, and statements of one command.
const COMMAND_OPERATIONS: usize = 1000;

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
        self.insert(client, 0..self.documents_before()).await;
    }

    /// Writes inserts under keys that the other side's backlog has not.
    pub async fn write_elsewhere(&self, client: &Client) {
        const OTHER_KEYS: usize = 1 << 32;
        self.insert(client, OTHER_KEYS..OTHER_KEYS + self.operations)
            .await;
    }

    /// Writes the backlog.
    pub async fn write(&self, client: &Client) {
        let before = self.documents_before();
        match self.shape {
            Shape::Inserts => self.insert(client, before..before + self.operations).await,
            Shape::Updates => {
                let keys: Vec<usize> = (0..self.operations).map(|n| scatter(n, before)).collect();
                self.update(client, &keys).await;
            }
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
        let orders: Collection<Document> = client.database("shop").collection("orders");
        let all: Vec<usize> = keys.collect();
        for some in all.chunks(COMMAND_OPERATIONS) {
            let documents = some.iter().map(|key| self.document(*key));
            orders.insert_many(documents).await.expect("inserted");
        }
    }

    async fn update(&self, client: &Client, keys: &[usize]) {
        for some in keys.chunks(COMMAND_OPERATIONS) {
            let statements: Vec<Document> = some
                .iter()
                .map(|key| {
                    let change = doc! { "$inc": { "version": 1 }, "$set": { "state": "paid", "totals.net": *key as f64 } };
                    doc! { "q": { "_id": *key as i64 }, "u": change }
                })
                .collect();
            run(client, doc! { "update": "orders", "updates": statements }).await;
        }
    }

    fn document(&self, key: usize) -> Document {
        const FIXED_BYTES: usize = 100;
        let mut document = doc! {
            "_id": key as i64,
            "state": "new",
            "version": 1,
        };
        let Some(text_bytes) = self.document_bytes.checked_sub(FIXED_BYTES + 1) else {
            return document;
        };
        document.insert("totals", doc! { "net": 1.5, "tax": 0.3 });
        document.insert("text", text(key, text_bytes));
        document
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

async fn run(client: &Client, command: Document) {
    let reply = client.database("shop").run_command(command).await;
    let reply = reply.expect("written");
    assert!(!reply.contains_key("writeErrors"), "{reply}");
}
