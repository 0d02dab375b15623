//! Changes of collections go from a to b: every kind, with every option, in their place.

use std::time::Duration;

use bson::{Document, doc};
use serde_json::json;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::Mongod;
use crate::support::schema::{assert_same_schema, run, schema};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

fn one_way(env: &TestEnv) -> LinkConfig {
    env.link().one_way()
}

async fn insert(cluster: &Mongod, name: &str, documents: Vec<Document>) {
    let collection = cluster.client().database("shop").collection(name);
    collection.insert_many(documents).await.expect("inserted");
}

async fn settled(env: &TestEnv, tandem: &Tandem) {
    tandem
        .wait_status("nothing waits", SOON, |status| {
            status["pipelines"][0]["lag_seconds"] == 0.0
        })
        .await;
    assert_same_schema(env, SOON).await;
    assert_converged(env, SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_and_views_arrive_with_every_option() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&one_way(&env)).await;
    for command in [
        doc! { "create": "plain" },
        doc! { "create": "checked", "validator": { "x": { "$gt": 0 } }, "validationLevel": "moderate", "validationAction": "warn" },
        doc! { "create": "imaged", "changeStreamPreAndPostImages": { "enabled": true } },
        doc! { "create": "packed", "storageEngine": { "wiredTiger": { "configString": "block_compressor=zlib" } } },
        doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true, "name": "by id" }, "expireAfterSeconds": 100_000 },
        doc! { "create": "view", "viewOn": "plain", "pipeline": [{ "$match": { "x": 1 } }] },
        doc! { "create": "sorted view", "viewOn": "plain", "pipeline": [], "collation": { "locale": "fr" } },
        doc! { "create": "gone view", "viewOn": "plain", "pipeline": [] },
        doc! { "collMod": "view", "viewOn": "checked", "pipeline": [{ "$match": { "x": 2 } }] },
        doc! { "drop": "gone view" },
        doc! { "collMod": "plain", "validator": { "y": { "$lt": 9 } } },
        doc! { "collMod": "checked", "validator": {}, "validationLevel": "off" },
        doc! { "collMod": "imaged", "changeStreamPreAndPostImages": { "enabled": false } },
        doc! { "collMod": "clustered", "expireAfterSeconds": 200_000 },
    ] {
        run(&env.a, command).await;
    }
    insert(&env.a, "plain", vec![doc! { "_id": 1, "y": 1 }]).await;
    insert(&env.a, "clustered", vec![doc! { "_id": 1 }]).await;
    settled(&env, &tandem).await;
    assert_eq!(schema(env.b.client()).await.len(), 7);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_index_arrives_and_changes_as_on_the_source() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&one_way(&env)).await;
    run(&env.a, doc! { "create": "empty" }).await;
    insert(
        &env.a,
        "orders",
        vec![
            doc! { "_id": 1, "u": 1, "q": 1, "s": 1 },
            doc! { "_id": 2, "u": 2, "q": 2, "s": 2 },
        ],
    )
    .await;
    for name in ["empty", "orders"] {
        let indexes = vec![
            doc! { "key": { "u": 1 }, "name": "unique", "unique": true },
            doc! { "key": { "s": 1, "r": -1 }, "name": "sparse", "sparse": true },
            doc! { "key": { "p": 1 }, "name": "partial", "partialFilterExpression": { "p": { "$gt": 1 } } },
            doc! { "key": { "t": 1 }, "name": "ttl", "expireAfterSeconds": 100_000 },
            doc! { "key": { "c": 1 }, "name": "collated", "collation": { "locale": "fr", "strength": 1 } },
            doc! { "key": { "h": 1 }, "name": "hidden", "hidden": true },
            doc! { "key": { "$**": 1 }, "name": "wildcard", "wildcardProjection": { "w": 1 } },
            doc! { "key": { "x": "text", "y": "text" }, "name": "text", "weights": { "x": 3 }, "default_language": "french" },
            doc! { "key": { "g": "2dsphere" }, "name": "sphere" },
            doc! { "key": { "f": "2d" }, "name": "flat", "bits": 20, "min": -10.0, "max": 10.0 },
            doc! { "key": { "hash": "hashed" }, "name": "hashed" },
            doc! { "key": { "q": 1 }, "name": "later" },
            doc! { "key": { "d": 1 }, "name": "dropped" },
        ];
        run(&env.a, doc! { "createIndexes": name, "indexes": indexes }).await;
        for index in [
            doc! { "name": "unique", "hidden": true },
            doc! { "name": "hidden", "hidden": false },
            doc! { "name": "ttl", "expireAfterSeconds": 50_000 },
            doc! { "name": "partial", "expireAfterSeconds": 70_000 },
            doc! { "name": "later", "prepareUnique": true },
            doc! { "name": "later", "unique": true },
            doc! { "name": "sparse", "prepareUnique": true },
        ] {
            run(&env.a, doc! { "collMod": name, "index": index }).await;
        }
        run(&env.a, doc! { "dropIndexes": name, "index": "dropped" }).await;
    }
    settled(&env, &tandem).await;
    let on_b = schema(env.b.client()).await;
    assert_eq!(on_b["shop.orders"].2.len(), 13);

    run(&env.a, doc! { "dropIndexes": "orders", "index": "*" }).await;
    settled(&env, &tandem).await;
    assert_eq!(schema(env.b.client()).await["shop.orders"].2.len(), 1);
    assert!(
        tandem.status()["index_problems"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_follow_in_their_order_with_writes_between() {
    let env = TestEnv::start().await;
    for cluster in [&env.a, &env.b] {
        insert(cluster, "untouched", vec![doc! { "_id": 1, "in": "old" }]).await;
    }
    let mut tandem = env.streaming(&one_way(&env)).await;
    insert(&env.a, "one", vec![doc! { "_id": 1, "in": "one" }]).await;
    let rename = |from: &str, to: &str, drop_target: bool| {
        let admin = env.a.client().database("admin");
        let command = doc! { "renameCollection": from, "to": to, "dropTarget": drop_target };
        async move { admin.run_command(command).await.expect("renamed") }
    };
    rename("shop.one", "shop.two", false).await;
    insert(&env.a, "two", vec![doc! { "_id": 2, "in": "two" }]).await;
    insert(&env.a, "one", vec![doc! { "_id": 1, "in": "a new one" }]).await;
    rename("shop.two", "shop.three", false).await;
    insert(&env.a, "three", vec![doc! { "_id": 3, "in": "three" }]).await;
    settled(&env, &tandem).await;

    insert(&env.a, "fresh", vec![doc! { "_id": 1, "in": "fresh" }]).await;
    rename("shop.fresh", "shop.three", true).await;
    insert(&env.a, "three", vec![doc! { "_id": 2, "in": "three" }]).await;
    rename("shop.one", "bank.other", false).await;
    // As `$out` does, over one that no event was about since the start.
    insert(&env.a, "out", vec![doc! { "_id": 2, "in": "new" }]).await;
    rename("shop.out", "shop.untouched", true).await;
    insert(&env.a, "untouched", vec![doc! { "_id": 3, "in": "newer" }]).await;
    settled(&env, &tandem).await;
    let names: Vec<String> = schema(env.b.client()).await.into_keys().collect();
    assert_eq!(names, ["bank.other", "shop.three", "shop.untouched"]);
    assert_eq!(
        tandem.status()["unpaired_namespaces"],
        serde_json::json!([])
    );
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_and_made_again_at_once_keeps_the_new_one() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "early").await;
    let mut tandem = env.streaming(&one_way(&env)).await;
    // Nobody knows its counterpart yet, and its name is a view's by then.
    tandem.sigstop();
    insert(&env.a, "early", vec![doc! { "_id": 1 }]).await;
    run(&env.a, doc! { "drop": "early" }).await;
    let early = doc! { "create": "early", "viewOn": "orders", "pipeline": [] };
    run(&env.a, early).await;
    tandem.sigcont();
    settled(&env, &tandem).await;
    let orders = env.orders_a();
    for round in 0..10 {
        let documents = (0..20).map(|id| doc! { "_id": id, "round": round });
        orders.insert_many(documents).await.unwrap();
        if round < 9 {
            orders.drop().await.unwrap();
        }
    }
    settled(&env, &tandem).await;
    assert_eq!(env.orders_b().count_documents(doc! {}).await.unwrap(), 20);

    run(
        &env.a,
        doc! { "create": "view", "viewOn": "orders", "pipeline": [] },
    )
    .await;
    settled(&env, &tandem).await;
    env.a.client().database("shop").drop().await.unwrap();
    settled(&env, &tandem).await;
    assert!(schema(env.b.client()).await.is_empty());
    a_view_gives_its_name_to_a_collection_and_gets_it_back(&env, &tandem).await;
    insert(&env.a, "orders", vec![doc! { "_id": 1, "round": "last" }]).await;
    settled(&env, &tandem).await;
    tandem.stop().await;
}

/// Each time both changes are there before the first one has its turn.
async fn a_view_gives_its_name_to_a_collection_and_gets_it_back(env: &TestEnv, tandem: &Tandem) {
    let view = doc! { "create": "name", "viewOn": "orders", "pipeline": [] };
    let shop = env.a.client().database("shop");
    insert(&env.a, "orders", vec![doc! { "_id": 1 }]).await;
    for drop in [doc! { "drop": "name" }, doc! { "dropDatabase": 1 }] {
        run(&env.a, view.clone()).await;
        settled(env, tandem).await;
        tandem.sigstop();
        run(&env.a, drop).await;
        insert(&env.a, "name", vec![doc! { "_id": 1 }]).await;
        tandem.sigcont();
        settled(env, tandem).await;
        tandem.sigstop();
        run(&env.a, doc! { "drop": "name" }).await;
        run(&env.a, view.clone()).await;
        tandem.sigcont();
        settled(env, tandem).await;
        run(&env.a, doc! { "drop": "name" }).await;
    }
    shop.drop().await.unwrap();
    settled(env, tandem).await;
    let unpaired = tandem.status()["unpaired_namespaces"].clone();
    assert_eq!(unpaired, serde_json::json!([]));
    assert!(tandem.conflicts(&["--kind", "ddl"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ddl_in_a_transaction_and_at_a_full_oplog_of_writes_keeps_its_place() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&one_way(&env)).await;
    let mut session = env.a.client().start_session().await.unwrap();
    let shop = env.a.client().database("shop");
    session.start_transaction().await.unwrap();
    shop.create_collection("made")
        .session(&mut session)
        .await
        .unwrap();
    let index = mongodb::IndexModel::builder().keys(doc! { "x": 1 }).build();
    let made = shop.collection::<Document>("made");
    made.create_index(index)
        .session(&mut session)
        .await
        .unwrap();
    for id in 0..50 {
        made.insert_one(doc! { "_id": id })
            .session(&mut session)
            .await
            .unwrap();
    }
    session.commit_transaction().await.unwrap();
    settled(&env, &tandem).await;
    assert_eq!(schema(env.b.client()).await["shop.made"].2.len(), 2);
    tandem.stop().await;
}

/// Another collection has its name and its index then, for a moment.
async fn move_away(env: &TestEnv, unique: &Document) {
    env.a
        .admin(doc! { "renameCollection": "shop.orders", "to": "shop.archive" })
        .await;
    let index = doc! { "createIndexes": "orders", "indexes": [unique] };
    run(&env.a, index).await;
    wait_for("the new one has its index", SOON, || async {
        let on_b = schema(env.b.client()).await;
        let found = on_b.get("shop.orders")?;
        found.2.contains_key("sku").then_some(())
    })
    .await;
    run(&env.a, doc! { "drop": "orders" }).await;
    run(&env.a, doc! { "create": "last" }).await;
    wait_for("the new one is dropped", SOON, || async {
        let on_b = schema(env.b.client()).await;
        (on_b.contains_key("shop.last") && !on_b.contains_key("shop.orders")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_built_is_listed_and_stops_nothing() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&one_way(&env)).await;
    for id in [1, 2] {
        env.orders_b()
            .insert_one(doc! { "_id": id + 10, "sku": 1 })
            .await
            .unwrap();
    }
    let unique = doc! { "key": { "sku": 1 }, "name": "sku", "unique": true };
    run(
        &env.a,
        doc! { "createIndexes": "orders", "indexes": [unique.clone()] },
    )
    .await;
    env.orders_a()
        .insert_one(doc! { "_id": 1, "sku": 7 })
        .await
        .unwrap();
    tandem
        .wait_status("the index is listed", SOON, |status| {
            let problem = &status["index_problems"][0];
            problem["name"] == "sku" && problem["cluster"] == "b"
        })
        .await;
    tandem.kill9();
    tandem.start();
    tandem.wait_until_streaming().await;
    let problems = tandem.status()["index_problems"].clone();
    assert!(
        problems[0]["reason"].as_str().unwrap().contains("11000"),
        "{problems}"
    );

    move_away(&env, &unique).await;
    for restarts in [true, false] {
        let problems = tandem.status()["index_problems"].clone();
        let listed = (&problems[0]["namespace"], &problems[0]["name"]);
        assert_eq!(
            listed,
            (&json!("shop.archive"), &json!("sku")),
            "{problems}"
        );
        assert_eq!(problems.as_array().map(Vec::len), Some(1), "{problems}");
        if restarts {
            tandem.kill9();
            tandem.start();
            tandem.wait_until_streaming().await;
        }
    }

    let shop = env.b.client().database("shop");
    let archive = shop.collection::<Document>("archive");
    archive.delete_one(doc! { "_id": 12 }).await.unwrap();
    run(&env.a, doc! { "dropIndexes": "archive", "index": "sku" }).await;
    let index = doc! { "createIndexes": "archive", "indexes": [unique] };
    run(&env.a, index).await;
    assert_same_schema(&env, SOON).await;
    tandem
        .wait_status("the index is fine", SOON, |status| {
            status["index_problems"]
                .as_array()
                .is_some_and(Vec::is_empty)
        })
        .await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_replicated_is_named_and_nothing_else_stops() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&one_way(&env)).await;
    insert(&env.a, "norm", vec![doc! { "_id": 1 }]).await;
    run(
        &env.a,
        doc! { "create": "series", "timeseries": { "timeField": "at" } },
    )
    .await;
    run(
        &env.a,
        doc! { "create": "ring", "capped": true, "size": 4096 },
    )
    .await;
    run(&env.a, doc! { "convertToCapped": "norm", "size": 9999 }).await;
    insert(&env.a, "orders", vec![doc! { "_id": 1 }]).await;
    for name in ["series", "ring", "norm"] {
        let full = format!("shop.{name}");
        tandem
            .wait_status(&format!("{full} is unpaired"), SOON, |status| {
                let names = status["unpaired_namespaces"].as_array();
                names.is_some_and(|names| names.iter().any(|found| *found == *full))
            })
            .await;
    }
    tandem
        .wait_status("nothing waits", SOON, |status| {
            status["pipelines"][0]["lag_seconds"] == 0.0
        })
        .await;
    let on_b = schema(env.b.client()).await;
    assert!(
        on_b.contains_key("shop.orders") && !on_b.contains_key("shop.series"),
        "{on_b:?}"
    );
    let reasons = tandem.conflicts(&["--kind", "ddl"]).len();
    assert!(reasons >= 4, "{reasons} records");
    tandem.stop().await;
}
