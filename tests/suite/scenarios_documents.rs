//! Documents and collections that are large, empty, refused or oddly named.

use bson::spec::BinarySubtype;
use bson::{Binary, doc, rawdoc};

use crate::support::scenario::Scene;

pub async fn documents_of_the_largest_size(scene: Scene) {
    const LARGEST: usize = 16 * 1024 * 1024;
    let large = scene.raw("large");
    let around = rawdoc! { "_id": 1, "x": "" }.as_bytes().len();
    for id in 1..=3 {
        let document = rawdoc! { "_id": id, "x": "x".repeat(LARGEST - around) };
        large.insert_one(document).await.unwrap();
    }
    let large = scene.collection("large");
    let second = doc! { "_id": 2 };
    let whole = doc! { "_id": 2, "x": "y".repeat(LARGEST - around) };
    large.replace_one(second, whole).await.unwrap();
    large.delete_one(doc! { "_id": 3 }).await.unwrap();
    large.insert_one(doc! { "_id": 4 }).await.unwrap();
    let set = doc! { "$set": { "x": "z".repeat(10 * 1024 * 1024) } };
    large.update_one(doc! { "_id": 4 }, set).await.unwrap();
}

pub async fn documents_that_the_validator_refuses(scene: Scene) {
    let validator = doc! { "x": { "$type": "int" } };
    scene
        .run(doc! { "create": "checked", "validator": validator })
        .await;
    let checked = scene.collection("checked");
    let unlike = (0..10).map(|id| doc! { "_id": id, "x": "no number" });
    checked
        .insert_many(unlike)
        .bypass_document_validation(true)
        .await
        .unwrap();
    let set = doc! { "$set": { "y": 1 } };
    checked
        .update_one(doc! { "_id": 3 }, set)
        .bypass_document_validation(true)
        .await
        .unwrap();
}

pub async fn a_file_in_chunks(scene: Scene) {
    const CHUNK: usize = 255 * 1024;
    for (collection, key) in [
        ("fs.files", doc! { "filename": 1, "uploadDate": 1 }),
        ("fs.chunks", doc! { "files_id": 1, "n": 1 }),
    ] {
        let unique = collection == "fs.chunks";
        let index = doc! { "key": key, "name": "of gridfs", "unique": unique };
        scene
            .run(doc! { "createIndexes": collection, "indexes": [index] })
            .await;
    }
    for file in 0..3 {
        let chunks = (0..8).map(|n| {
            let data = Binary {
                subtype: BinarySubtype::Generic,
                bytes: vec![n as u8 ^ file as u8; CHUNK],
            };
            doc! { "files_id": file, "n": n, "data": data }
        });
        let into = scene.collection("fs.chunks");
        into.insert_many(chunks).await.unwrap();
        let length = (8 * CHUNK) as i64;
        let entry =
            doc! { "_id": file, "length": length, "chunkSize": CHUNK as i32, "filename": "f" };
        scene
            .collection("fs.files")
            .insert_one(entry)
            .await
            .unwrap();
    }
}

pub async fn empty_documents_and_collections(scene: Scene) {
    scene.run(doc! { "create": "empty" }).await;
    scene.run(doc! { "create": "emptied" }).await;
    let emptied = scene.collection("emptied");
    emptied.insert_one(doc! { "_id": 1 }).await.unwrap();
    emptied.delete_one(doc! { "_id": 1 }).await.unwrap();
    let bare = scene.collection("bare");
    bare.insert_one(doc! {}).await.unwrap();
}

pub async fn names_of_collections_that_are_hard_to_quote(scene: Scene) {
    let room = 255 - scene.database.name().len() - 1;
    for name in [
        "with.dots.in.it",
        "with space",
        "über-日本-🦀",
        "-dash",
        "_under",
        "\"quoted'`",
        "back\\slash/slash",
        "star*",
        "#hash",
        "a#0123456789abcdef0123456789abcdef",
        &"x".repeat(room),
    ] {
        scene.run(doc! { "create": name }).await;
        let collection = scene.collection(name);
        collection.insert_one(doc! { "_id": 1 }).await.unwrap();
        let set = doc! { "$set": { "x": 1 } };
        collection.update_one(doc! { "_id": 1 }, set).await.unwrap();
        let index = doc! { "key": { "x": 1 }, "name": "x", "unique": true };
        scene
            .run(doc! { "createIndexes": name, "indexes": [index] })
            .await;
    }
}
