//! Applications write on both sides at once, and their own account must add up.

use std::time::Duration;

use crate::support::compare::{assert_converged, contents};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::oplog::{entries_after, from_tandem, now};
use crate::support::oracle::Side;
use crate::support::random::{scaled, seed};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;
use crate::support::workload::{Workload, documents_of};

/// Time from the last write to equal clusters.
const CONVERGE_TIME_MAX: Duration = Duration::from_secs(10);

/// Runs the load, waits for equal clusters and settles the account; gives the link, still running.
async fn settle(env: &TestEnv, link: &LinkConfig, load: &Workload) -> Tandem {
    let tandem = env.streaming(link).await;
    let history = load.run(env.a.client(), env.b.client()).await;
    let took = assert_converged(env, CONVERGE_TIME_MAX).await;
    println!("{} writes, converged after {took:?}", history.writes.len());
    let documents = documents_of(&contents(env.a.client()).await);
    history.assert_accounted(&documents, &tandem.all_conflicts(env).await);
    tandem
}

async fn two_writers(test: &str, fence: &str, lanes: u32) {
    let env = TestEnv::start().await;
    let load = Workload::new(seed(test), scaled(20_000));
    let link = env.link().two_way().fence(fence).lanes(lanes);
    settle(&env, &link, &load).await.stop().await;
}

/// Each side has a collection of its own to write to.
#[tokio::test(flavor = "multi_thread")]
async fn every_write_is_read_once_applied_once_and_never_comes_back() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    env.create_on_both("bank", "accounts").await;
    let mut tandem = env.streaming(&env.link()).await;
    let (a, b) = (env.a.client(), env.b.client());
    let start = (now(a).await, now(b).await);
    let load = Workload::new(seed("counted"), scaled(5000));
    let on_a = load.clone().namespaces(&["shop.orders"]);
    let on_b = load.namespaces(&["bank.accounts"]);
    let (on_a, on_b) = tokio::join!(on_a.run_side(Side::A, a), on_b.run_side(Side::B, b));
    assert_converged(&env, CONVERGE_TIME_MAX).await;
    let sessions = on_a.merge(on_b).sessions;
    let entries = (
        entries_after(a, start.0).await,
        entries_after(b, start.1).await,
    );
    let ours = (
        from_tandem(&entries.0, &sessions),
        from_tandem(&entries.1, &sessions),
    );
    for (own, ours, theirs, pipeline) in [
        ("shop.orders", &ours.0, (&entries.1, &ours.1), "b-to-a"),
        ("bank.accounts", &ours.1, (&entries.0, &ours.0), "a-to-b"),
    ] {
        let written = theirs.0.len() - theirs.1.len();
        let echo = ours.iter().find(|entry| entry.namespace == own);
        assert!(echo.is_none(), "{echo:?}");
        wait_for("each write is read once", CONVERGE_TIME_MAX, async || {
            let read = tandem.pipeline(pipeline)["events_read_total"].as_u64()?;
            (read == written as u64).then_some(())
        })
        .await;
        // An operation may be several entries of the oplog.
        let applied = tandem.pipeline(pipeline)["operations_applied_total"].as_u64();
        assert_eq!(applied, Some(written as u64), "{} entries", ours.len());
    }
    // And it stays so: nothing is on its way.
    let before = (now(a).await, now(b).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(entries_after(a, before.0).await.is_empty());
    assert!(entries_after(b, before.1).await.is_empty());
    assert_eq!(tandem.total("conflicts_total"), 0);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_agree_with_the_snapshot_fence_and_four_lanes() {
    two_writers("snapshot_four", "snapshot", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_agree_with_the_snapshot_fence_and_one_lane() {
    two_writers("snapshot_one", "snapshot", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_agree_with_the_waiting_fence_and_four_lanes() {
    two_writers("waiting_four", "waiting", 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_agree_with_the_waiting_fence_and_one_lane() {
    two_writers("waiting_one", "waiting", 1).await;
}
