//! Writes of every kind and in every order come out the same, copied and streamed.

use bson::{Bson, Document, doc};
use mongodb::Collection;
use mongodb::options::ReturnDocument;

use crate::scenarios_transactions::{
    a_transaction_larger_than_a_message, a_transaction_of_ten_thousand_documents,
    a_transaction_over_collections_and_databases, an_aborted_transaction, session,
};
use crate::support::operators;
use crate::support::random::{Random, scaled};
use crate::support::scenario::{Phase, Scenario, Scene, play, scenarios};

const SCENARIOS: &[Scenario] = scenarios![
    writes_of_every_method,
    bulk_writes_in_order_and_not,
    upserts_by_every_method,
    find_and_modify_of_every_kind,
    one_update_of_ten_thousand_documents,
    updates_that_change_nothing,
    operators_of_every_kind,
    pipelines_of_every_kind,
    arrays_that_shrink_and_grow,
    a_thousand_updates_of_one_document,
    a_document_that_comes_and_goes,
    unique_values_that_are_handed_over,
    unique_values_that_are_swapped_in_a_transaction,
    a_transaction_over_collections_and_databases,
    a_transaction_of_ten_thousand_documents,
    a_transaction_larger_than_a_message,
    an_aborted_transaction,
    an_update_of_thousands_of_fields,
    many_documents_of_a_hundred_kilobytes,
];

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_every_kind_are_copied() {
    play(SCENARIOS, Phase::Copied, "two-way").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_every_kind_are_streamed() {
    play(SCENARIOS, Phase::Streamed, "two-way").await;
}

pub fn one(id: i32) -> Document {
    doc! { "_id": id }
}

pub fn numbered(ids: std::ops::Range<i32>) -> Vec<Document> {
    ids.map(|id| doc! { "_id": id, "v": 0 }).collect()
}

async fn writes_of_every_method(scene: Scene) {
    let all = scene.collection("all");
    all.insert_one(doc! { "_id": 1, "v": 1 }).await.unwrap();
    all.insert_many(numbered(2..50)).await.unwrap();
    all.insert_many([doc! { "_id": 2 }, doc! { "_id": 50, "v": 0 }])
        .ordered(false)
        .await
        .expect_err("2 is there");
    let set = doc! { "$set": { "w": 1 } };
    all.update_one(one(1), set.clone()).await.unwrap();
    all.update_many(doc! { "_id": { "$gt": 40 } }, set)
        .await
        .unwrap();
    all.replace_one(one(3), doc! { "replaced": true })
        .await
        .unwrap();
    all.delete_one(one(4)).await.unwrap();
    all.delete_many(doc! { "_id": { "$in": [5, 6, 7] } })
        .await
        .unwrap();
}

async fn bulk_writes_in_order_and_not(scene: Scene) {
    for (name, ordered) in [("in order", true), ("at will", false)] {
        let updates: Vec<Document> = (0..100)
            .map(|id| {
                doc! { "q": { "_id": id % 10 }, "u": { "$inc": { "v": 1 } }, "upsert": true }
            })
            .collect();
        let update = doc! { "update": name, "updates": updates, "ordered": ordered };
        scene.run(update).await;
        let deletes: Vec<Document> = (0..5)
            .map(|id| doc! { "q": { "_id": id }, "limit": 1 })
            .collect();
        scene
            .run(doc! { "delete": name, "deletes": deletes, "ordered": ordered })
            .await;
    }
}

async fn upserts_by_every_method(scene: Scene) {
    let all = scene.collection("all");
    for round in 0..2 {
        let set = doc! { "$set": { "round": round }, "$setOnInsert": { "first": round } };
        all.update_one(one(1), set.clone())
            .upsert(true)
            .await
            .unwrap();
        all.update_many(doc! { "_id": 2, "by": "filter" }, set.clone())
            .upsert(true)
            .await
            .unwrap();
        all.replace_one(one(3), doc! { "round": round })
            .upsert(true)
            .await
            .unwrap();
        all.find_one_and_update(one(4), set)
            .upsert(true)
            .await
            .unwrap();
        all.find_one_and_replace(one(5), doc! { "round": round })
            .upsert(true)
            .await
            .unwrap();
        let pipeline = vec![doc! { "$set": { "round": round, "old": "$round" } }];
        all.update_one(one(6), pipeline).upsert(true).await.unwrap();
        let merged = doc! { "$merge": { "into": "merged", "on": "_id" } };
        let from = scene.collection("all");
        from.aggregate([merged]).await.unwrap();
    }
    let out = doc! { "$out": "written out" };
    scene.collection("all").aggregate([out]).await.unwrap();
}

async fn find_and_modify_of_every_kind(scene: Scene) {
    let all = scene.collection("all");
    all.insert_many(numbered(0..30)).await.unwrap();
    for id in 0..10 {
        all.find_one_and_update(one(id), doc! { "$inc": { "v": 2 } })
            .return_document(ReturnDocument::After)
            .await
            .unwrap();
        all.find_one_and_replace(one(id + 10), doc! { "v": id })
            .await
            .unwrap();
        all.find_one_and_delete(one(id + 20))
            .sort(doc! { "v": 1 })
            .await
            .unwrap();
    }
}

async fn one_update_of_ten_thousand_documents(scene: Scene) {
    let many = scene.collection("many");
    many.insert_many(numbered(0..10_000)).await.unwrap();
    for _ in 0..2 {
        let inc = doc! { "$inc": { "v": 1 } };
        many.update_many(doc! {}, inc).await.unwrap();
    }
    many.delete_many(doc! { "_id": { "$mod": [3, 0] } })
        .await
        .unwrap();
}

async fn updates_that_change_nothing(scene: Scene) {
    let all = scene.collection("all");
    all.insert_many(numbered(0..20)).await.unwrap();
    all.update_many(doc! {}, doc! { "$set": { "v": 0 } })
        .await
        .unwrap();
    all.replace_one(one(1), doc! { "v": 0 }).await.unwrap();
    all.delete_one(one(99)).await.unwrap();
}

async fn operators_of_every_kind(scene: Scene) {
    let mut random = Random::new(7);
    let all = scene.collection("all");
    for key in 0..40 {
        let whole = operators::document(&mut random, key, Vec::new());
        all.insert_one(whole).await.unwrap();
        let one = doc! { "_id": operators::id_of(key) };
        for step in 0..12 {
            let id = format!("w{step}");
            let update = operators::update(&mut random, &id);
            // Some operators refuse what others have left behind.
            let _ = all.update_one(one.clone(), update).await;
            let (update, filter) = operators::filtered_update(&mut random, &id);
            let _ = all
                .update_one(one.clone(), update)
                .array_filters([filter])
                .await;
        }
    }
    for update in [
        doc! { "$set": { "items.$.qty": -1 } },
        doc! { "$rename": { "nested.deep": "deep" } },
        doc! { "$currentDate": { "at": { "$type": "timestamp" } } },
        doc! { "$bit": { "flags": { "and": 6 } } },
        doc! { "$bit": { "flags": { "or": 64_i64 } } },
        doc! { "$push": { "seen": { "$each": [], "$slice": 2 } } },
        doc! { "$pull": { "items": { "qty": { "$gt": 500 } } } },
    ] {
        let filter = doc! { "items.qty": { "$exists": true } };
        all.update_many(filter, update).await.unwrap();
    }
}

async fn pipelines_of_every_kind(scene: Scene) {
    let all = scene.collection("all");
    for id in 0..5 {
        let whole = doc! { "_id": id, "list": [3, 1, 2], "in": { "x": 1, "y": 2 }, "n": id };
        all.insert_one(whole).await.unwrap();
    }
    for stage in [
        doc! { "$set": { "in": { "$literal": { "$x": 1, "a.b": 2 } } } },
        doc! { "$set": { "list": { "$slice": ["$list", 1] } } },
        doc! { "$unset": ["in.a", "n"] },
        doc! { "$replaceWith": { "$setField": { "field": "p.q", "input": "$$ROOT", "value": 1 } } },
        doc! { "$replaceWith": { "$setField": { "field": "p.q", "input": "$$ROOT", "value": { "r": 2 } } } },
        doc! { "$replaceRoot": { "newRoot": { "$mergeObjects": [{ "first": 0 }, "$$ROOT"] } } },
        doc! { "$project": { "list": 1, "first": 1 } },
        doc! { "$addFields": { "list": { "$concatArrays": ["$list", [{ "0": 1 }, "$first"]] } } },
        doc! { "$set": { "list.0": 9 } },
    ] {
        all.update_many(doc! {}, vec![stage]).await.unwrap();
    }
}

async fn arrays_that_shrink_and_grow(scene: Scene) {
    let arrays = scene.collection("arrays");
    let long: Vec<i32> = (0..200).collect();
    let whole = doc! { "_id": 1, "l": long.clone(), "in": { "l": [[1, 2], [3]] }, "at": {} };
    arrays.insert_one(whole).await.unwrap();
    for update in [
        doc! { "$pop": { "l": 1 } },
        doc! { "$push": { "l": { "$each": [7, 8], "$slice": -10 } } },
        doc! { "$set": { "l.25": "beyond the end" } },
        doc! { "$unset": { "l.3": "" } },
        doc! { "$set": { "in.l.0.5": 1, "in.l.4": [] } },
        doc! { "$set": { "at.0": 1, "at.10": 2 } },
        doc! { "$set": { "l": long } },
        doc! { "$push": { "l": { "$each": [-1], "$position": 3 } } },
        doc! { "$pull": { "l": { "$gt": 4 } }, "$set": { "in.l": [] } },
        doc! { "$set": { "l": {} } },
        doc! { "$set": { "l.0": "a field now" } },
    ] {
        arrays.update_one(one(1), update).await.unwrap();
    }
    let slice = vec![doc! { "$set": { "in.l": [1, 2, 3] } }];
    arrays.update_one(one(1), slice).await.unwrap();
    let cut = vec![doc! { "$set": { "in.l": { "$slice": ["$in.l", 1] }, "x": "$l" } }];
    arrays.update_one(one(1), cut).await.unwrap();
}

async fn a_thousand_updates_of_one_document(scene: Scene) {
    let hot = scene.collection("hot");
    hot.insert_one(doc! { "_id": 1, "v": 0 }).await.unwrap();
    for round in 0..1000 {
        let update = doc! { "$inc": { "v": 1 }, "$set": { format!("f{}", round % 7): round } };
        hot.update_one(one(1), update).await.unwrap();
    }
}

async fn a_document_that_comes_and_goes(scene: Scene) {
    let all = scene.collection("all");
    for id in 0..20 {
        for round in 0..=id % 5 {
            let whole = doc! { "_id": id, "round": round };
            all.insert_one(whole).await.unwrap();
            let set = doc! { "$set": { "x": round } };
            all.update_one(one(id), set).await.unwrap();
            if id % 2 == 0 || round < id % 5 {
                all.delete_one(one(id)).await.unwrap();
            }
        }
    }
}

async fn unique(scene: &Scene, name: &str) -> Collection<Document> {
    let index = doc! { "key": { "k": 1 }, "name": "k", "unique": true };
    scene
        .run(doc! { "createIndexes": name, "indexes": [index] })
        .await;
    scene.collection(name)
}

async fn set_k(all: &Collection<Document>, id: i32, k: impl Into<Bson>) {
    let set = doc! { "$set": { "k": k.into() } };
    all.update_one(one(id), set).await.unwrap();
}

async fn unique_values_that_are_handed_over(scene: Scene) {
    let all = unique(&scene, "unique").await;
    for id in 0..10 {
        all.insert_one(doc! { "_id": id, "k": id }).await.unwrap();
    }
    for round in 1..10 {
        set_k(&all, 0, "free").await;
        for id in 1..10 {
            let was = all.find_one(one(id)).await.unwrap().unwrap();
            set_k(&all, id, format!("between {id}")).await;
            let next = (id + 1) % 10;
            if next != 0 {
                set_k(&all, next, format!("moved {round}")).await;
                set_k(&all, next, format!("between {next}")).await;
            }
            set_k(&all, id, was.get("k").unwrap().clone()).await;
        }
        set_k(&all, 0, 0).await;
        all.delete_one(one(9)).await.unwrap();
        all.insert_one(doc! { "_id": 9, "k": 9 }).await.unwrap();
    }
}

async fn unique_values_that_are_swapped_in_a_transaction(scene: Scene) {
    let all = unique(&scene, "swapped").await;
    for id in 0..2 {
        all.insert_one(doc! { "_id": id, "k": id }).await.unwrap();
    }
    for round in 0..10 {
        let mut session = session(&scene).await;
        let first = round % 2;
        for (id, k) in [(0, -1), (1, first), (0, 1 - first)] {
            let set = doc! { "$set": { "k": k } };
            all.update_one(one(id), set)
                .session(&mut session)
                .await
                .unwrap();
        }
        session.commit_transaction().await.unwrap();
    }
}

async fn an_update_of_thousands_of_fields(scene: Scene) {
    let wide = scene.collection("wide");
    wide.insert_one(one(1)).await.unwrap();
    for round in 0..3 {
        let mut set = Document::new();
        for field in 0..5000 {
            set.insert(format!("f{field}.x"), round);
        }
        let update = doc! { "$set": set };
        wide.update_one(one(1), update).await.unwrap();
    }
    let lists: Document = (0..300)
        .map(|list| (format!("l{list}"), Bson::from(vec![1, 2, 3])))
        .collect();
    wide.insert_one(doc! { "_id": 2, "in": lists })
        .await
        .unwrap();
    let mut cut = Document::new();
    for list in 0..300 {
        cut.insert(
            format!("in.l{list}"),
            doc! { "$slice": [format!("$in.l{list}"), 2] },
        );
    }
    let pipeline = vec![doc! { "$set": cut }];
    wide.update_one(one(2), pipeline).await.unwrap();
}

/// More than one message holds, at scale 1.
async fn many_documents_of_a_hundred_kilobytes(scene: Scene) {
    let all = scene.collection("all");
    let count = scaled(1000) as i32;
    for first in (0..count).step_by(100) {
        let text = "x".repeat(100_000);
        let some = (first..first + 100).map(|id| doc! { "_id": id, "x": &text });
        all.insert_many(some).await.unwrap();
    }
    let other = doc! { "$set": { "x": "y".repeat(100_000) } };
    all.update_many(doc! {}, other).await.unwrap();
}
