//! A primary of three members that steps down or is killed at each phase of a link's life.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use serde_json::Value;

use crate::cutover_late::wait_held;
use crate::ddl_crash::wait_for_open_intent;
use crate::failover::Trio;
use crate::support::env::LinkConfig;
use crate::support::load::Load;
use crate::support::mongod::Mongod;
use crate::support::oracle::Side;
use crate::support::random::seed;
use crate::support::schema::assert_same_schema;
use crate::support::tandem::Tandem;
use crate::support::wait::{wait_for, wait_for_step};

const SOON: Duration = Duration::from_secs(120);
/// Of a collection of which each side has a half before the link begins.
const ROWS: i32 = 4000;
const HELD: Duration = Duration::from_secs(2);
const TRIES_MAX: usize = 5;
const UNREACHABLE: i32 = 4;

#[derive(Debug, Clone, Copy)]
enum Fault {
    SteppedDown,
    Killed,
}

/// One life of a link.
struct Life {
    trio: Trio,
    link: LinkConfig,
    tandem: Tandem,
    fault: Fault,
}

impl Life {
    /// Slow enough to be struck amid its merge.
    async fn begin(side: Side, fault: Fault) -> Self {
        let trio = Trio::start(side).await;
        for (half, mongod) in (0..).zip([&trio.env.a, &trio.env.b]) {
            let rows = (0..ROWS).filter(|id| id % 2 == half);
            let rows = rows.map(|id| doc! { "_id": id, "seen": [], "name": id.to_string() });
            let filling = mongod.client().database("shop").collection("filling");
            filling.insert_many(rows).await.expect("filled");
        }
        let link = |apply| {
            let mut link = trio.link_at(apply);
            // Nothing else writes to `links` while a decision is held there.
            link.lease_duration = "1h".to_owned();
            link.extra("[initial_sync]\nmode = \"merge\"")
        };
        let (slow, link) = (link("operations_per_second_max = 400"), link(""));
        let tandem = trio.env.tandem(&slow);
        Self {
            trio,
            link,
            tandem,
            fault,
        }
    }

    fn mongod(&self, side: Side) -> &Mongod {
        match side {
            Side::A => &self.trio.env.a,
            Side::B => &self.trio.env.b,
        }
    }

    /// A command of tandem stands still inside the primary of `side`, once.
    async fn hold(&self, side: Side, command: &str, namespace: &str) {
        let data = doc! {
            "failCommands": [command], "namespace": namespace, "appName": "tandem",
            "blockConnection": true, "blockTimeMS": HELD.as_millis() as i64,
        };
        let primary = match side == self.trio.side() {
            true => self.trio.member(self.trio.primary().await),
            false => self.mongod(side),
        };
        primary.fail_command(doc! { "times": 1 }, data).await;
    }

    /// As a service manager does, it starts the process again where that has ended with 4.
    async fn strike(&mut self, phase: &str) {
        let side = self.trio.side();
        println!("{phase}: the primary of {side:?} is {:?}", self.fault);
        match self.fault {
            Fault::SteppedDown => self.trio.step_down().await,
            Fault::Killed => self.trio.kill_primary().await,
        }
        self.trio.wait_whole().await;
        self.go_on(phase).await;
    }

    async fn go_on(&mut self, phase: &str) {
        if !self.tandem.is_running() {
            let code = self.tandem.wait_exit(SOON).await;
            println!("{phase}: the process has ended with {code}");
            assert_eq!(code, UNREACHABLE, "{phase}\n{}", self.tandem.tail());
            self.tandem.start();
        }
    }

    /// Whatever else ends the process meanwhile.
    async fn wait_status(&mut self, phase: &str, wanted: impl Fn(&Value) -> bool) {
        let started = Instant::now();
        loop {
            self.go_on(phase).await;
            let status = self.tandem.status();
            if wanted(&status) {
                return;
            }
            let tail = || self.tandem.tail();
            assert!(started.elapsed() < SOON, "{phase}\n{status:#}\n{}", tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_streaming(&mut self, phase: &str) {
        let streams = |status: &Value| {
            let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
            let streams = |one: &Value| one["phase"] == "streaming";
            !status["pid"].is_null() && pipelines.iter().all(streams)
        };
        self.wait_status(phase, streams).await;
    }

    async fn first_start_and_merge(&mut self) -> Load {
        self.tandem.start();
        let client = self.mongod(self.trio.side()).client().clone();
        let links = client.database("__tandem").collection::<Document>("links");
        wait_for("the link is on record", SOON, || async {
            links.find_one(doc! {}).await.ok().flatten()
        })
        .await;
        self.strike("first start").await;
        let merges = |status: &Value| {
            let copied = &status["initial_sync"]["tally"]["copied"];
            copied["a"].as_u64() > Some(50) && copied["b"].as_u64() > Some(50)
        };
        self.wait_status("merge", merges).await;
        let load = Load::steady(seed("phases")).by_majority();
        let load = Load::start(&self.trio.env, load.pause(Duration::from_millis(100)));
        self.strike("merge").await;
        self.wait_streaming("merge").await;
        load
    }

    async fn recovery(&mut self) {
        self.tandem.kill9();
        tokio::time::sleep(Duration::from_secs(2)).await;
        self.tandem = self.trio.env.tandem(&self.link);
        self.tandem.start();
        let recovers =
            |status: &Value| status["state"] == "recovering" || status["state"] == "running";
        self.wait_status("recovery", recovers).await;
        self.strike("recovery").await;
        self.wait_streaming("recovery").await;
    }

    async fn resync(&mut self) {
        let mut resync = self.trio.env.tandem(&self.link);
        self.hold(self.trio.side(), "find", "shop.filling").await;
        resync.start_command(&["resync"]);
        let works = |status: &Value| {
            let job = &status["initial_sync"];
            !job.is_null() && job["state"] != "done"
        };
        self.wait_status("resync", works).await;
        self.strike("resync").await;
        self.come_to_its_end(resync, &["resync"], "resync").await;
    }

    async fn index(&mut self) {
        let side = self.trio.side();
        self.hold(side, "createIndexes", "shop.filling").await;
        let other = match side {
            Side::A => Side::B,
            Side::B => Side::A,
        };
        let index = doc! { "key": { "name": 1 }, "name": "name" };
        let shop = self.mongod(other).client().database("shop");
        let made = shop.run_command(doc! { "createIndexes": "filling", "indexes": [index] });
        made.await.expect("an index");
        wait_for_open_intent(self.mongod(side)).await;
        self.strike("createIndexes").await;
        assert_same_schema(&self.trio.env, SOON).await;
    }

    /// Two-way, so that the load may go on on the other side.
    async fn cutover(&mut self, target: Side, step: &str) {
        const ARGUMENTS: [&str; 4] = ["cutover", "--reverse", "--yes", "--skip-verify"];
        let mut cutover = self.trio.env.tandem(&self.link);
        cutover.start_command(&ARGUMENTS);
        let client = self.mongod(target).client().clone();
        if step == "decide" {
            wait_for_step(&client, "last_drain").await;
            self.hold(target, "update", "__tandem.links").await;
            wait_held(self.mongod(target), true).await;
        } else {
            wait_for_step(&client, step).await;
        }
        self.strike(step).await;
        self.come_to_its_end(cutover, &ARGUMENTS, step).await;
    }

    /// As an operator does, asks again where the answer was that a cluster cannot be reached.
    async fn come_to_its_end(&mut self, mut command: Tandem, arguments: &[&str], phase: &str) {
        for _ in 0..TRIES_MAX {
            let code = command.wait_exit(SOON).await;
            println!("{phase}: the command has ended with {code}");
            if code == 0 {
                return self.wait_streaming(phase).await;
            }
            assert_eq!(code, UNREACHABLE, "{phase}\n{}", command.tail());
            self.wait_streaming(phase).await;
            command.start_command(arguments);
        }
        panic!("{phase}: it does not come to its end\n{}", command.tail());
    }

    async fn end(mut self, load: Load) {
        load.settle(&self.trio.env, &self.tandem, SOON).await;
        assert_same_schema(&self.trio.env, SOON).await;
        for mongod in [&self.trio.env.a, &self.trio.env.b] {
            let filling = mongod.client().database("shop");
            let filling = filling.collection::<Document>("filling");
            let count = filling.count_documents(doc! {}).await.expect("counted");
            assert_eq!(count, ROWS as u64);
        }
        assert_eq!(self.tandem.total("dead_letters_total"), 0);
        self.tandem.stop().await;
    }
}

async fn every_phase(side: Side) {
    for fault in [Fault::SteppedDown, Fault::Killed] {
        let mut life = Life::begin(side, fault).await;
        let load = life.first_start_and_merge().await;
        life.recovery().await;
        life.resync().await;
        life.index().await;
        life.cutover(Side::B, "drain").await;
        life.cutover(Side::A, "decide").await;
        life.end(load).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: a set of three on a, struck at each phase of a link"]
async fn long_a_primary_of_a_that_goes_at_any_phase_loses_nothing() {
    every_phase(Side::A).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: a set of three on b, struck at each phase of a link"]
async fn long_a_primary_of_b_that_goes_at_any_phase_loses_nothing() {
    every_phase(Side::B).await;
}
