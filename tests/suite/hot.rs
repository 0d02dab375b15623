//! One document that everybody writes, and documents that both clusters delete by themselves.

use std::time::Duration;

use bson::{DateTime, doc};

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::load::{Load, assert_settled};
use crate::support::mongod::{Mongod, MongodOptions};
use crate::support::random::{scaled, seed};
use crate::support::schema::assert_same_schema;
use crate::support::spread::Spread;
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

/// As applications do: few documents that everybody writes, and many that hardly anybody does.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_very_uneven_popularity_on_both_sides_settle() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let mut load = Workload::new(seed("zipf"), scaled(10_000)).keys(5000);
    load.spread = Spread::Zipf;
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

/// Servers that expire nothing until they are told to, and then within a second.
async fn expiring() -> TestEnv {
    let options = |name: &str| {
        let mut options = MongodOptions::named(name);
        for parameter in ["ttlMonitorSleepSecs=1", "ttlMonitorEnabled=false"] {
            let more = ["--setParameter", parameter].map(str::to_owned);
            options.args.extend(more);
        }
        options
    };
    TestEnv::start_with(options("eu-set"), options("us-set")).await
}

/// Whether the server deletes what has expired.
async fn expire(mongod: &Mongod, whether: bool) {
    let command = doc! { "setParameter": 1, "ttlMonitorEnabled": whether };
    mongod.admin(command).await;
}

/// What expires on both sides while nothing is replicated stays away, and is no conflict.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_expire_on_both_sides_during_lag_do_not_come_back() {
    const DOCUMENTS: i32 = 500;
    let env = expiring().await;
    env.create_on_both("shop", "orders").await;
    let index = doc! { "key": { "at": 1 }, "name": "ttl", "expireAfterSeconds": 0 };
    for mongod in [&env.a, &env.b] {
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
        expire(mongod, true).await;
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

/// The deletions of the one that does arrive like any others; a changed index decides on both.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_side_alone_expires_goes_on_the_other_one_too() {
    let env = expiring().await;
    env.create_on_both("shop", "orders").await;
    let index = doc! { "key": { "at": 1 }, "name": "ttl", "expireAfterSeconds": 3600 };
    let mut tandem = env.streaming(&env.link()).await;
    let shop = env.a.client().database("shop");
    let create = doc! { "createIndexes": "orders", "indexes": [index] };
    shop.run_command(create).await.unwrap();
    assert_same_schema(&env, SOON).await;
    let half_an_hour_ago = DateTime::from_millis(DateTime::now().timestamp_millis() - 1_800_000);
    for (deletes, keeps) in [(&env.a, env.orders_b()), (&env.b, env.orders_a())] {
        let rows = (0..100).map(|id| doc! { "_id": id, "at": half_an_hour_ago });
        keeps.insert_many(rows).await.unwrap();
        assert_converged(&env, SOON).await;
        // From an hour to a second, told to the side that deletes nothing itself.
        for seconds in [1, 3600] {
            let index = doc! { "name": "ttl", "expireAfterSeconds": seconds };
            let command = doc! { "collMod": "orders", "index": index };
            let of = keeps.client().database("shop");
            of.run_command(command).await.unwrap();
            if seconds == 1 {
                expire(deletes, true).await;
                wait_for("they are gone on the other side", SOON, || async {
                    let left = keeps.count_documents(doc! {}).await.unwrap();
                    (left == 0).then_some(())
                })
                .await;
                expire(deletes, false).await;
            }
        }
        assert_converged(&env, SOON).await;
        // A change to what an index still is would be none.
        assert_same_schema(&env, SOON).await;
    }
    assert_eq!(tandem.total("dead_letters_total"), 0);
    assert_eq!(tandem.total("conflicts_total"), 0);
    tandem.stop().await;
}
