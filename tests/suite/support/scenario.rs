//! Scenarios that must come out the same whether they are copied or streamed.
//!
//! A scenario writes into a database of its own on `a`. All scenarios of a group share two
//! clusters and one tandem for each phase; in the end both clusters must be the same in every byte,
//! option and index.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, Collection, Database};
use serde_json::Value;
use tokio::task::JoinSet;

use super::compare::assert_converged;
use super::env::TestEnv;
use super::mongod::MongodOptions;
use super::schema::assert_same_schema_in;
use super::tandem::Tandem;

const SOON: Duration = Duration::from_secs(90);

/// Databases of scenarios begin like this.
const PREFIX: &str = "s_";

/// A server takes names of databases up to 63 bytes.
const DATABASE_BYTES_MAX: usize = 63;

/// When a scenario is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before tandem starts, which copies what is there.
    Copied,
    /// While tandem streams.
    Streamed,
}

/// Where a scenario writes.
#[derive(Clone)]
pub struct Scene {
    pub client: Client,
    pub database: Database,
    exceptions: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    pub fn collection(&self, name: &str) -> Collection<Document> {
        self.database.collection(name)
    }

    pub fn raw(&self, name: &str) -> Collection<RawDocumentBuf> {
        self.database.collection(name)
    }

    /// Runs a command; panics where the server refuses.
    pub async fn run(&self, command: Document) -> Document {
        let shown = command.to_string();
        let reply = self.database.run_command(command).await;
        reply.unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    /// Expects that `status` names this collection as not replicated, and compares nothing of it.
    pub fn is_not_kept(&self, name: &str) {
        let full = format!("{}.{name}", self.database.name());
        self.exceptions.lock().expect("no panic").push(full);
    }
}

type Written = Pin<Box<dyn Future<Output = ()> + Send>>;

pub struct Scenario {
    pub name: &'static str,
    pub write: fn(Scene) -> Written,
}

/// A list of scenarios by the names of their functions.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        &[$($crate::support::scenario::Scenario {
            name: stringify!($name),
            write: |scene| Box::pin($name(scene)),
        }),*]
    };
}
pub(crate) use scenarios;

/// Writes all scenarios in `phase` and compares both clusters. `TANDEM_TEST_SCENARIO` picks those
/// whose name contains it.
pub async fn play(scenarios: &[Scenario], phase: Phase, mode: &str) {
    let named = |set: &str| MongodOptions::named(set).with_large_cache();
    let env = TestEnv::start_with(named("eu-set"), named("us-set")).await;
    let mut link = env.link().extra("[initial_sync]\nmode = \"copy\"");
    link.mode = mode.to_owned();
    link.include = vec![format!("{PREFIX}*")];
    let mut tandem = env.tandem(&link);
    tandem.run_with(&["-v"]);
    if phase == Phase::Streamed {
        tandem.start();
        tandem.wait_until_streaming().await;
        copied(&tandem).await;
    }
    let wanted = std::env::var("TANDEM_TEST_SCENARIO").unwrap_or_default();
    let chosen = scenarios.iter().filter(|one| one.name.contains(&wanted));
    let exceptions: Arc<Mutex<Vec<String>>> = Arc::default();
    let scene = |scenario: &Scenario| {
        let mut database = format!("{PREFIX}{}", scenario.name);
        database.truncate(DATABASE_BYTES_MAX);
        Scene {
            client: env.a.client().clone(),
            database: env.a.client().database(&database),
            exceptions: exceptions.clone(),
        }
    };
    let mut writing = JoinSet::new();
    for scenario in chosen {
        writing.spawn((scenario.write)(scene(scenario)));
    }
    let mut broken = 0;
    while let Some(ended) = writing.join_next().await {
        broken += u32::from(ended.is_err());
    }
    assert_eq!(broken, 0, "scenarios that cannot be written");
    if phase == Phase::Copied {
        tandem.start();
        tandem.wait_until_streaming().await;
        copied(&tandem).await;
    }
    let exceptions = exceptions.lock().expect("no panic").clone();
    compare(&env, &tandem, &exceptions).await;
    tandem.stop().await;
}

async fn copied(tandem: &Tandem) {
    let is_done = |status: &Value| status["initial_sync"]["state"] == "done";
    tandem.wait_status("the copy is done", SOON, is_done).await;
}

async fn compare(env: &TestEnv, tandem: &Tandem, exceptions: &[String]) {
    for name in exceptions {
        let named = |status: &Value| {
            let unpaired = status["unpaired_namespaces"].as_array();
            let not_done = status["initial_sync"]["not_done"].as_array();
            let not_done = not_done.into_iter().flatten().map(|one| &one["namespace"]);
            let mut names = unpaired.into_iter().flatten().chain(not_done);
            names.any(|found| found == name)
        };
        let what = format!("{name} is named in status");
        tandem.wait_status(&what, SOON, named).await;
    }
    for client in [env.a.client(), env.b.client()] {
        for name in exceptions {
            let (database, collection) = name.split_once('.').expect("a namespace");
            let collection = client.database(database).collection::<Document>(collection);
            collection.drop().await.expect("dropped");
        }
    }
    let idle = |status: &Value| {
        let pipelines = status["pipelines"].as_array().expect("pipelines").iter();
        pipelines
            .map(|one| one["lag_seconds"].clone())
            .all(|lag| lag == 0.0)
    };
    tandem.wait_status("nothing waits", SOON, idle).await;
    assert_same_schema_in(env, &databases(env).await, SOON).await;
    assert_converged(env, SOON).await;
    assert_eq!(tandem.total("dead_letters_total"), 0, "dead letters");
    let lost = tandem.conflicts(&[]).into_iter();
    let lost: Vec<Value> = lost.filter(|record| record["kind"] != "ddl").collect();
    assert_eq!(lost, Vec::<Value>::new());
    let status = tandem.status();
    assert_eq!(status["index_problems"], serde_json::json!([]));
    let not_done = status["initial_sync"]["not_done"].as_array();
    for one in not_done.into_iter().flatten() {
        let name = one["namespace"].as_str().unwrap_or_default();
        assert!(exceptions.iter().any(|found| found == name), "{one}");
    }
}

async fn databases(env: &TestEnv) -> Vec<String> {
    let mut names = Vec::new();
    for client in [env.a.client(), env.b.client()] {
        names.extend(client.list_database_names().await.expect("databases"));
    }
    names.retain(|name| name.starts_with(PREFIX));
    names.sort();
    names.dedup();
    names
}

/// All documents of a collection in natural order.
pub async fn natural(client: &Client, database: &str, name: &str) -> Vec<RawDocumentBuf> {
    let collection = client.database(database).collection(name);
    let cursor = collection.find(doc! {}).sort(doc! { "$natural": 1 }).await;
    cursor.expect("find").try_collect().await.expect("read")
}
