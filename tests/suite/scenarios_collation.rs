//! Keys and values that are equal under the default collation of their collection.

use bson::{Bson, doc};

use crate::support::scenario::Scene;

async fn write_under_a_collation(scene: &Scene, name: &str) {
    let words = scene.collection(name);
    let id = |id: &str| doc! { "_id": id };
    for word in ["a", "B", "ç", "delta", "Echo"] {
        words
            .insert_one(doc! { "_id": word, "v": 0 })
            .await
            .unwrap();
    }
    for (number, key) in [
        Bson::from(1),
        Bson::from(doc! { "k": "x" }),
        Bson::Null,
        Bson::from(bson::oid::ObjectId::from_bytes([1; 12])),
    ]
    .into_iter()
    .enumerate()
    {
        words
            .insert_one(doc! { "_id": key, "v": number as i32 })
            .await
            .unwrap();
    }
    words
        .update_one(id("b"), doc! { "$set": { "v": 1 } })
        .await
        .unwrap();
    words
        .update_one(id("DELTA"), doc! { "$set": { "w": 2 } })
        .await
        .unwrap();
    words.delete_one(id("ECHO")).await.unwrap();
    for round in 0..30 {
        for word in ["a", "A"] {
            words.delete_one(id("a")).await.unwrap();
            words
                .insert_one(doc! { "_id": word, "round": round })
                .await
                .unwrap();
            words
                .update_one(id("A"), doc! { "$set": { "by": word } })
                .await
                .unwrap();
        }
    }
    words
        .insert_one(doc! { "_id": "{k: X}", "v": 1 })
        .await
        .unwrap();
    let nested = doc! { "_id": { "k": "X" } };
    words.replace_one(nested, doc! { "v": 9 }).await.unwrap();
}

pub async fn keys_that_are_equal_under_a_collation(scene: Scene) {
    for (name, collation) in [
        ("words", doc! { "locale": "en", "strength": 2 }),
        (
            "numbered",
            doc! { "locale": "fr", "strength": 1, "numericOrdering": true },
        ),
        (
            "shifted",
            doc! { "locale": "de", "strength": 2, "alternate": "shifted" },
        ),
    ] {
        scene
            .run(doc! { "create": name, "collation": collation })
            .await;
        write_under_a_collation(&scene, name).await;
    }
}

pub async fn a_clustered_collection_with_a_collation(scene: Scene) {
    scene
        .run(doc! {
            "create": "clustered",
            "clusteredIndex": { "key": { "_id": 1 }, "unique": true },
            "collation": { "locale": "en", "strength": 2 },
        })
        .await;
    write_under_a_collation(&scene, "clustered").await;
}

pub async fn a_unique_index_under_a_collation(scene: Scene) {
    scene
        .run(doc! { "create": "words", "collation": { "locale": "en", "strength": 2 } })
        .await;
    let indexes = vec![
        doc! { "key": { "w": 1 }, "name": "w", "unique": true },
        doc! { "key": { "w": 1, "v": 1 }, "name": "plain", "collation": { "locale": "simple" } },
    ];
    scene
        .run(doc! { "createIndexes": "words", "indexes": indexes })
        .await;
    let words = scene.collection("words");
    for (id, word) in ["x", "y", "z"].into_iter().enumerate() {
        words
            .insert_one(doc! { "_id": id as i32, "w": word })
            .await
            .unwrap();
    }
    for round in 0..10 {
        for (id, word) in [(0, "free"), (1, "X"), (1, "Y"), (0, "x")] {
            let set = doc! { "$set": { "w": word, "v": round } };
            words.update_one(doc! { "_id": id }, set).await.unwrap();
        }
    }
}
