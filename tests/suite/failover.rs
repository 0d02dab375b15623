//! Primaries that step down, die, freeze and take back what nobody had confirmed.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::options::WriteConcern;

use crate::support::compare::{assert_converged, assert_converged_by};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::load::{Load, assert_settled};
use crate::support::mongod::{Mongod, MongodOptions};
use crate::support::oracle::Side;
use crate::support::random::{scaled, seed};
use crate::support::replica_set::{Others, start_three};
use crate::support::tandem::Tandem;
use crate::support::workload::Workload;

const SOON: Duration = Duration::from_secs(90);

/// Three members on one side, one on the other.
pub struct Trio {
    pub env: TestEnv,
    others: Others,
    side: Side,
}

impl Trio {
    pub async fn start(side: Side) -> Self {
        let options = MongodOptions::named;
        let (env, others) = match side {
            Side::A => {
                let ((a, others), b) = tokio::join!(
                    start_three(options("eu-set")),
                    Mongod::start(options("us-set"))
                );
                (TestEnv::of(a, b), others)
            }
            Side::B => {
                let (a, (b, others)) = tokio::join!(
                    Mongod::start(options("eu-set")),
                    start_three(options("us-set"))
                );
                (TestEnv::of(a, b), others)
            }
        };
        Self { env, others, side }
    }

    fn link(&self) -> LinkConfig {
        self.link_at("")
    }

    /// With a further key of `[apply]`.
    pub fn link_at(&self, apply: &str) -> LinkConfig {
        let link = self.env.link().extra(apply);
        link.extra("[timeouts]\nconnect = \"20s\"\noperation = \"3s\"")
    }

    pub fn side(&self) -> Side {
        self.side
    }

    fn first(&self) -> &Mongod {
        match self.side {
            Side::A => &self.env.a,
            Side::B => &self.env.b,
        }
    }

    fn member_mut(&mut self, member: usize) -> &mut Mongod {
        let first = match self.side {
            Side::A => &mut self.env.a,
            Side::B => &mut self.env.b,
        };
        self.others.member_mut(first, member)
    }

    pub fn member(&self, member: usize) -> &Mongod {
        self.others.member(self.first(), member)
    }

    pub async fn primary(&self) -> usize {
        self.others.primary(self.first(), None).await
    }

    pub async fn wait_whole(&self) {
        self.others.wait_whole(self.first()).await;
    }

    pub async fn step_down(&self) {
        let primary = self.primary().await;
        step_down(self.member(primary), 10).await;
        self.others.primary(self.first(), Some(primary)).await;
    }

    pub async fn kill_primary(&mut self) {
        let primary = self.primary().await;
        self.member_mut(primary).sigkill();
        self.others.primary(self.first(), Some(primary)).await;
        self.member_mut(primary).revive().await;
        self.wait_whole().await;
    }

    /// Frozen for longer than an election takes, it wakes and takes itself for the primary.
    async fn freeze_primary(&self) {
        let primary = self.primary().await;
        self.member(primary).sigstop();
        self.others.primary(self.first(), Some(primary)).await;
        tokio::time::sleep(Duration::from_secs(scaled(10) as u64)).await;
        self.member(primary).sigcont();
        self.wait_whole().await;
    }

    async fn rolling_restart(&mut self) {
        for member in 0..3 {
            self.member_mut(member).sigkill();
            self.primary().await;
            self.member_mut(member).revive().await;
            self.wait_whole().await;
        }
    }

    /// The set of one on the other side: nobody else can be elected, so it comes back.
    async fn step_down_opposite(&self) {
        let one = match self.side {
            Side::A => &self.env.b,
            Side::B => &self.env.a,
        };
        step_down(one, 1).await;
        one.wait_primary().await;
    }
}

async fn step_down(mongod: &Mongod, seconds: i32) {
    let command = doc! {
        "replSetStepDown": seconds,
        "secondaryCatchUpPeriodSecs": 0,
        "force": true,
    };
    // The answer may be lost with the connection.
    let _ = mongod.try_admin(command).await;
}

fn load(test: &str) -> Workload {
    Load::steady(seed(test)).by_majority()
}

#[tokio::test(flavor = "multi_thread")]
async fn primaries_that_step_down_and_die_lose_nothing_and_unconfirmed_writes_never_arrive() {
    let mut trio = Trio::start(Side::A).await;
    let mut tandem = trio.env.streaming(&trio.link()).await;
    let writers = Load::start(&trio.env, load("elections"));
    trio.step_down().await;
    trio.step_down_opposite().await;
    trio.kill_primary().await;
    writers.settle(&trio.env, &tandem, SOON).await;
    assert!(tandem.is_running());
    take_back_what_was_not_confirmed(&mut trio, &tandem).await;
    tandem.stop().await;
}

/// A member votes and answers, and takes nothing from the primary.
async fn stop_replication(mongod: &Mongod, mode: &str) {
    let command = doc! { "configureFailPoint": "stopReplProducer", "mode": mode };
    mongod.admin(command).await;
}

/// Writes that only the primary has, before it dies: one of its own, and one to a document that
/// the other side writes as well, so that tandem's own transaction is in the middle of it.
async fn take_back_what_was_not_confirmed(trio: &mut Trio, tandem: &Tandem) {
    let (before, lost) = (tandem.conflicts(&[]).len(), doc! { "_id": "lost" });
    let contested = doc! { "_id": "contested" };
    trio.env.orders_b().insert_one(&contested).await.unwrap();
    assert_converged(&trio.env, SOON).await;
    let primary = trio.primary().await;
    let followers: Vec<usize> = (0..3).filter(|member| *member != primary).collect();
    for member in &followers {
        stop_replication(trio.member(*member), "alwaysOn").await;
    }
    let alone = trio.env.orders_a().clone_with_type::<Document>();
    let by = |by: &str| doc! { "$set": { "by": by } };
    let one = WriteConcern::nodes(1);
    let insert = alone.insert_one(&lost).write_concern(one.clone());
    insert.await.unwrap();
    let update = alone.update_one(contested.clone(), by("a"));
    update.write_concern(one).await.unwrap();
    let other = trio.env.orders_b();
    other.update_one(contested.clone(), by("b")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    trio.member_mut(primary).sigkill();
    for member in &followers {
        stop_replication(trio.member(*member), "off").await;
    }
    trio.others.primary(trio.first(), Some(primary)).await;
    trio.member_mut(primary).revive().await;
    trio.wait_whole().await;
    assert_converged_by(tandem, &trio.env, SOON).await;
    for orders in [trio.env.orders_a(), trio.env.orders_b()] {
        assert_eq!(orders.find_one(lost.clone()).await.unwrap(), None);
        let found = orders.find_one(contested.clone()).await.unwrap().unwrap();
        assert_eq!(found.get_str("by").unwrap(), "b");
    }
    assert_eq!(tandem.conflicts(&[]).len(), before);
}

/// A copy of some thousand documents, with writes on both sides, through the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_goes_on_after_its_source_and_its_target_have_stepped_down() {
    let env = TestEnv::start().await;
    let before = Workload::new(seed("copy_elections"), scaled(20_000)).keys(2000);
    let history = before.run_side(Side::A, env.a.client()).await;
    let link = env
        .link()
        .extra("operations_per_second_max = 120\n[initial_sync]\nmode = \"copy\"");
    let mut tandem = env.tandem(&link);
    tandem.start();
    let syncing =
        |status: &serde_json::Value| status["initial_sync"]["documents_done"].as_u64() > Some(0);
    tandem.wait_status("it copies", SOON, syncing).await;
    for mongod in [&env.a, &env.b] {
        step_down(mongod, 1).await;
        mongod.wait_primary().await;
    }
    let is_copying = |status: &serde_json::Value| status["initial_sync"]["state"] != "done";
    assert!(is_copying(&tandem.status()), "the copy was over too soon");
    let meanwhile = before.ids_from(1_000_000);
    let meanwhile = Workload {
        writes_per_side: 200,
        ..meanwhile
    };
    let meanwhile = meanwhile.run(env.a.client(), env.b.client()).await;
    let is_done = |status: &serde_json::Value| status["initial_sync"]["state"] == "done";
    tandem.wait_status("the copy is done", SOON, is_done).await;
    let history = history.before_the_start().merge(meanwhile);
    assert_settled(&history, &env, &tandem, SOON).await;
    tandem.stop().await;
}

async fn every_fault_of_a_primary(side: Side) {
    let mut trio = Trio::start(side).await;
    let mut tandem = trio.env.streaming(&trio.link()).await;
    let writers = Load::start(&trio.env, load("every_fault"));
    trio.freeze_primary().await;
    trio.step_down().await;
    tokio::join!(trio.step_down(), trio.step_down_opposite());
    trio.kill_primary().await;
    trio.rolling_restart().await;
    writers.settle(&trio.env, &tandem, SOON).await;
    assert!(tandem.is_running());
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: a set of three on a, frozen, stepped down, killed and restarted in turn"]
async fn long_every_fault_of_a_primary_of_a_loses_nothing() {
    every_fault_of_a_primary(Side::A).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: a set of three on b, frozen, stepped down, killed and restarted in turn"]
async fn long_every_fault_of_a_primary_of_b_loses_nothing() {
    every_fault_of_a_primary(Side::B).await;
}

/// Killed and stepped down while a copies, on either side.
async fn faults_during_a_copy(side: Side) {
    let mut trio = Trio::start(side).await;
    let before = Workload::new(seed("copy_faults"), scaled(100_000)).keys(10_000);
    let history = before.run_side(Side::A, trio.env.a.client()).await;
    let link = trio
        .link_at("operations_per_second_max = 1000")
        .extra("[initial_sync]\nmode = \"copy\"");
    let mut tandem = trio.env.tandem(&link);
    tandem.start();
    let syncing =
        |status: &serde_json::Value| status["initial_sync"]["documents_done"].as_u64() > Some(0);
    tandem.wait_status("it copies", SOON, syncing).await;
    let writers = Load::start(&trio.env, load("during_a_copy").ids_from(1_000_000));
    trio.step_down().await;
    trio.kill_primary().await;
    let is_done = |status: &serde_json::Value| status["initial_sync"]["state"] == "done";
    tandem.wait_status("the copy is done", SOON, is_done).await;
    let history = history.before_the_start().merge(writers.stop().await);
    assert_settled(&history, &trio.env, &tandem, SOON).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: a set of three under a copy, stepped down and killed"]
async fn long_a_copy_outlives_the_primaries_of_its_source() {
    faults_during_a_copy(Side::A).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: a set of three under a copy, stepped down and killed"]
async fn long_a_copy_outlives_the_primaries_of_its_target() {
    faults_during_a_copy(Side::B).await;
}
