//! The same backlog drained by a bare loop: one cursor, lanes by key, grouped transactions with
//! majority, and none of what makes it safe. It is the limit of what goes through one process.
//!
//! It asks for the events that tandem asks for, and sends the statements that tandem sends.

mod lanes;
mod reading;

use std::time::{Duration, Instant};

use bson::raw::CStr;
use bson::{RawDocumentBuf, Timestamp, cstr, doc};

use crate::backlog::Backlog;
use crate::measured::Drain;
use crate::resources::{Servers, own_cpu_seconds};
use crate::roomy;
use crate::support::mongod::Mongod;
use crate::through_tandem::compare;
use lanes::Lanes;

/// As tandem has them by default.
const LANES: usize = 4;
const BATCH_OPERATIONS: usize = 1000;
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// One statement, and the command it goes into.
struct Operation {
    collection: usize,
    verb: Verb,
    lane: usize,
    statement: RawDocumentBuf,
}

/// In the order in which a transaction has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verb {
    Delete,
    Insert,
    Update,
}

impl Verb {
    /// The command, and the list in it.
    fn names(self) -> (&'static CStr, &'static CStr) {
        match self {
            Verb::Delete => (cstr!("delete"), cstr!("deletes")),
            Verb::Insert => (cstr!("insert"), cstr!("documents")),
            Verb::Update => (cstr!("update"), cstr!("updates")),
        }
    }
}

/// All of the loop, and each half of it without the other.
pub struct Bare {
    pub whole: Drain,
    pub reading: Drain,
    pub writing: Drain,
}

pub async fn drain(backlog: &Backlog) -> Drain {
    Pair::start(backlog).await.drain(backlog).await
}

pub async fn drain_in_parts(backlog: &Backlog) -> Bare {
    let pair = Pair::start(backlog).await;
    let whole = pair.drain(backlog).await;
    let (reading, operations) = pair.read_all(backlog).await;
    drop(pair);
    let target = prepared(backlog, "bare-c").await;
    Bare {
        whole,
        reading,
        writing: write_all(&target, operations).await,
    }
}

/// A source with a backlog, and the target that is to get it.
struct Pair {
    source: Mongod,
    target: Mongod,
    from: Timestamp,
}

/// What runs meanwhile, from here on.
struct Clock {
    servers: Servers,
    cpu_seconds: f64,
    started: Instant,
}

impl Clock {
    async fn start(source: Option<&Mongod>, target: Option<&Mongod>) -> Self {
        Self {
            servers: Servers::watch(source, target).await,
            cpu_seconds: own_cpu_seconds(),
            started: Instant::now(),
        }
    }

    fn stop(self, operations: usize, first: Option<Duration>) -> Drain {
        let time = self.started.elapsed();
        Drain {
            operations,
            time,
            first,
            cpu: self.servers.taken(own_cpu_seconds() - self.cpu_seconds),
            ..Drain::default()
        }
    }
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

    async fn drain(&self, backlog: &Backlog) -> Drain {
        let clock = Clock::start(Some(&self.source), Some(&self.target)).await;
        let lanes = Lanes::start(self.target.client(), clock.started);
        let source = self.source.client();
        reading::read(source, self.from, backlog.operations, |some| {
            lanes.hand_out(some)
        })
        .await;
        let first = lanes.finish().await;
        let drain = clock.stop(backlog.operations, first);
        compare(&self.source, &self.target).await;
        drain
    }

    async fn read_all(&self, backlog: &Backlog) -> (Drain, Vec<Operation>) {
        let mut operations = Vec::with_capacity(backlog.operations);
        let clock = Clock::start(Some(&self.source), None).await;
        let source = self.source.client();
        reading::read(source, self.from, backlog.operations, |some| {
            operations.extend(some);
            std::future::ready(())
        })
        .await;
        (clock.stop(backlog.operations, None), operations)
    }
}

async fn prepared(backlog: &Backlog, name: &str) -> Mongod {
    let mongod = Mongod::start(roomy(name)).await;
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

async fn write_all(target: &Mongod, operations: Vec<Operation>) -> Drain {
    let count = operations.len();
    let clock = Clock::start(None, Some(target)).await;
    let lanes = Lanes::start(target.client(), clock.started);
    let mut operations = operations.into_iter().peekable();
    while operations.peek().is_some() {
        let some = operations.by_ref().take(BATCH_OPERATIONS).collect();
        lanes.hand_out(some).await;
    }
    let first = lanes.finish().await;
    clock.stop(count, first)
}
