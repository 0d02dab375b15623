//! What takes no transactions is copied once, in its order, and named; nothing else waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc, rawdoc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use serde_json::Value;

use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::Mongod;
use crate::support::scenario::natural;
use crate::support::schema::{assert_same_schema, run, schema};
use crate::support::tandem::Tandem;

const SOON: Duration = Duration::from_secs(60);

fn copying(env: &TestEnv) -> LinkConfig {
    let copy = "[initial_sync]\nmode = \"copy\"";
    env.link().one_way().extra(copy)
}

fn of(cluster: &Mongod, name: &str) -> Collection<Document> {
    cluster.client().database("shop").collection(name)
}

async fn copied(tandem: &Tandem) -> Value {
    let is_done = |status: &Value| status["initial_sync"]["state"] == "done";
    tandem.wait_status("the copy is done", SOON, is_done).await;
    tandem.status()
}

/// Why the status says that a collection is not kept in step.
fn reason(status: &Value, name: &str) -> String {
    let full = format!("shop.{name}");
    let named = status["unpaired_namespaces"].as_array().into_iter();
    assert!(named.flatten().any(|found| *found == *full), "{status:#}");
    let not_done = status["initial_sync"]["not_done"].as_array().into_iter();
    let one = not_done.flatten().find(|one| one["namespace"] == full);
    one.map_or_else(String::new, |one| one["reason"].to_string())
}

async fn same_order(env: &TestEnv, name: &str) -> Vec<RawDocumentBuf> {
    let a = natural(env.a.client(), "shop", name).await;
    let b = natural(env.b.client(), "shop", name).await;
    assert!(a == b, "{name} differs: {} and {}", a.len(), b.len());
    a
}

#[tokio::test(flavor = "multi_thread")]
async fn capped_collections_are_copied_in_their_order_and_named() {
    let env = TestEnv::start().await;
    run(
        &env.a,
        doc! { "create": "ring", "capped": true, "size": 1_000_000, "max": 3000_i64 },
    )
    .await;
    let ring = of(&env.a, "ring").clone_with_type::<RawDocumentBuf>();
    let empty = Timestamp {
        time: 0,
        increment: 0,
    };
    // Keys that do not rise, so that another order would show.
    let numbers = (0..4000).map(|number: i64| (number * 7919) % 100_003);
    let documents = numbers.map(|id| rawdoc! { "_id": id, "text": "x".repeat(100) });
    ring.insert_many(documents).await.unwrap();
    let literal = doc! { "$literal": { "_id": -1, "at": empty } };
    of(&env.a, "ring")
        .update_one(doc! { "_id": -1 }, vec![doc! { "$replaceWith": literal }])
        .upsert(true)
        .await
        .unwrap();
    ring.insert_one(rawdoc! { "_id": -2 }).await.unwrap();
    let index = doc! { "key": { "text": 1 }, "name": "text" };
    run(&env.a, doc! { "createIndexes": "ring", "indexes": [index] }).await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();

    let mut tandem = env.tandem(&copying(&env));
    let shown = tandem.run(&["run", "--dry-run"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("once, later changes"), "{shown}");
    tandem.start();
    let status = copied(&tandem).await;
    assert!(
        reason(&status, "ring").contains("copied once"),
        "{status:#}"
    );
    assert_eq!(same_order(&env, "ring").await.len(), 3000);
    assert_same_schema(&env, SOON).await;

    ring.insert_one(rawdoc! { "_id": -3 }).await.unwrap();
    env.orders_a().insert_one(doc! { "_id": 2 }).await.unwrap();
    tandem.kill9();
    tandem.start();
    tandem.wait_until_streaming().await;
    reason(&tandem.status(), "ring");
    let arrives = || async { env.orders_b().find_one(doc! { "_id": 2 }).await.unwrap() };
    crate::support::wait::wait_for("the order arrives", SOON, arrives).await;
    assert_eq!(natural(env.b.client(), "shop", "ring").await.len(), 3000);
    let check = tandem.run(&["check"]);
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.contains("capped"), "{check}");
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capped_collection_that_is_overwritten_while_it_is_copied_holds_nothing_made_up() {
    let env = TestEnv::start().await;
    run(
        &env.a,
        doc! { "create": "ring", "capped": true, "size": 200_000 },
    )
    .await;
    let ring = of(&env.a, "ring");
    let documents =
        |from: i32| (from..from + 500).map(|id| doc! { "_id": id, "t": "x".repeat(200) });
    ring.insert_many(documents(0)).await.unwrap();
    let writes = async {
        for round in 1..40 {
            ring.insert_many(documents(round * 500)).await.unwrap();
        }
    };
    let mut tandem = env.tandem(&copying(&env));
    tandem.start();
    let (status, ()) = tokio::join!(copied(&tandem), writes);
    let reason = reason(&status, "ring");
    let on_b = natural(env.b.client(), "shop", "ring").await;
    let ids: Vec<i32> = on_b.iter().map(|one| one.get_i32("_id").unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    assert!(
        !ids.is_empty() || reason.contains("overwritten"),
        "{reason}"
    );
    tandem.stop().await;
}

/// The server keeps fields in columns, so their order is its own.
async fn measurements(cluster: &Mongod) -> Vec<BTreeMap<String, Bson>> {
    let series = of(cluster, "series");
    let found = series.find(doc! {}).sort(doc! { "_id": 1 });
    let found: Vec<Document> = found.await.unwrap().try_collect().await.unwrap();
    let fields = |one: Document| one.into_iter().collect();
    found.into_iter().map(fields).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_series_is_copied_once_and_named_in_both_modes() {
    for mode in ["one-way", "two-way"] {
        let env = TestEnv::start().await;
        let options = doc! { "timeField": "at", "metaField": "from", "granularity": "minutes" };
        run(&env.a, doc! { "create": "series", "timeseries": options }).await;
        let measured = (0..3000).map(|number| {
            let at = bson::DateTime::from_millis(1_700_000_000_000 + number * 1000);
            doc! { "at": at, "from": number % 3, "value": number, "_id": number }
        });
        of(&env.a, "series").insert_many(measured).await.unwrap();
        let index = doc! { "key": { "from": 1, "at": -1 }, "name": "of sources" };
        run(
            &env.a,
            doc! { "createIndexes": "series", "indexes": [index] },
        )
        .await;
        env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
        let mut link = copying(&env);
        link.mode = mode.to_owned();
        let mut tandem = env.tandem(&link);
        tandem.start();
        let status = copied(&tandem).await;
        let reason = reason(&status, "series");
        assert!(reason.contains("copied once"), "{mode}: {reason}");
        let [on_a, on_b] = [measurements(&env.a).await, measurements(&env.b).await];
        assert_eq!(on_a.len(), 3000, "{mode}");
        assert!(on_a == on_b, "{mode}");
        let (a, b) = (schema(env.a.client()).await, schema(env.b.client()).await);
        assert_eq!(a["shop.series"], b["shop.series"], "{mode}");
        tandem.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_copied_once_begins_anew_after_a_kill_and_ends_whole() {
    let env = TestEnv::start().await;
    run(
        &env.a,
        doc! { "create": "ring", "capped": true, "size": 100_000_000 },
    )
    .await;
    let ring = of(&env.a, "ring");
    for part in 0..20 {
        let ids = part * 2000..(part + 1) * 2000;
        let documents = ids.map(|id| doc! { "_id": id, "t": "x".repeat(300) });
        ring.insert_many(documents).await.unwrap();
    }
    let mut tandem = env.tandem(&copying(&env));
    for _ in 0..3 {
        tandem.start();
        let begun = || async {
            let on_b = of(&env.b, "ring").estimated_document_count().await.unwrap();
            (on_b > 500).then_some(())
        };
        crate::support::wait::wait_for("it copies", SOON, begun).await;
        tandem.kill9();
    }
    tandem.start();
    copied(&tandem).await;
    assert_eq!(same_order(&env, "ring").await.len(), 40_000);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_two_way_mode_a_capped_collection_and_a_collation_are_named_and_left_alone() {
    let env = TestEnv::start().await;
    run(
        &env.a,
        doc! { "create": "ring", "capped": true, "size": 4096 },
    )
    .await;
    run(
        &env.a,
        doc! { "create": "words", "collation": { "locale": "en" } },
    )
    .await;
    for name in ["ring", "words", "orders"] {
        of(&env.a, name)
            .insert_one(doc! { "_id": 1 })
            .await
            .unwrap();
    }
    let mut tandem = env.tandem(&copying(&env).two_way());
    let check = tandem.run(&["check"]);
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(
        check.contains("capped") && check.contains("collation"),
        "{check}"
    );
    tandem.start();
    let status = copied(&tandem).await;
    assert!(reason(&status, "ring").contains("capped"), "{status:#}");
    assert!(reason(&status, "words").contains("collation"), "{status:#}");
    let on_b: Vec<String> = schema(env.b.client()).await.into_keys().collect();
    assert_eq!(on_b, ["shop.orders"]);
    tandem.stop().await;
}
