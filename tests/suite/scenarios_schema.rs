//! Collections, views and indexes of every kind come out the same, copied and streamed.

use bson::{Bson, Document, doc};

use crate::scenarios_collation::{
    a_clustered_collection_with_a_collation, a_unique_index_under_a_collation,
    keys_that_are_equal_under_a_collation,
};
use crate::support::scenario::{Phase, Scenario, Scene, play, scenarios};

const SCENARIOS: &[Scenario] = scenarios![
    collections_with_every_option,
    options_that_change,
    views_of_every_kind,
    indexes_of_every_kind,
    indexes_that_change_and_go,
    collections_that_are_renamed,
    collections_that_go_and_come_back,
    a_database_that_is_dropped,
    collections_made_in_a_transaction,
    changes_between_writes,
    keys_that_are_equal_under_a_collation,
    a_clustered_collection_with_a_collation,
    a_unique_index_under_a_collation,
    capped_collections,
    a_collection_that_is_made_capped,
    a_time_series,
];

#[tokio::test(flavor = "multi_thread")]
async fn schemas_of_every_kind_are_copied() {
    play(SCENARIOS, Phase::Copied, "one-way").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_of_every_kind_are_streamed() {
    play(SCENARIOS, Phase::Streamed, "one-way").await;
}

async fn insert(scene: &Scene, name: &str, ids: std::ops::Range<i32>) {
    let documents = ids.map(|id| doc! { "_id": id, "v": id % 7 });
    let collection = scene.collection(name);
    collection.insert_many(documents).await.unwrap();
}

async fn collections_with_every_option(scene: Scene) {
    for command in [
        doc! { "create": "plain" },
        doc! { "create": "checked", "validator": { "v": { "$lt": 9 } }, "validationLevel": "moderate", "validationAction": "warn" },
        doc! { "create": "schema", "validator": { "$jsonSchema": { "required": ["v"] } } },
        doc! { "create": "imaged", "changeStreamPreAndPostImages": { "enabled": true } },
        doc! { "create": "packed", "storageEngine": { "wiredTiger": { "configString": "block_compressor=zlib" } } },
        doc! { "create": "clustered", "clusteredIndex": { "key": { "_id": 1 }, "unique": true } },
        doc! { "create": "clustered ttl", "clusteredIndex": { "key": { "_id": 1 }, "unique": true, "name": "by id" }, "expireAfterSeconds": 1_000_000 },
        doc! { "create": "index options", "indexOptionDefaults": { "storageEngine": { "wiredTiger": { "configString": "prefix_compression=false" } } } },
        doc! { "create": "simple", "collation": { "locale": "simple" } },
    ] {
        let name = command.get_str("create").unwrap().to_owned();
        scene.run(command).await;
        insert(&scene, &name, 0..50).await;
    }
}

async fn options_that_change(scene: Scene) {
    for name in ["checked", "imaged", "aging"] {
        let mut create = doc! { "create": name };
        if name == "aging" {
            create.insert(
                "clusteredIndex",
                doc! { "key": { "_id": 1 }, "unique": true },
            );
        }
        scene.run(create).await;
        insert(&scene, name, 0..20).await;
    }
    for command in [
        doc! { "collMod": "checked", "validator": { "v": { "$gt": 100 } } },
        doc! { "collMod": "checked", "validationLevel": "off" },
        doc! { "collMod": "checked", "validationLevel": "strict", "validationAction": "warn" },
        doc! { "collMod": "imaged", "changeStreamPreAndPostImages": { "enabled": true } },
        doc! { "collMod": "aging", "expireAfterSeconds": 1_000_000 },
        doc! { "collMod": "aging", "expireAfterSeconds": 2_000_000 },
    ] {
        scene.run(command).await;
    }
    insert(&scene, "checked", 20..30).await;
}

async fn views_of_every_kind(scene: Scene) {
    insert(&scene, "plain", 0..20).await;
    for command in [
        doc! { "create": "view", "viewOn": "plain", "pipeline": [{ "$match": { "v": 1 } }] },
        doc! { "create": "view of a view", "viewOn": "view", "pipeline": [{ "$project": { "v": 1 } }] },
        doc! { "create": "sorted", "viewOn": "plain", "pipeline": [], "collation": { "locale": "fr", "strength": 1 } },
        doc! { "create": "of nothing", "viewOn": "missing", "pipeline": [] },
        doc! { "create": "changed", "viewOn": "plain", "pipeline": [] },
        doc! { "create": "gone", "viewOn": "plain", "pipeline": [] },
        doc! { "collMod": "changed", "viewOn": "view", "pipeline": [{ "$match": { "_id": 1 } }] },
        doc! { "drop": "gone" },
        doc! { "create": "source", "validator": { "x": 1 } },
        doc! { "create": "outlives", "viewOn": "source", "pipeline": [] },
        doc! { "drop": "source" },
    ] {
        scene.run(command).await;
    }
}

fn every_index() -> Vec<Document> {
    vec![
        doc! { "key": { "u": 1 }, "name": "unique", "unique": true },
        doc! { "key": { "s": 1, "r": -1 }, "name": "sparse", "sparse": true },
        doc! { "key": { "p": 1 }, "name": "partial", "partialFilterExpression": { "p": { "$gt": 1 } } },
        doc! { "key": { "q": 1 }, "name": "partial unique", "unique": true, "partialFilterExpression": { "q": { "$exists": true } } },
        doc! { "key": { "t": 1 }, "name": "ttl", "expireAfterSeconds": 1_000_000 },
        doc! { "key": { "c": 1 }, "name": "collated", "collation": { "locale": "fr", "strength": 1, "numericOrdering": true } },
        doc! { "key": { "c": 1 }, "name": "the same key" },
        doc! { "key": { "h": 1 }, "name": "hidden", "hidden": true },
        doc! { "key": { "$**": 1 }, "name": "wildcard", "wildcardProjection": { "w": 1 } },
        doc! { "key": { "in.$**": 1 }, "name": "wildcard inside" },
        doc! { "key": { "x": "text", "y": "text" }, "name": "text", "weights": { "x": 3 }, "default_language": "french" },
        doc! { "key": { "g": "2dsphere", "v": 1 }, "name": "sphere" },
        doc! { "key": { "f": "2d" }, "name": "flat", "bits": 20, "min": -10.0, "max": 10.0 },
        doc! { "key": { "hash": "hashed" }, "name": "hashed" },
        doc! { "key": { "m.n": 1 }, "name": "multikey" },
        doc! { "key": { "ready": 1 }, "name": "prepared" },
        doc! { "key": { "e": 1 }, "name": "engine", "storageEngine": { "wiredTiger": { "configString": "prefix_compression=false" } } },
    ]
}

async fn indexes_of_every_kind(scene: Scene) {
    scene.run(doc! { "create": "empty" }).await;
    for id in 0..20 {
        let whole = doc! {
            "_id": id, "u": id, "p": id, "q": id, "c": format!("é{id}"), "x": "un mot",
            "g": { "type": "Point", "coordinates": [1, id] }, "f": [0.5, 0.5],
            "m": [{ "n": 1 }, { "n": [2] }], "t": bson::DateTime::now(), "ready": id,
        };
        scene.collection("full").insert_one(whole).await.unwrap();
    }
    for name in ["empty", "full"] {
        scene
            .run(doc! { "createIndexes": name, "indexes": every_index() })
            .await;
        let prepared = doc! { "name": "prepared", "prepareUnique": true };
        scene.run(doc! { "collMod": name, "index": prepared }).await;
    }
}

async fn indexes_that_change_and_go(scene: Scene) {
    insert(&scene, "all", 0..20).await;
    scene
        .run(doc! { "createIndexes": "all", "indexes": every_index().split_off(4) })
        .await;
    for index in [
        doc! { "name": "hidden", "hidden": false },
        doc! { "name": "ttl", "expireAfterSeconds": 2_000_000 },
        doc! { "name": "multikey", "expireAfterSeconds": 3_000_000 },
    ] {
        // A key of two fields or a path may refuse to expire.
        let change = doc! { "collMod": "all", "index": index };
        let _ = scene.database.run_command(change).await;
    }
    for index in [
        Bson::from("hidden"),
        Bson::from(doc! { "in.$**": 1 }),
        Bson::from(vec!["flat", "engine"]),
    ] {
        scene
            .run(doc! { "dropIndexes": "all", "index": index })
            .await;
    }
    let again = doc! { "key": { "h": -1 }, "name": "hidden", "sparse": true };
    scene
        .run(doc! { "createIndexes": "all", "indexes": [again] })
        .await;
    insert(&scene, "bare", 0..5).await;
    let two = vec![
        doc! { "key": { "v": 1 }, "name": "v" },
        doc! { "key": { "w": 1 }, "name": "w" },
    ];
    scene
        .run(doc! { "createIndexes": "bare", "indexes": two })
        .await;
    scene
        .run(doc! { "dropIndexes": "bare", "index": "*" })
        .await;
}

async fn rename(scene: &Scene, from: &str, to: (&str, &str), drop_target: bool) {
    let full = |database: &str, name: &str| format!("{database}.{name}");
    let command = doc! {
        "renameCollection": full(scene.database.name(), from),
        "to": full(to.0, to.1),
        "dropTarget": drop_target,
    };
    let admin = scene.client.database("admin");
    admin.run_command(command).await.unwrap();
}

async fn collections_that_are_renamed(scene: Scene) {
    let here = scene.database.name().to_owned();
    insert(&scene, "one", 0..10).await;
    rename(&scene, "one", (&here, "two"), false).await;
    insert(&scene, "two", 10..20).await;
    insert(&scene, "one", 0..5).await;
    rename(&scene, "two", (&here, "three"), false).await;
    insert(&scene, "three", 20..30).await;
    insert(&scene, "fresh", 0..3).await;
    rename(&scene, "fresh", (&here, "three"), true).await;
    insert(&scene, "three", 3..6).await;
    // There and back again.
    rename(&scene, "one", (&here, "other"), false).await;
    rename(&scene, "other", (&here, "one"), false).await;
    insert(&scene, "moved", 0..50).await;
    let second = format!("{here}2");
    rename(&scene, "moved", (&second, "arrived"), false).await;
}

async fn collections_that_go_and_come_back(scene: Scene) {
    for round in 0..5 {
        insert(&scene, "all", round * 10..round * 10 + 20).await;
        let index = doc! { "key": { "v": 1 }, "name": format!("round {round}") };
        scene
            .run(doc! { "createIndexes": "all", "indexes": [index] })
            .await;
        if round < 4 {
            scene.run(doc! { "drop": "all" }).await;
        }
    }
    insert(&scene, "gone", 0..20).await;
    scene.run(doc! { "drop": "gone" }).await;
}

async fn a_database_that_is_dropped(scene: Scene) {
    for _ in 0..2 {
        insert(&scene, "one", 0..20).await;
        scene
            .run(doc! { "create": "view", "viewOn": "one", "pipeline": [] })
            .await;
        scene.run(doc! { "dropDatabase": 1 }).await;
    }
    insert(&scene, "two", 0..20).await;
}

async fn collections_made_in_a_transaction(scene: Scene) {
    let mut session = scene.client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let made = scene.collection("made");
    scene
        .database
        .create_collection("made")
        .session(&mut session)
        .await
        .unwrap();
    let index = mongodb::IndexModel::builder().keys(doc! { "x": 1 }).build();
    made.create_index(index)
        .session(&mut session)
        .await
        .unwrap();
    let documents = (0..20).map(|id| doc! { "_id": id });
    made.insert_many(documents)
        .session(&mut session)
        .await
        .unwrap();
    session.commit_transaction().await.unwrap();
}

async fn changes_between_writes(scene: Scene) {
    let all = scene.collection("all");
    for round in 0..5 {
        insert(&scene, "all", round * 20..round * 20 + 20).await;
        let index = doc! { "key": { format!("r{round}"): 1 }, "name": format!("r{round}") };
        scene
            .run(doc! { "createIndexes": "all", "indexes": [index] })
            .await;
        let set = doc! { "$set": { "round": round } };
        all.update_many(doc! { "v": 1 }, set).await.unwrap();
        scene
            .run(doc! { "collMod": "all", "validator": { "round": { "$ne": round + 100 } } })
            .await;
        all.delete_many(doc! { "v": round }).await.unwrap();
    }
}

async fn capped_collections(scene: Scene) {
    for (name, max) in [("ring", 10_i64), ("roomy", 100_000)] {
        scene
            .run(doc! { "create": name, "capped": true, "size": 100_000, "max": max })
            .await;
        insert(&scene, name, 0..30).await;
        scene.is_not_kept(name);
    }
}

async fn a_collection_that_is_made_capped(scene: Scene) {
    insert(&scene, "plain", 0..30).await;
    scene
        .run(doc! { "convertToCapped": "plain", "size": 100_000 })
        .await;
    scene.is_not_kept("plain");
}

async fn a_time_series(scene: Scene) {
    let options = doc! { "timeField": "at", "metaField": "from", "granularity": "minutes" };
    scene
        .run(doc! { "create": "series", "timeseries": options, "expireAfterSeconds": 1_000_000_000_i64 })
        .await;
    let measured = (0..100).map(|number| {
        doc! { "at": bson::DateTime::now(), "from": number % 3, "value": number }
    });
    let series = scene.collection("series");
    series.insert_many(measured).await.unwrap();
    scene.is_not_kept("series");
}
