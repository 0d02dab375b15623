//! One document that everybody writes, and documents that both clusters delete by themselves.

use std::time::Duration;

use bson::{Bson, DateTime, doc};

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::load::{Load, assert_settled};
use crate::support::random::{scaled, seed};
use crate::support::wait::wait_for;
use crate::support::workload::Workload;

const SOON: Duration = Duration::from_secs(60);

/// As fast as both servers take it, and nothing else to do in any other lane.
#[tokio::test(flavor = "multi_thread")]
async fn one_document_that_both_sides_write_all_the_time_settles() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let load = Workload::new(seed("hot"), scaled(5000)).keys(1);
    let load = load.namespaces(&["shop.orders"]);
    let history = load.run(env.a.client(), env.b.client()).await;
    assert_settled(&history, &env, &tandem, SOON).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: one document, as fast as both servers take it"]
async fn long_one_document_that_both_sides_write_for_a_minute_settles() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let hot = Workload::new(seed("hot_minute"), 1).keys(1);
    let load = Load::start(&env, hot.namespaces(&["shop.orders"]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    load.settle(&env, &tandem, Duration::from_secs(120)).await;
    tandem.stop().await;
}

/// What expires on both sides while nothing is replicated stays away, and is no conflict.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_expire_on_both_sides_during_lag_do_not_come_back() {
    const DOCUMENTS: i32 = 500;
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let index = doc! { "key": { "at": 1 }, "name": "ttl", "expireAfterSeconds": 0 };
    let parameter = |name: &str, value: Bson| {
        let mut command = doc! { "setParameter": 1 };
        command.insert(name, value);
        command
    };
    for mongod in [&env.a, &env.b] {
        let enabled = parameter("ttlMonitorEnabled", false.into());
        mongod.admin(enabled).await;
        mongod
            .admin(parameter("ttlMonitorSleepSecs", 1.into()))
            .await;
        let shop = mongod.client().database("shop");
        let create = doc! { "createIndexes": "orders", "indexes": [index.clone()] };
        shop.run_command(create).await.unwrap();
    }
    let mut tandem = env.streaming(&env.link()).await;
    let past = DateTime::from_millis(1_000_000);
    let rows = (0..DOCUMENTS).map(|id| doc! { "_id": id, "at": past });
    env.orders_a().insert_many(rows).await.unwrap();
    assert_converged(&env, SOON).await;
    tandem.sigstop();
    // Still on its way when both sides begin to delete.
    let touch = doc! { "$set": { "touched": true } };
    env.orders_a().update_many(doc! {}, touch).await.unwrap();
    for (mongod, orders) in [(&env.a, env.orders_a()), (&env.b, env.orders_b())] {
        mongod
            .admin(parameter("ttlMonitorEnabled", true.into()))
            .await;
        wait_for("all have expired", SOON, || async {
            let left = orders.count_documents(doc! {}).await.unwrap();
            (left == 0).then_some(())
        })
        .await;
    }
    let mark = doc! { "_id": "mark" };
    env.orders_a().insert_one(&mark).await.unwrap();
    tandem.sigcont();
    wait_for("the mark arrives", SOON, || async {
        env.orders_b().find_one(mark.clone()).await.unwrap()
    })
    .await;
    assert_converged(&env, SOON).await;
    assert_eq!(env.orders_b().count_documents(doc! {}).await.unwrap(), 1);
    assert_eq!(tandem.total("dead_letters_total"), 0);
    // b deletes documents whose last update it has not seen: where a's own deletion is not read
    // yet, that update is a loser. The deletions are none.
    for conflict in tandem.conflicts(&[]) {
        assert_eq!(conflict["losing"]["operation"], "update", "{conflict}");
    }
    tandem.stop().await;
}
