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

/// A copy streams from its first moment on, so a long one needs no long oplog. A long stop does.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_stopped_for_longer_than_the_oplog_says_how_to_begin_anew() {
    let env = with_a_small_oplog_on_a().await;
    let rows = (0..3000).map(|id| doc! { "_id": id, "name": "x".repeat(50) });
    env.orders_a().insert_many(rows).await.unwrap();
    let link = env.link().extra("[initial_sync]\nmode = \"copy\"");
    let mut tandem = env.tandem(&link);
    tandem.env("TANDEM_APPLY__OPERATIONS_PER_SECOND_MAX", "500");
    tandem.start();
    let copies =
        |status: &serde_json::Value| status["initial_sync"]["documents_done"].as_u64() > Some(100);
    tandem.wait_status("it copies", SOON, copies).await;
    tandem.kill9();
    env.orders_a()
        .delete_many(doc! { "_id": { "$lt": 50 } })
        .await
        .unwrap();
    roll_over(env.a.client()).await;
    tandem.start();
    assert_eq!(tandem.wait_exit(SOON).await, 5, "{}", tandem.tail());
    let said = tandem.tail();
    assert!(said.contains("--first-start --drop-target"), "{said}");
    assert_eq!(tandem.run(&["resync"]).status.code(), Some(2));
    let anew = ["run", "--first-start", "--drop-target", "--until-caught-up"];
    let again = tandem.run(&anew);
    let said = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(0), "{said}");
    assert_env_converged_without(&env, "elsewhere").await;
    assert_eq!(env.orders_b().count_documents(doc! {}).await.unwrap(), 2950);
}

/// Equal but for what is not replicated.
async fn assert_env_converged_without(env: &TestEnv, database: &str) {
    env.a.client().database(database).drop().await.unwrap();
    assert_converged(env, SOON).await;
}
