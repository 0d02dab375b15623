//! What the server leaves out of the stream by itself, and what it must not.

use std::time::Duration;

use bson::{Document, Timestamp, doc};
use mongodb::options::Collation;
use mongodb::{Client, Collection};
use serde_json::Value;

use super::{SOON, all, code, log, order};
use crate::support::env::TestEnv;
use crate::support::fail_points::FailPoint;
use crate::support::mongod::Mongod;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const FILTERS: &str = r#"
[[filters]]
namespace = "shop.log"
ignore = ["delete"]
[[filters]]
namespace = "shop.*"
filter = { region = "EU" }
[[filters]]
namespace = "bank.*"
ignore = ["delete"]
"#;

/// Enough that none of them is missed by chance.
const MANY: i32 = 300;

fn of(cluster: &Mongod, name: &str) -> Collection<Document> {
    cluster.client().database("shop").collection(name)
}

/// Compares without regard to upper and lower case.
fn collation() -> Collation {
    Collation::builder()
        .locale("en")
        .strength(mongodb::options::CollationStrength::Secondary)
        .build()
}

async fn collated(cluster: &Mongod, name: &str) -> Collection<Document> {
    let shop = cluster.client().database("shop");
    let created = shop.create_collection(name).collation(collation()).await;
    created.unwrap();
    of(cluster, name)
}

fn region(id: i32, region: &str) -> Document {
    doc! { "_id": id, "region": region }
}

async fn there(collection: &Collection<Document>) -> Vec<Document> {
    all(collection, doc! {}, doc! {}).await
}

/// One lane applies in the order of the source, so whatever was before has arrived with it.
async fn pass(env: &TestEnv, number: i32) {
    let marker = doc! { "_id": format!("marker {number}") };
    log(&env.a).insert_one(&marker).await.unwrap();
    wait_for("the marker arrives", SOON, || async {
        let found = log(&env.b).find_one(marker.clone()).await.unwrap();
        found.map(|_| ())
    })
    .await;
}

/// The events read since `before`, once as many are known as there must be.
async fn assert_read(tandem: &Tandem, before: u64, expected: u64) -> u64 {
    let read = || tandem.total("events_read_total");
    wait_for("the events are counted", SOON, || async {
        (read() >= before + expected).then_some(())
    })
    .await;
    assert_eq!(read() - before, expected, "events that passed");
    before + expected
}

async fn operation_time(cluster: &Mongod) -> Timestamp {
    let reply = cluster.admin(doc! { "hello": 1 }).await;
    reply.get_timestamp("operationTime").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_leaves_out_what_cannot_be_in_a_filter_and_nothing_else() {
    let env = TestEnv::start().await;
    for name in ["orders", "log", "remade", "renamed"] {
        let shop = env.a.client().database("shop");
        shop.create_collection(name).await.unwrap();
    }
    collated(&env.a, "collated").await;
    let link = env.link().one_way().lanes(1).extra(FILTERS);
    let mut tandem = env.streaming(&link).await;
    let mut read = tandem.total("events_read_total");

    let outside = (0..MANY).map(|id| order(id, "US", id));
    env.orders_a().insert_many(outside).await.unwrap();
    let entries = (0..MANY).map(|id| doc! { "_id": id });
    log(&env.a).insert_many(entries).await.unwrap();
    log(&env.a).delete_many(doc! {}).await.unwrap();
    in_transactions(env.a.client(), MANY).await;
    pass(&env, 1).await;
    read = assert_read(&tandem, read, MANY as u64 + 5).await;
    let inside = doc! { "_id": 2 * MANY, "region": "EU" };
    assert_eq!(there(&env.orders_b()).await, [inside]);
    assert_eq!(there(&log(&env.b)).await.len(), MANY as usize + 1);

    assert_in_and_out(&env).await;
    read = assert_read(&tandem, read, 12).await;
    assert_collated(&env, &tandem).await;
    read = assert_read(&tandem, read, 7).await;
    assert_passed_without_events(&env, &tandem, read).await;
    tandem.stop().await;

    let outside = (5000..5000 + MANY).map(|id| order(id, "US", id));
    env.orders_a().insert_many(outside).await.unwrap();
    let ended = code(&tandem, &["run", "--until-caught-up", "--timeout", "30s"]);
    assert_eq!(ended.0, Some(0), "{}", ended.1);
    assert_eq!(tandem.total("events_read_total"), read);
    // Another filter: what was outside of the one of before is not outside of this one.
    let mut other = link.clone();
    other.extra = FILTERS.replace("EU", "US");
    env.orders_a().insert_one(region(9999, "US")).await.unwrap();
    let other = env.tandem(&other);
    let ended = code(&other, &["run", "--until-caught-up", "--timeout", "30s"]);
    assert_eq!(ended.0, Some(0), "{}", ended.1);
    let (a, b) = (env.orders_a(), env.orders_b());
    let us = doc! { "region": "US" };
    assert_eq!(
        all(&b, us.clone(), doc! {}).await,
        all(&a, us, doc! {}).await
    );
}

/// Of both kinds in one transaction, and of the one that is left out alone.
async fn in_transactions(client: &Client, from: i32) {
    let orders = client.database("shop").collection::<Document>("orders");
    let mut session = client.start_session().await.unwrap();
    for (first, regions) in [(2 * from, ["EU", "US"]), (3 * from, ["US", "US"])] {
        session.start_transaction().await.unwrap();
        for (id, name) in (first..).zip(regions) {
            let insert = orders.insert_one(region(id, name));
            insert.session(&mut session).await.unwrap();
        }
        session.commit_transaction().await.unwrap();
    }
    let last = doc! { "_id": 2 * from + 1 };
    orders.delete_one(last).await.unwrap();
    orders
        .delete_many(doc! { "_id": { "$gte": 3 * from } })
        .await
        .unwrap();
}

async fn assert_in_and_out(env: &TestEnv) {
    let (a, b) = (env.orders_a(), env.orders_b());
    let moved = |name: &str| doc! { "$set": { "region": name } };
    // Made outside, and moved in.
    a.update_one(doc! { "_id": 1 }, moved("EU")).await.unwrap();
    // Moved out by an update, by a replacement, and by being made anew; deleted, made anew, moved in.
    for id in 1001..1005 {
        a.insert_one(region(id, "EU")).await.unwrap();
    }
    pass(env, 2).await;
    assert_eq!(
        b.count_documents(doc! { "_id": { "$gte": 1001 } })
            .await
            .unwrap(),
        4
    );
    a.update_one(doc! { "_id": 1001 }, moved("US"))
        .await
        .unwrap();
    a.replace_one(doc! { "_id": 1002 }, doc! { "region": "US" })
        .await
        .unwrap();
    for id in [1003, 1004] {
        a.delete_one(doc! { "_id": id }).await.unwrap();
        a.insert_one(region(id, "US")).await.unwrap();
    }
    a.update_one(doc! { "_id": 1004 }, moved("EU"))
        .await
        .unwrap();
    pass(env, 3).await;
    let moved = all(
        &b,
        doc! { "_id": { "$in": [1, 1001, 1002, 1003, 1004] } },
        doc! {},
    )
    .await;
    assert_eq!(moved, [order(1, "EU", 1), region(1004, "EU")]);
}

/// What a collation takes for the same is in the filter, also in a collection that has got one since.
async fn assert_collated(env: &TestEnv, tandem: &Tandem) {
    of(&env.a, "collated")
        .insert_one(region(1, "eu"))
        .await
        .unwrap();
    of(&env.a, "remade")
        .insert_one(region(1, "eu"))
        .await
        .unwrap();
    of(&env.a, "remade").drop().await.unwrap();
    let remade = collated(&env.a, "remade").await;
    remade.insert_one(region(2, "eu")).await.unwrap();
    // One that takes the name of another one, too.
    let first = region(0, "EU");
    of(&env.a, "renamed").insert_one(first).await.unwrap();
    pass(env, 4).await;
    let newer = collated(&env.a, "newer").await;
    newer.insert_one(region(3, "eu")).await.unwrap();
    let rename =
        doc! { "renameCollection": "shop.newer", "to": "shop.renamed", "dropTarget": true };
    env.a.admin(rename).await;
    of(&env.a, "renamed")
        .insert_one(region(4, "eu"))
        .await
        .unwrap();
    pass(env, 5).await;
    for (name, expected) in [
        ("collated", vec![region(1, "eu")]),
        ("remade", vec![region(2, "eu")]),
        ("renamed", vec![region(3, "eu"), region(4, "eu")]),
    ] {
        assert_eq!(there(&of(&env.b, name)).await, expected, "{name}");
    }
    let unpaired = &tandem.status()["unpaired_namespaces"];
    assert_eq!(*unpaired, serde_json::json!([]));
}

/// A cluster all of whose writes are left out: what was read, and what was applied, comes up.
async fn assert_passed_without_events(env: &TestEnv, tandem: &Tandem, read: u64) {
    let outside = (2000..2000 + MANY).map(|id| order(id, "US", id));
    env.orders_a().insert_many(outside).await.unwrap();
    let last = operation_time(&env.a).await;
    let is_past = |status: &Value| {
        let pipeline = &status["pipelines"][0];
        let past = |what: &str| {
            let ts = &pipeline[what]["ts"];
            let part = |at: usize| ts[at].as_u64().unwrap_or(0) as u32;
            (part(0), part(1)) >= (last.time, last.increment)
        };
        past("observed_through") && past("applied_through") && pipeline["lag_seconds"] == 0.0
    };
    tandem
        .wait_status("it is passed", Duration::from_secs(10), is_past)
        .await;
    assert_eq!(tandem.total("events_read_total"), read);
    let left = &tandem.status()["clusters"]["a"]["oplog_seconds_left"];
    assert!(left.as_f64().is_some_and(|left| left > 60.0), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_longer_than_a_call_may_is_given_the_time() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link().one_way().extra("[timeouts]\noperation = \"1s\"");
    let mut tandem = env.streaming(&link).await;
    let slow = FailPoint::on(&env.a, &["aggregate", "getMore"]);
    slow.fail_always(doc! { "blockConnection": true, "blockTimeMS": 1500 })
        .await;
    // What is under way when it is set is not held up.
    let broken = |status: &Value| status["clusters"]["a"]["reachable"] == false;
    tandem.wait_status("the stream breaks", SOON, broken).await;
    env.orders_a().insert_one(region(1, "EU")).await.unwrap();
    let arrives = || async { env.orders_b().find_one(region(1, "EU")).await.unwrap() };
    wait_for("it arrives", SOON, arrives).await;
    slow.off().await;
    assert!(tandem.log().contains("reading its history may take longer"));
    tandem.stop().await;
}
