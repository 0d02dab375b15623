//! The backlog drained by tandem, with what the processes took for it.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::{Client, Collection};

use crate::backlog::{Backlog, Place};
use crate::measured::Drain;
use crate::resources::{Memory, Resources, Servers};
use crate::support::env::TestEnv;
use crate::support::mongod::Mongod;
use crate::support::tandem::Tandem;
use crate::{DRAIN_TIME_MAX, roomy};

const POLL: Duration = Duration::from_millis(10);

/// Only until the first operation has arrived: a read of one document.
const FIRST_POLL: Duration = Duration::from_millis(5);

/// What a link is told beside what is usual; lines of the table `apply`.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub lanes: Option<u32>,
    pub apply: String,
}

/// One whole `tandem run --until-caught-up`: start, take over, read, apply, stop.
pub async fn drain(backlog: &Backlog) -> Drain {
    drain_with(backlog, &Settings::default()).await
}

pub async fn drain_with(backlog: &Backlog, settings: &Settings) -> Drain {
    let env = TestEnv::start_with(roomy("eu-set"), roomy("us-set")).await;
    tokio::join!(
        backlog.prepare(env.a.client()),
        backlog.prepare(env.b.client())
    );
    let mut tandem = linked(&env, backlog, settings).await;
    backlog.write(env.a.client()).await;
    if backlog.place == Place::BothSides {
        backlog.write_elsewhere(env.b.client()).await;
    }
    let first = Some(backlog.first_operation());
    let mut drain = run_to_the_end(&env, &mut tandem, first).await;
    drain.operations = backlog.drained();
    compare(&env.a, &env.b).await;
    drain
}

/// A link that has run before, and does not now.
async fn linked(env: &TestEnv, backlog: &Backlog, settings: &Settings) -> Tandem {
    let link = match backlog.place {
        Place::OneWay => env.link().one_way(),
        Place::OneSide | Place::BothSides => env.link(),
    };
    let link = match settings.lanes {
        Some(lanes) => link.lanes(lanes),
        None => link,
    };
    let mut tandem = env.streaming(&link.extra(&settings.apply)).await;
    tandem.stop().await;
    tandem
}

/// From the start of the process until it has ended. What is looked for meanwhile is a document of `b`.
pub async fn run_to_the_end(
    env: &TestEnv,
    tandem: &mut Tandem,
    first: Option<(String, Document)>,
) -> Drain {
    let servers = Servers::watch(Some(&env.a), Some(&env.b)).await;
    let mut memory = Memory::default();
    let mut cpu_seconds = 0.0;
    tandem.run_with(&["--until-caught-up"]);
    let started = Instant::now();
    tandem.start();
    let target = env.b.client().clone();
    let first = tokio::spawn(async move { arrival(target, first?, started).await });
    while tandem.is_running() {
        if let Some(now) = Resources::of(tandem.pid()) {
            memory.push(started.elapsed(), &now);
            cpu_seconds = now.cpu_seconds;
        }
        assert!(started.elapsed() < DRAIN_TIME_MAX, "tandem never arrives");
        tokio::time::sleep(POLL).await;
    }
    let time = started.elapsed();
    let cpu = servers.taken(cpu_seconds);
    let code = tandem.wait_exit(DRAIN_TIME_MAX).await;
    assert_eq!(code, 0, "{}", tandem.log());
    let first = match first.is_finished() {
        true => first.await.expect("it was looked for"),
        false => {
            first.abort();
            None
        }
    };
    Drain {
        operations: 0,
        time,
        first,
        cpu,
        memory,
    }
}

/// None where the document was there before.
async fn arrival(
    target: Client,
    (collection, filter): (String, Document),
    started: Instant,
) -> Option<Duration> {
    let collection: Collection<Document> = target.database("shop").collection(&collection);
    let find = || collection.find_one(filter.clone());
    if find().await.expect("read").is_some() {
        return None;
    }
    while find().await.expect("read").is_none() {
        tokio::time::sleep(FIRST_POLL).await;
    }
    Some(started.elapsed())
}

/// Both sides hold the same documents.
pub async fn compare(one: &Mongod, other: &Mongod) {
    let hash = |side: &Mongod| {
        let shop = side.client().database("shop");
        async move {
            let reply = shop.run_command(doc! { "dbHash": 1 }).await;
            let reply = reply.expect("dbHash");
            reply.get_str("md5").expect("a hash").to_owned()
        }
    };
    let (one, other) = tokio::join!(hash(one), hash(other));
    assert_eq!(one, other, "hashes of all documents");
}
