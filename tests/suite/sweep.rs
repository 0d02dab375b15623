//! Killed at the N-th call to the network or the disk, for every N: a start, a load with changes
//! and conflicts on both sides, and a stop; and an initial sync.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Client;
use serde_json::Value;

use crate::support::compare::{Contents, contents, differences};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::oracle::History;
use crate::support::random::{Random, seed};
use crate::support::schema::assert_same_schema_in;
use crate::support::strace::{self, Calls};
use crate::support::tandem::Tandem;
use crate::support::workload::{Workload, documents_of};

const SOON: Duration = Duration::from_secs(30);
const SIGKILLED: i32 = 128 + 9;
/// Kills for each kind of calls in the suite.
const SAMPLE: Extent = Extent::Some(2);
/// Of each collection of an initial sync.
const ROWS: usize = 150;
/// How long a whole sweep may take, by default for ever.
const SECONDS: &str = "TANDEM_SWEEP_SECONDS";

/// What is killed again and again.
#[derive(Debug, Clone, Copy)]
enum Scene {
    Streaming,
    InitialSync,
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
            Scene::InitialSync => {
                link.include = vec![format!("{}.*", self.database())];
                link.state_dir = format!("state-{}", self.round);
                link.extra = "[initial_sync]\nmode = \"copy\"\n".to_owned();
            }
        }
        link
    }

    /// A link of the initial sync leaves its state in a database of its own.
    fn tandem(&self) -> Tandem {
        let mut tandem = self.env.tandem(&self.link());
        tandem.env(strace::WORKERS.0, strace::WORKERS.1);
        if let Scene::InitialSync = self.scene {
            tandem.env("TANDEM_LINK__DATABASE", &format!("__tandem_{}", self.round));
        }
        tandem
    }

    /// One run under `wrapper`, then one without it that must bring everything to its end.
    async fn round(&mut self, wrapper: &[String]) -> Outcome {
        self.round += 1;
        let mut tandem = self.tandem();
        tandem.under(wrapper);
        let (outcome, history) = match self.scene {
            Scene::Streaming => self.stream(&mut tandem).await,
            Scene::InitialSync => self.copy(&mut tandem).await,
        };
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

    async fn copy(&self, tandem: &mut Tandem) -> (Outcome, History) {
        let database = self.env.a.client().database(&self.database());
        for name in ["orders", "items"] {
            let rows =
                (0..ROWS as i32).map(|id| doc! { "_id": id, "count": id, "name": "x".repeat(50) });
            let collection = database.collection::<Document>(name);
            collection.insert_many(rows).await.expect("filled");
        }
        let unique = doc! { "key": { "count": 1 }, "name": "count", "unique": true };
        for command in [
            doc! { "createIndexes": "orders", "indexes": [unique] },
            doc! { "create": "seen", "viewOn": "orders", "pipeline": [] },
        ] {
            database.run_command(command).await.expect("made");
        }
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
            Scene::InitialSync => {
                assert_eq!(records, Vec::<Value>::new());
                // Two collections, and a view of one of them.
                let counts: Vec<usize> = a.values().map(|found| found.len()).collect();
                assert_eq!(counts, [ROWS; 3]);
                self.forget().await;
            }
        }
    }

    async fn forget(&self) {
        for client in [self.env.a.client(), self.env.b.client()] {
            for name in [self.database(), format!("__tandem_{}", self.round)] {
                client.database(&name).drop().await.expect("dropped");
            }
        }
    }

    /// Kills at calls in a random order.
    async fn run(&mut self, extent: Extent) {
        let (file, calls) = (self.env.path("calls"), self.calls);
        let counted = self.round(&strace::counted(calls, &file)).await;
        assert_eq!(counted, Outcome::RanToItsEnd);
        let count = strace::most_calls(&file);
        let mut random = Random::new(self.seed).fork(7);
        let (last, tries_max, budget) = match extent {
            // A busier run makes fewer calls than the one that was counted.
            Extent::Some(tries) => (count.div_ceil(4), tries, Duration::MAX),
            Extent::Every(budget) => (count, count, budget),
        };
        let mut left: Vec<usize> = (1..=last).collect();
        let (started, mut tried, mut killed) = (Instant::now(), 0, 0);
        while tried < tries_max && started.elapsed() < budget && !left.is_empty() {
            let number = left.swap_remove(random.below(left.len() as u64) as usize);
            println!(
                "round {}: {calls:?} call {number} of {count}",
                self.round + 1
            );
            tried += 1;
            let outcome = self.round(&strace::killed_at(calls, number)).await;
            killed += usize::from(outcome == Outcome::Killed);
        }
        println!(
            "{:?}, {calls:?}: {count} calls, {tried} tried, {killed} killed",
            self.scene
        );
        assert!(killed > 0, "nothing was killed");
    }
}

fn outcome(code: i32, tandem: &Tandem) -> Outcome {
    match code {
        SIGKILLED => Outcome::Killed,
        0 => Outcome::RanToItsEnd,
        code => panic!("it ended with {code}\n{}", tandem.tail()),
    }
}

async fn sweep(scene: Scene, all: [Calls; 2], extent: Extent) {
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
        sweep.calls = calls;
        sweep.run(extent).await;
    }
}

fn every_call() -> Extent {
    let seconds = std::env::var(SECONDS).map(|text| text.parse().expect("a number of seconds"));
    // Two kinds of calls share it.
    let half = |seconds: u64| Duration::from_secs(seconds) / 2;
    Extent::Every(seconds.map_or(Duration::MAX, half))
}

const BOTH: [Calls; 2] = [Calls::Network, Calls::Disk];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_some_calls_to_network_and_disk_it_loses_nothing() {
    sweep(Scene::Streaming, BOTH, SAMPLE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes, or what TANDEM_SWEEP_SECONDS says"]
async fn sweep_of_kills_at_every_call_of_a_running_link_loses_nothing() {
    sweep(Scene::Streaming, BOTH, every_call()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes many minutes, or what TANDEM_SWEEP_SECONDS says"]
async fn sweep_of_kills_at_every_call_of_an_initial_sync_copies_everything_once() {
    sweep(Scene::InitialSync, BOTH, every_call()).await;
}
