//! What waits is applied in the order of keys, in as many transactions as otherwise.

use std::time::Duration;

use bson::{Document, doc};

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::wait::wait_for;
use crate::unique_values::transactions_on_b;

const SOON: Duration = Duration::from_secs(60);
const DOCUMENTS: i32 = 1000;
const BATCH: i32 = 25;
const LANES: u32 = 2;

/// Writes to each document once, in an order that has nothing to do with their keys.
async fn update_each(env: &TestEnv) {
    const STEP: i32 = 619;
    let ids = (0..DOCUMENTS).map(|at| at * STEP % DOCUMENTS);
    let update = |id: i32| doc! { "q": { "_id": id }, "u": { "$inc": { "n": 1 } } };
    let updates: Vec<Document> = ids.map(update).collect();
    let shop = env.a.client().database("shop");
    let written = shop.run_command(doc! { "update": "orders", "updates": updates });
    assert_eq!(written.await.unwrap().get_i32("n").unwrap(), DOCUMENTS);
}

/// What a checkpoint of the lanes from a says of a stretch.
async fn ahead(env: &TestEnv) -> Option<Document> {
    let own = env.b.client().database("__tandem");
    let checkpoints = own.collection::<Document>("checkpoints");
    let is_ahead = doc! { "pipeline": "a-to-b", "ahead": { "$ne": null } };
    checkpoints.find_one(is_ahead).await.unwrap()
}

/// The checkpoint stays where it was until all of them are there, and says which are.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_goes_by_keys_and_a_kill_amid_it_has_nothing_applied_twice() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link().lanes(LANES);
    let link = link.extra(&format!("batch_operations_max = {BATCH}"));
    let mut tandem = env.streaming(&link).await;
    let rows = (0..DOCUMENTS).map(|id| doc! { "_id": id, "n": 0 });
    env.orders_a().insert_many(rows).await.unwrap();
    assert_converged(&env, SOON).await;
    tandem.stop().await;
    update_each(&env).await;
    let before: i64 = transactions_on_b(&env).await.iter().sum();

    env.tandem(&link.clone().extra("operations_per_second_max = 300"));
    tandem.start();
    wait_for("a part of it", SOON, || async {
        let moved = transactions_on_b(&env).await.iter().sum::<i64>() - before;
        (moved > 12 && ahead(&env).await.is_some()).then_some(())
    })
    .await;
    tandem.kill9();
    let there = env.orders_b().count_documents(doc! { "n": 1 }).await;
    assert!(there.unwrap() < DOCUMENTS as u64);
    assert!(ahead(&env).await.is_some());

    env.tandem(&link);
    tandem.start();
    assert_converged(&env, SOON).await;
    let once = env.orders_b().count_documents(doc! { "n": 1 }).await;
    assert_eq!(once.unwrap(), DOCUMENTS as u64);
    wait_for("the end of it", SOON, || async {
        ahead(&env).await.is_none().then_some(())
    })
    .await;
    // Of each lane one may have been smaller where it was killed, or at its end, and one may have moved
    // its checkpoint alone.
    let moved = transactions_on_b(&env).await.iter().sum::<i64>() - before;
    let least = i64::from(DOCUMENTS / BATCH);
    assert!(
        (least..=least + 3 * i64::from(LANES)).contains(&moved),
        "{moved}"
    );
    tandem.stop().await;
}
