//! One writer: a second process waits or goes away, and a process that lost its link is harmless.

use std::time::{Duration, Instant};

use bson::doc;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv, raw_by_id};
use crate::support::oplog::{entries_after, now};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(3);

fn leased(env: &TestEnv) -> LinkConfig {
    let mut link = env.link();
    link.lease_duration = "3s".to_owned();
    link
}

/// The same link, run from another host: another state directory.
fn elsewhere(env: &TestEnv) -> Tandem {
    let mut link = leased(env);
    link.state_dir = "other-state".to_owned();
    env.tandem_named("other.toml", &link)
}

/// Starts the second host's process again and again until the lease is its own.
async fn take_over(env: &TestEnv) -> Tandem {
    let start = Instant::now();
    loop {
        let mut other = elsewhere(env);
        other.start();
        match tokio::time::timeout(SOON, other.ended_or_streaming()).await {
            Ok(None) => return other,
            Ok(Some(code)) => assert_eq!(code, 8, "refused because the link is held"),
            Err(_) => panic!("neither ended nor streaming"),
        }
        assert!(start.elapsed() < SOON, "the lease was never free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_ends_with_7_on_the_same_state_and_8_elsewhere() {
    let env = TestEnv::start().await;
    let link = leased(&env);
    let mut first = env.streaming(&link).await;
    let same = env.tandem(&link).run(&["run"]);
    assert_eq!(same.status.code(), Some(7));
    let other = elsewhere(&env).run(&["run"]);
    assert_eq!(other.status.code(), Some(8));
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    assert!(first.is_running());
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_processes_lease_is_taken_over_once_it_has_run_out() {
    let env = TestEnv::start().await;
    let mut first = env.streaming(&leased(&env)).await;
    first.kill9();
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    let start = Instant::now();
    let mut other = take_over(&env).await;
    // Two seconds for the start itself.
    assert!(
        start.elapsed() < LEASE + Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_converged(&env, SOON).await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_slept_through_its_lease_writes_nothing_when_it_wakes() {
    let env = TestEnv::start().await;
    let mut first = env.streaming(&leased(&env)).await;
    env.orders_a()
        .insert_one(doc! { "_id": 1, "n": 0 })
        .await
        .unwrap();
    wait_for("the insert arrives", SOON, || raw_by_id(&env.orders_b(), 1)).await;
    first.sigstop();
    for _ in 0..100 {
        let inc = doc! { "$inc": { "n": 1 } };
        env.orders_a()
            .update_one(doc! { "_id": 1 }, inc)
            .await
            .unwrap();
    }
    let mut other = take_over(&env).await;
    assert_converged(&env, SOON).await;
    let woken = now(env.b.client()).await;
    first.sigcont();
    assert_eq!(first.wait_exit(SOON).await, 8);
    assert!(entries_after(env.b.client(), woken).await.is_empty());
    env.orders_b().insert_one(doc! { "_id": 2 }).await.unwrap();
    assert_converged(&env, SOON).await;
    other.stop().await;
}
