//! Applications write on both sides at once, and their own account must add up.

use std::time::Duration;

use bson::doc;

use crate::support::compare::{assert_converged, contents};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::random::{Random, scaled, seed};
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
    history.assert_accounted(&documents, &tandem.conflicts(&[]));
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

/// One document, so that every commit races an application's write.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_races_every_commit_loses_no_write_unseen() {
    const RACES: usize = 5000;
    const REFUSED_MIN: usize = 500;
    let env = TestEnv::start().await;
    let load = Workload::new(seed("races"), scaled(RACES))
        .keys(1)
        .namespaces(&["shop.orders"]);
    let mut tandem = settle(&env, &env.link(), &load).await;
    let refused = tandem.total("fence_conflicts_total");
    assert!(
        refused >= scaled(REFUSED_MIN) as u64,
        "only {refused} refused transactions"
    );
    tandem.stop().await;
}

/// All events of a transaction share one time, so a fence can fall between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_fence_between_the_events_of_one_transaction_overwrites_nothing() {
    let env = TestEnv::start().await;
    let load = Workload::new(seed("transactions"), scaled(10_000))
        .keys(30)
        .transactions(100);
    settle(&env, &env.link(), &load).await.stop().await;
}

/// Few states, so that many of tandem's writes change nothing at their fence.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_change_nothing_at_the_fence_do_not_hide_unseen_ones() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let seed = seed("no_ops");
    let one_side = |side: u64, orders: mongodb::Collection<bson::Document>| async move {
        let mut random = Random::new(seed).fork(side);
        for _ in 0..scaled(10_000) {
            let (id, x) = (random.below(4) as i32, random.below(2) as i32);
            let filter = doc! { "_id": id };
            let result = match random.below(4) {
                0 => orders.delete_one(filter).await.map(|_| ()),
                1 => orders
                    .replace_one(filter, doc! { "x": x })
                    .upsert(true)
                    .await
                    .map(|_| ()),
                _ => {
                    let set = doc! { "$set": { "x": x } };
                    orders.update_one(filter, set).await.map(|_| ())
                }
            };
            // Two upserts of one key may collide: nothing was written then.
            drop(result);
        }
    };
    tokio::join!(one_side(0, env.orders_a()), one_side(1, env.orders_b()));
    assert_converged(&env, CONVERGE_TIME_MAX).await;
    tandem.stop().await;
}
