//! From statements to transactions.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bson::{RawDocumentBuf, doc, rawdoc};
use mongodb::options::{ReadConcern, WriteConcern};
use mongodb::{Client, ClientSession};
use tandem::change::with_list;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{BATCH_BYTES, BATCH_OPERATIONS, LANES, Operation};
use crate::backlog::name_of;

/// Batches between the reader and a lane.
const QUEUED: usize = 4;

/// When the first transaction was committed, from the start of the clock.
type First = Arc<OnceLock<Duration>>;

pub struct Lanes {
    senders: Vec<mpsc::Sender<Vec<Operation>>>,
    running: JoinSet<()>,
    first: First,
}

impl Lanes {
    pub fn start(target: &Client, started: Instant) -> Self {
        let first = First::default();
        let mut running = JoinSet::new();
        let senders = (0..LANES).map(|number| {
            let (sender, receiver) = mpsc::channel(QUEUED);
            let lane = Lane {
                target: target.clone(),
                number,
                started,
                first: first.clone(),
            };
            running.spawn(lane.run(receiver));
            sender
        });
        Self {
            senders: senders.collect(),
            running,
            first,
        }
    }

    pub fn hand_out(&self, operations: Vec<Operation>) -> impl Future<Output = ()> + use<> {
        let mut parts: Vec<Vec<Operation>> = (0..LANES).map(|_| Vec::new()).collect();
        for operation in operations {
            parts[operation.lane].push(operation);
        }
        let senders = self.senders.clone();
        async move {
            for (sender, part) in senders.iter().zip(parts) {
                if !part.is_empty() {
                    sender.send(part).await.expect("the lane runs");
                }
            }
        }
    }

    /// Once everything is committed.
    pub async fn finish(mut self) -> Option<Duration> {
        self.senders.clear();
        while let Some(ended) = self.running.join_next().await {
            ended.expect("the lane ends");
        }
        self.first.get().copied()
    }
}

struct Lane {
    target: Client,
    number: usize,
    started: Instant,
    first: First,
}

impl Lane {
    async fn run(self, mut batches: mpsc::Receiver<Vec<Operation>>) {
        let checkpoints = self
            .target
            .database("bare")
            .collection::<bson::Document>("checkpoints");
        let first = doc! { "_id": self.number as i64, "sequence": 0_i64 };
        checkpoints.insert_one(first).await.expect("inserted");
        let mut session = self.target.start_session().await.expect("a session");
        let mut held = Held::default();
        let mut over = false;
        while !over {
            match batches.recv().await {
                Some(batch) => held.extend(batch),
                None => over = true,
            }
            while let Ok(batch) = batches.try_recv() {
                held.extend(batch);
            }
            while held.is_full() || (over && !held.operations.is_empty()) {
                self.commit(&mut session, held.batch()).await;
            }
        }
    }

    async fn commit(&self, session: &mut ClientSession, mut batch: Vec<Operation>) {
        batch.sort_by_key(|operation| (operation.collection, operation.verb));
        session
            .start_transaction()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::majority())
            .await
            .expect("begun");
        let alike = |one: &Operation, next: &Operation| {
            (one.collection, one.verb) == (next.collection, next.verb)
        };
        for group in batch.chunk_by(alike) {
            let (name, list) = group[0].verb.names();
            let mut command = RawDocumentBuf::new();
            command.append(name, name_of(group[0].collection));
            let statements: Vec<_> = group.iter().map(|one| &*one.statement).collect();
            self.send(session, "shop", with_list(command, list, &statements))
                .await;
        }
        let moved = rawdoc! {
            "update": "checkpoints",
            "updates": [{ "q": { "_id": self.number as i64 }, "u": { "$inc": { "sequence": 1_i64 } } }],
        };
        self.send(session, "bare", moved).await;
        session.commit_transaction().await.expect("committed");
        self.first.get_or_init(|| self.started.elapsed());
    }

    async fn send(&self, session: &mut ClientSession, database: &str, command: RawDocumentBuf) {
        let database = self.target.database(database);
        let reply = database.run_raw_command(command).session(session).await;
        let reply = reply.expect("written");
        assert!(!reply.contains_key("writeErrors"), "{reply}");
    }
}

/// What a lane has got and not yet written.
#[derive(Default)]
struct Held {
    operations: VecDeque<Operation>,
    bytes: usize,
}

impl Held {
    fn extend(&mut self, batch: Vec<Operation>) {
        self.bytes += batch.iter().map(bytes_of).sum::<usize>();
        self.operations.extend(batch);
    }

    fn is_full(&self) -> bool {
        self.operations.len() >= BATCH_OPERATIONS || self.bytes >= BATCH_BYTES
    }

    fn batch(&mut self) -> Vec<Operation> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_OPERATIONS && bytes < BATCH_BYTES {
            let Some(operation) = self.operations.pop_front() else {
                break;
            };
            bytes += bytes_of(&operation);
            batch.push(operation);
        }
        self.bytes -= bytes;
        batch
    }
}

fn bytes_of(operation: &Operation) -> usize {
    operation.statement.as_bytes().len()
}
