//! Documents and collections that are large, empty, refused or oddly named.

use bson::raw::CStr;
use bson::spec::BinarySubtype;
use bson::{Binary, RawDocumentBuf, Timestamp, cstr, doc, rawdoc};

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

/// One more level, and the server refuses the document.
pub async fn as_many_levels_as_a_server_takes(scene: Scene) {
    const LEVELS: usize = 180;
    let nested = |bottom: &str| {
        let innermost = doc! { "bottom": bottom };
        (2..LEVELS).fold(innermost, |inner, _| doc! { "d": inner })
    };
    let deep = scene.collection("deep");
    for id in 1..=4 {
        let row = doc! { "_id": id, "d": nested("first") };
        deep.insert_one(row).await.unwrap();
    }
    let path = |end: &str| format!("{}{end}", "d.".repeat(LEVELS - 1));
    for (id, change) in [
        (1, doc! { "$set": { path("bottom"): "changed" } }),
        (1, doc! { "$set": { path("new"): 1, "top": 1 } }),
        (2, doc! { "$unset": { path("bottom"): "" } }),
        (2, doc! { "$set": { path("list"): [] } }),
    ] {
        deep.update_one(doc! { "_id": id }, change).await.unwrap();
    }
    let other = doc! { "_id": 3, "d": nested("replaced") };
    deep.replace_one(doc! { "_id": 3 }, other).await.unwrap();
    deep.delete_one(doc! { "_id": 4 }).await.unwrap();
    let too_deep = doc! { "_id": 5, "d": { "d": nested("") } };
    assert!(deep.insert_one(too_deep).await.is_err());
}

fn with(mut document: RawDocumentBuf, more: &[(&'static CStr, i32)]) -> RawDocumentBuf {
    for (name, value) in more {
        document.append(*name, *value);
    }
    document
}

/// At the top, and in a document and a list below.
fn twice(id: i32) -> RawDocumentBuf {
    let inner = || with(rawdoc! { "n": 1 }, &[(cstr!("m"), 2), (cstr!("n"), 3)]);
    let mut whole = rawdoc! { "_id": id, "x": 1, "in": inner(), "list": [inner(), 5] };
    whole.append(cstr!("in"), inner());
    with(whole, &[(cstr!("x"), 2), (cstr!("y"), 3), (cstr!("x"), 4)])
}

pub async fn names_that_stand_twice_in_what_is_changed(scene: Scene) {
    const EMPTY: Timestamp = Timestamp {
        time: 0,
        increment: 0,
    };
    let (raw, names) = (scene.raw("twice"), scene.collection("twice"));
    raw.insert_one(twice(100)).await.unwrap();
    let changes = [
        doc! { "$set": { "z": 1 } },
        doc! { "$set": { "y": 9 } },
        doc! { "$set": { "x": 9 } },
        doc! { "$set": { "in.n": 9 } },
        doc! { "$set": { "in.new": 9 } },
        doc! { "$set": { "list.0.n": 9, "list.1": 6 } },
        doc! { "$unset": { "x": "" } },
        doc! { "$unset": { "in": "" } },
        doc! { "$unset": { "in.n": "" } },
        doc! { "$rename": { "y": "moved" } },
        doc! { "$push": { "list": 7 } },
        doc! { "$inc": { "x": 1 } },
    ];
    for (id, change) in (0..).zip(changes) {
        raw.insert_one(twice(id)).await.unwrap();
        for id in [id, 100] {
            let filter = doc! { "_id": id };
            names.update_one(filter, change.clone()).await.unwrap();
        }
        raw.insert_one(twice(200 + id)).await.unwrap();
        let pipeline = vec![doc! { "$set": { "p": id, "y": "$x" } }];
        let filter = doc! { "_id": 200 + id };
        names.update_one(filter, pipeline).await.unwrap();
    }
    for id in [1, 300] {
        raw.replace_one(doc! { "_id": id }, twice(id))
            .upsert(true)
            .await
            .unwrap();
    }
    names
        .update_one(doc! { "_id": 300 }, doc! { "$set": { "x": 8, "z": 8 } })
        .await
        .unwrap();
    // What only a pipeline stores, or only where nothing was: a server that took the difference of
    // one of these to what was there before would end.
    for id in 400..405 {
        let dollar = || with(twice(id), &[(cstr!("$d"), id), (cstr!("$d"), 1)]);
        raw.insert_one(dollar()).await.unwrap();
        names.delete_one(doc! { "_id": id }).await.unwrap();
        raw.insert_one(with(dollar(), &[(cstr!("z"), 1)]))
            .await
            .unwrap();
        let mut timed = rawdoc! { "_id": 100 + id, "at": EMPTY };
        timed.append(cstr!("at"), EMPTY);
        for content in [timed.clone(), with(timed, &[(cstr!("z"), 1)])] {
            let upsert = rawdoc! {
                "q": { "_id": 100 + id },
                "u": [{ "$replaceWith": { "$literal": content } }],
                "upsert": true,
            };
            names.delete_one(doc! { "_id": 100 + id }).await.unwrap();
            let command = rawdoc! { "update": "twice", "updates": [upsert] };
            scene.database.run_raw_command(command).await.unwrap();
        }
    }
    names.delete_one(doc! { "_id": 2 }).await.unwrap();
    raw.insert_one(twice(2)).await.unwrap();
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
