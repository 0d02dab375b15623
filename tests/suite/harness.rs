//! The harness itself: servers that start, restart and go away; a load whose account adds up.

use std::time::Duration;

use bson::doc;

use crate::support::compare::{assert_converged, contents};
use crate::support::env::TestEnv;
use crate::support::mongod::{Mongod, MongodOptions};
use crate::support::oplog::{entries_after, from_tandem, now, roll_over};
use crate::support::oracle::Side;
use crate::support::proxy::{Cut, Proxy};
use crate::support::random::seed;
use crate::support::workload::{Workload, documents_of};

#[tokio::test]
async fn mongod_starts_and_restarts_over_the_same_data() {
    let mut mongod = Mongod::start(MongodOptions::named("set")).await;
    let orders = mongod.client().database("shop").collection("orders");
    orders.insert_one(doc! { "_id": 1 }).await.unwrap();
    mongod.sigkill();
    mongod.restart().await;
    assert_eq!(
        orders.find_one(doc! {}).await.unwrap(),
        Some(doc! { "_id": 1 })
    );
    assert!(mongod.uri().ends_with("replicaSet=set"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_without_a_link_accounts_for_every_write_on_its_own_side() {
    let env = TestEnv::start().await;
    let start = now(env.a.client()).await;
    let load = Workload::new(seed("a_load_without_a_link"), 600).keys(40);
    let history = load.run_side(Side::A, env.a.client()).await;
    assert!(history.writes.len() >= 600);
    let documents = documents_of(&contents(env.a.client()).await);
    history.assert_accounted(&documents, &[]);
    let entries = entries_after(env.a.client(), start).await;
    assert!(entries.iter().any(|entry| entry.in_transaction));
    assert!(from_tandem(&entries, &history.sessions).is_empty());
    assert!(!from_tandem(&entries, &[]).is_empty());
    let removed = documents.len() > 1 && {
        let (namespace, document) = &documents[0];
        let (database, name) = namespace.split_once('.').unwrap();
        let collection = env
            .a
            .client()
            .database(database)
            .collection::<bson::Document>(name);
        let id = document.get("_id").unwrap().clone();
        collection
            .delete_one(doc! { "_id": id })
            .await
            .unwrap()
            .deleted_count
            == 1
    };
    assert!(removed);
    let documents = documents_of(&contents(env.a.client()).await);
    assert!(
        !history.check(&documents, &[]).is_empty(),
        "a lost document is noticed"
    );
}

#[tokio::test]
#[should_panic(expected = "documents differ")]
async fn clusters_that_differ_do_not_pass_for_converged() {
    let env = TestEnv::start().await;
    assert_converged(&env, Duration::from_secs(5)).await;
    env.orders_a()
        .insert_one(doc! { "_id": 1, "x": 1, "y": 1 })
        .await
        .unwrap();
    env.orders_b()
        .insert_one(doc! { "_id": 1, "y": 1, "x": 1 })
        .await
        .unwrap();
    assert_converged(&env, Duration::from_millis(200)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_loses_the_reply_and_not_the_write() {
    let proxy = Proxy::start().await;
    let mongod = Mongod::start_behind(MongodOptions::named("set"), &proxy).await;
    let uri = format!("{}&retryWrites=false", mongod.uri());
    let client = mongodb::Client::with_uri_str(uri).await.unwrap();
    let orders = client.database("shop").collection("orders");
    orders.insert_one(doc! { "_id": 1 }).await.unwrap();
    proxy.cut(Cut::NextReplyTo("insert"));
    assert!(orders.insert_one(doc! { "_id": 2 }).await.is_err());
    assert_eq!(proxy.cuts(), 1);
    assert_eq!(orders.count_documents(doc! {}).await.unwrap(), 2);
}

#[tokio::test]
async fn a_small_oplog_rolls_over() {
    let mongod = Mongod::start(MongodOptions::named("set").with_small_oplog()).await;
    let start = now(mongod.client()).await;
    roll_over(mongod.client()).await;
    assert!(now(mongod.client()).await > start);
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_on_both_sides_without_a_link_do_not_pass_for_settled() {
    let env = TestEnv::start().await;
    let load = Workload::new(seed("no_link"), 2000).keys(100);
    let start = std::time::Instant::now();
    let history = load.run(env.a.client(), env.b.client()).await;
    println!("{} writes in {:?}", history.writes.len(), start.elapsed());
    let documents = documents_of(&contents(env.a.client()).await);
    assert!(!history.check(&documents, &[]).is_empty());
}
