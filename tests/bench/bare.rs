//! The same backlog drained by a bare loop: one cursor, lanes by key, grouped transactions with
//! majority, and none of what makes it safe. It is the limit of what goes through one process.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::{Duration, Instant};

use bson::raw::CStr;
use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, cstr, doc, rawdoc};
use futures_util::StreamExt;
use mongodb::options::{CursorType, ReadConcern, WriteConcern};
use mongodb::{Client, ClientSession};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::backlog::Backlog;
use crate::report::Bare;
use crate::resources::own_cpu_seconds;
use crate::support::mongod::{Mongod, MongodOptions};
use crate::{CACHE_GIGABYTES, OPLOG_MEGABYTES};

/// As tandem has them by default.
const LANES: usize = 4;
const BATCH_OPERATIONS: usize = 1000;
const CURSOR_EVENTS: u32 = 1000;
const AWAIT_TIME: Duration = Duration::from_millis(500);

/// Batches between the reader and a lane.
const QUEUED: usize = 4;

/// One statement, and the command it goes into.
struct Operation {
    verb: Verb,
    lane: usize,
    statement: RawDocumentBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Verb {
    Delete,
    Insert,
    Update,
}

/// Drains the backlog three times: all of the loop, its reading alone, its writing alone.
pub async fn drain(backlog: &Backlog) -> Bare {
    let pair = Pair::start(backlog).await;
    let (read_alone, operations) = pair.read_all(backlog).await;
    let cpu_before = own_cpu_seconds();
    let time = pair.read_and_write(backlog).await;
    let cpu_seconds = own_cpu_seconds() - cpu_before;
    pair.compare().await;
    drop(pair);
    let target = prepared(backlog, "bare-c").await;
    let write_alone = write_all(&target, operations).await;
    let rate = |time: Duration| backlog.operations as f64 / time.as_secs_f64();
    Bare {
        time,
        cpu_seconds,
        read_alone: rate(read_alone),
        write_alone: rate(write_alone),
    }
}

struct Pair {
    source: Mongod,
    target: Mongod,
    from: Timestamp,
}

impl Pair {
    async fn start(backlog: &Backlog) -> Self {
        let (source, target) =
            tokio::join!(prepared(backlog, "bare-a"), prepared(backlog, "bare-b"));
        let hello = source.admin(doc! { "hello": 1 }).await;
        let from = hello.get_timestamp("operationTime").expect("a time");
        let from = Timestamp {
            time: from.time,
            increment: from.increment + 1,
        };
        backlog.write(source.client()).await;
        Self {
            source,
            target,
            from,
        }
    }

    async fn read_all(&self, backlog: &Backlog) -> (Duration, Vec<Operation>) {
        let mut operations = Vec::with_capacity(backlog.operations);
        let started = Instant::now();
        read(
            self.source.client(),
            self.from,
            backlog.operations,
            |some| {
                operations.extend(some);
                std::future::ready(())
            },
        )
        .await;
        (started.elapsed(), operations)
    }

    async fn read_and_write(&self, backlog: &Backlog) -> Duration {
        let started = Instant::now();
        let (senders, mut lanes) = start_lanes(self.target.client());
        read(
            self.source.client(),
            self.from,
            backlog.operations,
            |some| hand_out(&senders, some),
        )
        .await;
        finish(senders, &mut lanes).await;
        started.elapsed()
    }

    async fn compare(&self) {
        let count = |mongod: &Mongod| {
            let orders = mongod
                .client()
                .database("shop")
                .collection::<bson::Document>("orders");
            async move { orders.count_documents(doc! {}).await.expect("counted") }
        };
        assert_eq!(count(&self.source).await, count(&self.target).await);
    }
}

async fn prepared(backlog: &Backlog, name: &str) -> Mongod {
    let mongod = Mongod::start(MongodOptions {
        oplog_megabytes: OPLOG_MEGABYTES,
        cache_gigabytes: CACHE_GIGABYTES,
        ..MongodOptions::named(name)
    })
    .await;
    backlog.prepare(mongod.client()).await;
    // Made before the clock runs, as tandem's own collections are.
    mongod
        .client()
        .database("bare")
        .create_collection("checkpoints")
        .await
        .expect("created");
    mongod
}

async fn write_all(target: &Mongod, operations: Vec<Operation>) -> Duration {
    let started = Instant::now();
    let (senders, mut lanes) = start_lanes(target.client());
    let mut operations = operations.into_iter().peekable();
    while operations.peek().is_some() {
        let some: Vec<Operation> = operations.by_ref().take(BATCH_OPERATIONS).collect();
        hand_out(&senders, some).await;
    }
    finish(senders, &mut lanes).await;
    started.elapsed()
}

type Senders = Vec<mpsc::Sender<Vec<Operation>>>;

fn start_lanes(target: &Client) -> (Senders, JoinSet<()>) {
    let mut lanes = JoinSet::new();
    let senders = (0..LANES).map(|lane| {
        let (sender, receiver) = mpsc::channel(QUEUED);
        lanes.spawn(run_lane(target.clone(), lane, receiver));
        sender
    });
    (senders.collect(), lanes)
}

async fn hand_out(senders: &Senders, operations: Vec<Operation>) {
    let mut parts: Vec<Vec<Operation>> = (0..LANES).map(|_| Vec::new()).collect();
    for operation in operations {
        parts[operation.lane].push(operation);
    }
    for (sender, part) in senders.iter().zip(parts) {
        sender.send(part).await.expect("the lane lives");
    }
}

async fn finish(senders: Senders, lanes: &mut JoinSet<()>) {
    drop(senders);
    while let Some(ended) = lanes.join_next().await {
        ended.expect("the lane ends");
    }
}

/// Reads `count` events, and hands over the statements of each of the cursor's batches.
async fn read<F: Future<Output = ()>>(
    source: &Client,
    from: Timestamp,
    count: usize,
    mut take: impl FnMut(Vec<Operation>) -> F,
) {
    let command = rawdoc! {
        "aggregate": 1,
        "pipeline": [
            { "$changeStream": { "allChangesForCluster": true, "startAtOperationTime": from } },
            { "$match": { "ns.db": "shop" } },
        ],
        "cursor": {},
        "readConcern": { "level": "majority" },
    };
    let admin = source.database("admin");
    let mut cursor = admin
        .run_raw_cursor_command(command)
        .cursor_type(CursorType::TailableAwait)
        .max_time(AWAIT_TIME)
        .batch_size(CURSOR_EVENTS)
        .batch()
        .await
        .expect("a cursor");
    let mut seen = 0;
    while seen < count {
        let batch = cursor.next().await.expect("a batch").expect("read");
        let events = batch.doc_slices().expect("events");
        let operations: Vec<Operation> = events
            .into_iter()
            .filter_map(|event| operation_of(event.ok()?.as_document()?))
            .collect();
        seen += operations.len();
        take(operations).await;
    }
}

fn operation_of(event: &RawDocument) -> Option<Operation> {
    let key = event.get_document("documentKey").ok()?;
    let mut statement = RawDocumentBuf::new();
    let verb = match event.get_str("operationType").ok()? {
        "insert" => {
            statement = event.get_document("fullDocument").ok()?.to_owned();
            Verb::Insert
        }
        "update" => {
            let description = event.get_document("updateDescription").ok()?;
            let mut operators = RawDocumentBuf::new();
            operators.append(
                cstr!("$set"),
                description.get_document("updatedFields").ok()?,
            );
            statement.append(cstr!("q"), key);
            statement.append(cstr!("u"), operators);
            Verb::Update
        }
        "delete" => {
            statement.append(cstr!("q"), key);
            statement.append(cstr!("limit"), 1);
            Verb::Delete
        }
        _ => return None,
    };
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key.as_bytes());
    let lane = (hash % LANES as u64) as usize;
    Some(Operation {
        verb,
        lane,
        statement,
    })
}

async fn run_lane(target: Client, lane: usize, mut batches: mpsc::Receiver<Vec<Operation>>) {
    let checkpoints = target
        .database("bare")
        .collection::<bson::Document>("checkpoints");
    let first = doc! { "_id": lane as i64, "sequence": 0_i64 };
    checkpoints.insert_one(first).await.expect("inserted");
    let mut session = target.start_session().await.expect("a session");
    let mut held: Vec<Operation> = Vec::new();
    let mut over = false;
    while !over {
        match batches.recv().await {
            Some(batch) => held.extend(batch),
            None => over = true,
        }
        while let Ok(batch) = batches.try_recv() {
            held.extend(batch);
        }
        while held.len() >= BATCH_OPERATIONS || (over && !held.is_empty()) {
            let rest = held.split_off(held.len().min(BATCH_OPERATIONS));
            let batch = std::mem::replace(&mut held, rest);
            commit(&target, &mut session, lane, batch).await;
        }
    }
}

async fn commit(target: &Client, session: &mut ClientSession, lane: usize, batch: Vec<Operation>) {
    let mut groups: HashMap<Verb, RawArrayBuf> = HashMap::new();
    for operation in batch {
        let group = groups.entry(operation.verb).or_default();
        group.push(operation.statement);
    }
    session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(WriteConcern::majority())
        .await
        .expect("begun");
    for verb in [Verb::Delete, Verb::Insert, Verb::Update] {
        let Some(statements) = groups.remove(&verb) else {
            continue;
        };
        let (name, field): (&CStr, &CStr) = match verb {
            Verb::Delete => (cstr!("delete"), cstr!("deletes")),
            Verb::Insert => (cstr!("insert"), cstr!("documents")),
            Verb::Update => (cstr!("update"), cstr!("updates")),
        };
        let mut command = RawDocumentBuf::new();
        command.append(name, "orders");
        command.append(field, statements);
        run(target, session, "shop", command).await;
    }
    let moved = rawdoc! {
        "update": "checkpoints",
        "updates": [{ "q": { "_id": lane as i64 }, "u": { "$inc": { "sequence": 1_i64 } } }],
    };
    run(target, session, "bare", moved).await;
    session.commit_transaction().await.expect("committed");
}

async fn run(
    target: &Client,
    session: &mut ClientSession,
    database: &str,
    command: RawDocumentBuf,
) {
    let database = target.database(database);
    let reply = database.run_raw_command(command).session(session).await;
    let reply = reply.expect("written");
    assert!(!reply.contains_key("writeErrors"), "{reply}");
}
