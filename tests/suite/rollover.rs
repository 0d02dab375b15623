//! Oplogs that roll over: in good time there is a warning, afterwards only a resync helps.

use std::time::Duration;

use bson::{Document, Timestamp, doc};

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::mongod::MongodOptions;
use crate::support::oplog::{now, roll_over};
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);

async fn with_a_small_oplog_on_a() -> TestEnv {
    let small = MongodOptions::named("eu-set").with_small_oplog();
    TestEnv::start_with(small, MongodOptions::named("us-set")).await
}

/// The lowest checkpoint of the pipeline from a.
async fn checkpoint(env: &TestEnv) -> Timestamp {
    let checkpoints = env
        .b
        .client()
        .database("__tandem")
        .collection("checkpoints");
    let of_a = doc! { "pipeline": "a-to-b" };
    let lowest = checkpoints.find_one(of_a).sort(doc! { "time": 1 });
    let lowest: Document = lowest.await.unwrap().expect("a checkpoint");
    lowest.get_timestamp("time").unwrap()
}

/// Only collections that are not replicated are written, until the oplog holds nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_to_replicate_on_a_busy_cluster_is_no_lost_resume_point() {
    let env = with_a_small_oplog_on_a().await;
    let mut tandem = env.streaming(&env.link()).await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    roll_over(env.a.client()).await;
    let rolled = now(env.a.client()).await;
    wait_for("the checkpoint has moved on", SOON, || async {
        (checkpoint(&env).await >= rolled).then_some(())
    })
    .await;
    env.a.client().database("elsewhere").drop().await.unwrap();
    tandem.kill9();
    tandem.start();
    tandem.wait_until_streaming().await;
    env.orders_a().insert_one(doc! { "_id": 2 }).await.unwrap();
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_far_behind_warns_before_its_resume_point_is_gone_and_ends_with_5_after() {
    let env = with_a_small_oplog_on_a().await;
    let link = env.link().extra("[timeouts]\noperation = \"3s\"");
    let mut tandem = env.streaming(&link).await;
    // Where a collection goes is looked up on both sides, before its first event is handed over.
    env.orders_a().insert_one(doc! { "_id": 0 }).await.unwrap();
    assert_converged(&env, SOON).await;
    env.b.sigstop();
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    roll_over(env.a.client()).await;
    wait_for("a warning", SOON, || async {
        let log = tandem.log();
        log.contains("more than half of the oplog's window")
            .then_some(())
    })
    .await;
    assert!(tandem.is_running());
    // The reader has read it all, so nothing is lost as long as this process lives.
    env.b.sigcont();
    assert_env_converged_without(&env, "elsewhere").await;

    // Now the reader itself is behind.
    tandem.sigstop();
    env.orders_a().insert_one(doc! { "_id": 2 }).await.unwrap();
    roll_over(env.a.client()).await;
    tandem.sigcont();
    assert_eq!(tandem.wait_exit(SOON).await, 5, "{}", tandem.tail());
    assert!(tandem.tail().contains("tandem resync"));
    env.a.client().database("elsewhere").drop().await.unwrap();
    let resynced = tandem.run(&["resync"]);
    assert_eq!(resynced.status.code(), Some(0));
    assert_converged(&env, SOON).await;
    assert!(tandem.conflicts(&[]).is_empty());
}

/// Equal but for what is not replicated.
async fn assert_env_converged_without(env: &TestEnv, database: &str) {
    env.a.client().database(database).drop().await.unwrap();
    assert_converged(env, SOON).await;
}
