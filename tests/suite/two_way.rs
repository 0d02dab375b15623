//! Applications write on both sides at once, and their own account must add up.

use std::time::Duration;

use crate::support::compare::{assert_converged, contents};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::random::{scaled, seed};
use crate::support::tandem::Tandem;
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
