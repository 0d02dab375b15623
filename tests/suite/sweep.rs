//! Killed at the N-th call to the network or the disk, for every N: a start, a load with changes
//! and conflicts on both sides, and a stop; and an initial sync, by copy and by merge.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::{Client, Database};
use serde_json::Value;

use crate::support::compare::{Contents, contents, differences};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::oracle::History;
use crate::support::random::{Random, seed};
use crate::support::schema::assert_same_schema_in;
use crate::support::strace::{self, Call, Calls};
use crate::support::tandem::Tandem;
use crate::support::workload::{Workload, documents_of};

const SOON: Duration = Duration::from_secs(30);
/// The counted run makes more calls than others: past so many that ran to their end none is tried.
const ENDS_ENOUGH: usize = 5;
const SIGKILLED: i32 = 128 + 9;
/// Kills for each kind of calls in the suite.
const SAMPLE: Extent = Extent::Some(2);
const ONE: Extent = Extent::Some(1);
/// Of each collection of an initial sync.
const ROWS: i32 = 150;
const COPY: &str = "[initial_sync]\nmode = \"copy\"";
const MERGE: &str = "[initial_sync]\nmode = \"merge\"\n[conflicts]\nversion_field = \"at\"";
/// How long a whole sweep may take, by default for ever.
const SECONDS: &str = "TANDEM_SWEEP_SECONDS";

/// What is killed again and again.
#[derive(Debug, Clone, Copy)]
enum Scene {
    Streaming,
    Copy,
    /// Both sides hold documents, of which some differ.
    Merge,
}

/// Where the sweep stands: every round has a database of its own.
struct Sweep {
    env: TestEnv,
    scene: Scene,
    calls: Calls,
    seed: u64,
    round: usize,
}

/// How much of it.
#[derive(Debug, Clone, Copy)]
enum Extent {
    /// As many calls, of the first half: the number of calls varies from run to run.
    Some(usize),
    /// Every call, as long as there is time.
    Every(Duration),
}

/// How a round came out.
#[derive(Debug, PartialEq)]
enum Outcome {
    Killed,
    /// It made fewer calls than that.
    RanToItsEnd,
}

impl Sweep {
    fn database(&self) -> String {
        format!("sweep_{}", self.round)
    }

    fn link(&self) -> LinkConfig {
        let mut link = self.env.link().lanes(2);
        match self.scene {
            Scene::Streaming => link.include = vec!["sweep_*".to_owned()],
            Scene::Copy => link = self.only_this_round(link).extra(COPY),
            Scene::Merge => link = self.only_this_round(link).extra(MERGE),
        }
        link
    }

    fn only_this_round(&self, mut link: LinkConfig) -> LinkConfig {
        link.include = vec![format!("{}.*", self.database())];
        link.state_dir = format!("state-{}", self.round);
        link
    }

    /// A link of the initial sync leaves its state in a database of its own.
    fn tandem(&self) -> Tandem {
        let mut tandem = self.env.tandem(&self.link());
        tandem.env(strace::WORKERS.0, strace::WORKERS.1);
        if let Scene::Copy | Scene::Merge = self.scene {
            tandem.env("TANDEM_LINK__DATABASE", &format!("__tandem_{}", self.round));
        }
        tandem
    }

    /// Of the round that comes next.
    fn state_dir(&self) -> PathBuf {
        match self.scene {
            Scene::Streaming => self.env.path(&self.env.link().state_dir),
            Scene::Copy | Scene::Merge => self.env.path(&format!("state-{}", self.round + 1)),
        }
    }

    /// A run under each of these, then one without them that must bring everything to its end.
    async fn round(&mut self, wrapper: &[String], restart: Option<&[String]>) -> Outcome {
        self.round += 1;
        let mut tandem = self.tandem();
        tandem.under(wrapper);
        let (outcome, history) = match self.scene {
            Scene::Streaming => self.stream(&mut tandem).await,
            Scene::Copy => {
                self.fill_one_side().await;
                self.sync(&mut tandem).await
            }
            Scene::Merge => {
                self.fill_both_sides().await;
                self.sync(&mut tandem).await
            }
        };
        if let Some(wrapper) = restart {
            tandem
                .under(wrapper)
                .start_command(&["run", "--until-caught-up"]);
            let _ = self::outcome(tandem.wait_exit(SOON).await, &tandem);
        }
        let again = tandem.run(&["run", "--until-caught-up", "--timeout", "50s"]);
        let said = String::from_utf8_lossy(&again.stderr);
        assert_eq!(again.status.code(), Some(0), "{said}\n{}", tandem.tail());
        self.check(&tandem, &history).await;
        outcome
    }

    async fn stream(&self, tandem: &mut Tandem) -> (Outcome, History) {
        let (a, b) = (self.env.a.client(), self.env.b.client());
        let collections = ["orders", "items"].map(|name| format!("{}.{name}", self.database()));
        let names = collections.each_ref().map(String::as_str);
        let mut load = Workload::new(self.seed + self.round as u64, 20)
            .keys(8)
            .namespaces(&names)
            .transactions(15)
            .pause(Duration::from_millis(3));
        load.writers_per_side = 2;
        tandem.start();
        // Writes that meet a start are as good as those that meet a running process.
        let _ = tokio::time::timeout(SOON, tandem.ended_or_streaming()).await;
        let history = load.run(a, b).await;
        let index = doc! { "key": { "count": 1 }, "name": "count" };
        let command = doc! { "createIndexes": "orders", "indexes": [index] };
        let database = a.database(&self.database());
        database.run_command(command).await.expect("an index");
        let more = load.ids_from(1_000).run(a, b).await;
        let started = Instant::now();
        while tandem.is_running() && started.elapsed() < SOON && !self.is_converged().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if tandem.is_running() {
            tandem.sigterm();
        }
        let outcome = outcome(tandem.wait_exit(SOON).await, tandem);
        (outcome, history.merge(more))
    }

    async fn fill_one_side(&self) {
        let database = self.env.a.client().database(&self.database());
        for name in ["orders", "items"] {
            let rows = (0..ROWS).map(|id| doc! { "_id": id, "count": id, "name": "x".repeat(50) });
            let collection = database.collection::<Document>(name);
            collection.insert_many(rows).await.expect("filled");
        }
        for command in [unique_index(), view_of_orders()] {
            database.run_command(command).await.expect("made");
        }
    }

    /// Of four documents one is the same on both sides, one differs, and one is on each side alone.
    async fn fill_both_sides(&self) {
        let one = |id: i32, on: &str, at: i64| doc! { "_id": id, "count": id, "on": on, "at": at };
        let on_a = (0..ROWS).filter_map(|id| match id % 4 {
            0 => Some(one(id, "both", 1)),
            1 => Some(one(id, "a", 2)),
            2 => Some(one(id, "a", 1)),
            _ => None,
        });
        // Every other one of those that differ is later on b.
        let on_b = (0..ROWS).filter_map(|id| match id % 4 {
            0 => Some(one(id, "both", 1)),
            1 => Some(one(id, "b", if is_later_on_b(id) { 3 } else { 1 })),
            2 => None,
            _ => Some(one(id, "b", 1)),
        });
        let databases =
            [&self.env.a, &self.env.b].map(|server| server.client().database(&self.database()));
        let [a, b] = &databases;
        let orders = |database: &Database| database.collection::<Document>("orders");
        orders(a).insert_many(on_a).await.expect("filled");
        orders(b).insert_many(on_b).await.expect("filled");
        a.run_command(unique_index()).await.expect("an index");
        b.run_command(view_of_orders()).await.expect("a view");
        let items = b.collection::<Document>("items");
        let rows = (0..ROWS).map(|id| doc! { "_id": id });
        items.insert_many(rows).await.expect("filled");
    }

    async fn sync(&self, tandem: &mut Tandem) -> (Outcome, History) {
        tandem.start_command(&["run", "--until-caught-up"]);
        let outcome = outcome(tandem.wait_exit(SOON).await, tandem);
        (outcome, History::default())
    }

    async fn contents(&self, client: &Client) -> Contents {
        let mut all = contents(client).await;
        let prefix = format!("{}.", self.database());
        all.retain(|namespace, _| namespace.starts_with(&prefix));
        all
    }

    async fn is_converged(&self) -> bool {
        let (a, b) = (self.env.a.client(), self.env.b.client());
        differences(&self.contents(a).await, &self.contents(b).await).is_empty()
    }

    async fn check(&self, tandem: &Tandem, history: &History) {
        let (env, tail) = (&self.env, tandem.tail());
        let a = self.contents(env.a.client()).await;
        let found = differences(&a, &self.contents(env.b.client()).await);
        assert!(found.is_empty(), "{}\n{tail}", found.join("\n"));
        assert_same_schema_in(env, &[self.database()], SOON).await;
        let pattern = format!("{}.*", self.database());
        let records: Vec<Value> = tandem.conflicts(&["--namespace", &pattern]);
        match self.scene {
            Scene::Streaming => history.assert_accounted(&documents_of(&a), &records),
            Scene::Copy => {
                assert_eq!(records, Vec::<Value>::new());
                self.assert_whole(&a).await;
            }
            Scene::Merge => {
                assert_every_loser_once(&records);
                self.assert_whole(&a).await;
            }
        }
    }

    /// Two collections, and a view of one of them.
    async fn assert_whole(&self, contents: &Contents) {
        let counts: Vec<i32> = contents.values().map(|found| found.len() as i32).collect();
        assert_eq!(counts, [ROWS; 3]);
        self.forget().await;
    }

    async fn forget(&self) {
        for client in [self.env.a.client(), self.env.b.client()] {
            for name in [self.database(), format!("__tandem_{}", self.round)] {
                client.database(&name).drop().await.expect("dropped");
            }
        }
    }

    /// Kills at calls in a random order, and the next process at a random one.
    async fn run(&mut self, extent: Extent) {
        let (file, calls) = (self.env.path("calls"), self.calls);
        let counted = strace::counted(calls, &self.state_dir(), &file);
        assert_eq!(self.round(&counted, None).await, Outcome::RanToItsEnd);
        let all = strace::all_calls(calls, &file);
        let mut random = Random::new(self.seed).fork(7);
        let (mut left, tries_max, budget) = match extent {
            // A busier run makes fewer calls than the one that was counted.
            Extent::Some(tries) => (strace::early(&all), tries, Duration::MAX),
            Extent::Every(budget) => (strace::of_this_part(&all), all.len(), budget),
        };
        let (started, mut tried, mut killed, mut ended) = (Instant::now(), 0, 0, Vec::new());
        while tried < tries_max && started.elapsed() < budget && !left.is_empty() {
            let call = left.swap_remove(random.below(left.len() as u64) as usize);
            let is_before = |end: &&Call| end.0 == call.0 && end.1 < call.1;
            if ended.iter().filter(is_before).count() >= ENDS_ENOUGH {
                continue;
            }
            let next = *random.pick(&all);
            tried += 1;
            println!("round {}: {call:?}, then {next:?}", self.round + 1);
            let state = self.state_dir();
            let at = |call| strace::killed_at(calls, call, &state);
            match self.round(&at(call), Some(&at(next))).await {
                Outcome::Killed => killed += 1,
                Outcome::RanToItsEnd => ended.push(call),
            }
        }
        let (scene, count, left) = (self.scene, all.len(), left.len());
        println!(
            "{scene:?}, {calls:?}: {count} calls, {tried} tried, {killed} killed, {left} not tried"
        );
        assert!(killed > 0, "nothing was killed");
    }
}

fn unique_index() -> Document {
    let unique = doc! { "key": { "count": 1 }, "name": "count", "unique": true };
    doc! { "createIndexes": "orders", "indexes": [unique] }
}

fn view_of_orders() -> Document {
    doc! { "create": "seen", "viewOn": "orders", "pipeline": [] }
}

/// Of documents that differ in a merge.
fn is_later_on_b(id: i32) -> bool {
    id % 8 == 5
}

fn assert_every_loser_once(records: &[Value]) {
    let mut lost: Vec<(i32, &str)> = records
        .iter()
        .map(|record| {
            let id = record["document_key"]["_id"]["$numberInt"].as_str();
            let on = record["losing"]["document"]["on"].as_str();
            (
                id.expect("a number").parse().expect("a number"),
                on.expect("a side"),
            )
        })
        .collect();
    lost.sort_unstable();
    let differing = (0..ROWS).filter(|id| id % 4 == 1);
    let expected: Vec<(i32, &str)> = differing
        .map(|id| (id, if is_later_on_b(id) { "a" } else { "b" }))
        .collect();
    assert_eq!(lost, expected);
}

fn outcome(code: i32, tandem: &Tandem) -> Outcome {
    match code {
        SIGKILLED => Outcome::Killed,
        0 => Outcome::RanToItsEnd,
        code => panic!("it ended with {code}\n{}", tandem.tail()),
    }
}

async fn sweep(scene: Scene, all: &[Calls], extent: Extent) {
    if !strace::is_usable() {
        return;
    }
    let mut sweep = Sweep {
        env: TestEnv::start().await,
        scene,
        calls: all[0],
        seed: seed("sweep"),
        round: 0,
    };
    for calls in all {
        sweep.calls = *calls;
        sweep.run(extent).await;
    }
}

fn every_call() -> Extent {
    let seconds = std::env::var(SECONDS).map(|text| text.parse().expect("a number of seconds"));
    let share = |seconds: u64| Duration::from_secs(seconds) / KINDS.len() as u32;
    Extent::Every(seconds.map_or(Duration::MAX, share))
}

const KINDS: [Calls; 3] = [Calls::Network, Calls::Disk, Calls::Marker];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_some_calls_to_network_and_disk_it_loses_nothing() {
    sweep(Scene::Streaming, &[Calls::Network, Calls::Disk], SAMPLE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes, or what TANDEM_SWEEP_SECONDS says"]
async fn sweep_of_kills_at_every_call_of_a_running_link_loses_nothing() {
    sweep(Scene::Streaming, &KINDS, every_call()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_some_calls_of_an_initial_sync_it_copies_everything_once() {
    sweep(Scene::Copy, &[Calls::Network, Calls::Marker], ONE).await;
    sweep(Scene::Merge, &[Calls::Network], ONE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes, or what TANDEM_SWEEP_SECONDS says"]
async fn sweep_of_kills_at_every_call_of_an_initial_sync_copies_everything_once() {
    sweep(Scene::Copy, &KINDS, every_call()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes, or what TANDEM_SWEEP_SECONDS says"]
async fn sweep_of_kills_at_every_call_of_a_merge_keeps_every_document_and_every_loser() {
    sweep(Scene::Merge, &KINDS, every_call()).await;
}
