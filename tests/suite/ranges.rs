//! Ranges of `_id` on a real server: whatever the keys are, each document is read exactly once.

use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Decimal128, Document, RawDocumentBuf, Timestamp, doc, oid::ObjectId};
use tandem::change::{Namespace, Side};
use tandem::cluster::{Cluster, DriverServer};
use tandem::ranges::{Order, Range, ReadAt, Scanned, documents, read, split};

use crate::support::mongod::{Mongod, MongodOptions};
use crate::support::oplog::now;

/// Every type that the server takes as an `_id`, in the order of the server, with neighbours.
fn ids() -> Vec<Bson> {
    let decimal = |text: &str| Bson::Decimal128(text.parse::<Decimal128>().unwrap());
    let binary = |subtype: u8, bytes: &[u8]| {
        Bson::Binary(bson::Binary {
            subtype: subtype.into(),
            bytes: bytes.to_vec(),
        })
    };
    let scope = bson::JavaScriptCodeWithScope {
        code: "x".to_owned(),
        scope: doc! { "a": 1 },
    };
    vec![
        Bson::MinKey,
        Bson::Null,
        f64::NAN.into(),
        f64::NEG_INFINITY.into(),
        (-5).into(),
        1.into(),
        2.5.into(),
        decimal("3.5"),
        (1_i64 << 62).into(),
        f64::INFINITY.into(),
        "".into(),
        "a".into(),
        "b".into(),
        Bson::Symbol("c".to_owned()),
        "é".into(),
        doc! {}.into(),
        doc! { "a": 1 }.into(),
        doc! { "a": { "b": f64::NAN } }.into(),
        binary(0, b""),
        binary(0x80, b"abc"),
        ObjectId::from_bytes([7; 12]).into(),
        false.into(),
        true.into(),
        bson::DateTime::from_millis(-1).into(),
        bson::DateTime::from_millis(1).into(),
        Timestamp {
            time: 1,
            increment: 2,
        }
        .into(),
        Bson::JavaScriptCode("x".to_owned()),
        Bson::JavaScriptCodeWithScope(scope),
        Bson::MaxKey,
    ]
}

fn cluster_of(mongod: &Mongod) -> Cluster {
    const DEADLINE: Duration = Duration::from_secs(30);
    let server = DriverServer::of(mongod.client().clone(), DEADLINE);
    Cluster::over(Arc::new(server), Side::A, "eu".to_owned(), DEADLINE)
}

/// Creates the collection, inserts the documents, and gives what a reader needs to know of it.
async fn scanned(mongod: &Mongod, name: &str, options: Document, ids: &[Bson]) -> Scanned {
    let database = mongod.client().database("shop");
    let mut create = doc! { "create": name };
    create.extend(options);
    database.run_command(create).await.expect("created");
    let found: Vec<Document> = ids
        .iter()
        .map(|id| doc! { "_id": id.clone(), "x": 1 })
        .collect();
    let collection = database.collection::<Document>(name);
    collection.insert_many(found).await.expect("inserted");
    let listed = doc! { "listCollections": 1, "filter": { "name": name } };
    let reply = database.run_command(listed).await.expect("listed");
    let entry = reply
        .get_document("cursor")
        .unwrap()
        .get_array("firstBatch")
        .unwrap()[0]
        .clone();
    let entry = entry.as_document().unwrap().clone();
    let info = entry.get_document("info").unwrap();
    let Some(Bson::Binary(uuid)) = info.get("uuid") else {
        panic!("a collection without a UUID");
    };
    Scanned {
        selection: Default::default(),
        namespace: Namespace::new("shop", name),
        uuid: uuid.to_uuid().unwrap(),
        order: Order::of(entry.get_document("options").unwrap()),
    }
}

async fn read_range(
    cluster: &Cluster,
    scanned: &Scanned,
    range: &Range,
    at: ReadAt,
) -> Vec<RawDocumentBuf> {
    const BATCH: u32 = 3;
    let mut found = Vec::new();
    let mut reader = read(cluster, scanned, range, at, BATCH)
        .await
        .expect("opened");
    while let Some(batch) = reader.next().await.expect("a batch") {
        for document in documents(&batch, "read").expect("documents") {
            found.push(document.expect("a document").to_owned());
        }
    }
    found
}

async fn read_all(
    cluster: &Cluster,
    scanned: &Scanned,
    ranges: &[Range],
    at: ReadAt,
) -> Vec<RawDocumentBuf> {
    let mut found = Vec::new();
    for range in ranges {
        found.extend(read_range(cluster, scanned, range, at).await);
    }
    found
}

fn raw(ids: &[Bson]) -> Vec<RawDocumentBuf> {
    let raw = |id: &Bson| RawDocumentBuf::try_from(&doc! { "_id": id.clone(), "x": 1 }).unwrap();
    ids.iter().map(raw).collect()
}

/// Cuts after each document, so that every `_id` is a boundary, and reads everything twice.
async fn covered_once(mongod: &Mongod, name: &str, options: Document, ids: &[Bson]) {
    let cluster = cluster_of(mongod);
    let scanned = scanned(mongod, name, options, ids).await;
    let ranges = split(&cluster, &scanned, 1).await.expect("cut");
    assert!(
        ranges.len() + 1 >= ids.len(),
        "{name}: {} ranges",
        ranges.len()
    );
    let snapshot = ReadAt::Snapshot(now(mongod.client()).await);
    for at in [ReadAt::Majority, snapshot] {
        let found = read_all(&cluster, &scanned, &ranges, at).await;
        assert_eq!(found, raw(ids), "{name} at {at:?}");
        let whole = read_range(&cluster, &scanned, &Range::whole(), at).await;
        assert_eq!(whole, raw(ids), "{name} as a whole at {at:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_every_type_are_read_exactly_once_and_in_order() {
    let mongod = Mongod::start(MongodOptions::named("set")).await;
    let clustered = || doc! { "clusteredIndex": { "key": { "_id": 1 }, "unique": true } };
    let collation = || doc! { "collation": { "locale": "en", "strength": 2 } };
    covered_once(&mongod, "plain", doc! {}, &ids()).await;
    // The server refuses symbols under a collation.
    let no_symbol = |id: &Bson| !matches!(id, Bson::Symbol(_));
    let collatable: Vec<Bson> = ids().into_iter().filter(no_symbol).collect();
    covered_once(&mongod, "collated", collation(), &collatable).await;
    covered_once(&mongod, "clustered", clustered(), &ids()).await;
    let mut both = clustered();
    both.extend(collation());
    covered_once(&mongod, "clustered_collated", both, &collatable).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_a_collation_cuts_a_collection_with_that_collation() {
    let mongod = Mongod::start(MongodOptions::named("set")).await;
    let ids: Vec<Bson> = ["a", "B", "c", "Ç", "d", "E"].map(Bson::from).to_vec();
    let collation = doc! { "collation": { "locale": "fr", "strength": 2 } };
    covered_once(&mongod, "collated", collation, &ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_still_ends_where_it_did_when_documents_come_and_go() {
    let mongod = Mongod::start(MongodOptions::named("set")).await;
    let cluster = cluster_of(&mongod);
    let some: Vec<Bson> = (0..40).map(|id| Bson::from(id * 2)).collect();
    let scanned = scanned(&mongod, "orders", doc! {}, &some).await;
    let ranges = split(&cluster, &scanned, 200).await.expect("cut");
    assert!(ranges.len() > 3, "{ranges:?}");
    let before = ReadAt::Snapshot(now(mongod.client()).await);

    let orders = mongod.client().database("shop").collection("orders");
    orders
        .delete_many(doc! { "_id": { "$lt": 40 } })
        .await
        .unwrap();
    let odd = (0..40).map(|id| doc! { "_id": id * 2 + 1, "x": 1 });
    orders.insert_many(odd).await.unwrap();
    orders
        .insert_one(doc! { "_id": "last", "x": 1 })
        .await
        .unwrap();

    let old = read_all(&cluster, &scanned, &ranges, before).await;
    assert_eq!(old, raw(&some), "the snapshot is as it was");
    let new = read_all(&cluster, &scanned, &ranges, ReadAt::Majority).await;
    let mut wanted: Vec<Bson> = (0..80)
        .filter(|id| id % 2 == 1 || *id >= 40)
        .map(Bson::from)
        .collect();
    wanted.push("last".into());
    assert_eq!(new, raw(&wanted));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capped_collection_is_one_range_in_natural_order() {
    let mongod = Mongod::start(MongodOptions::named("set")).await;
    let cluster = cluster_of(&mongod);
    let ids: Vec<Bson> = [5, 1, 4, 2, 3].map(Bson::from).to_vec();
    let capped = doc! { "capped": true, "size": 100_000 };
    let scanned = scanned(&mongod, "log", capped, &ids).await;
    let ranges = split(&cluster, &scanned, 1).await.expect("cut");
    assert_eq!(ranges, [Range::whole()]);
    let found = read_all(&cluster, &scanned, &ranges, ReadAt::Majority).await;
    assert_eq!(found, raw(&ids));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_took_the_name_is_not_read_in_place_of_the_old_one() {
    const COLLECTION_UUID_MISMATCH: i32 = 361;
    let mongod = Mongod::start(MongodOptions::named("set")).await;
    let cluster = cluster_of(&mongod);
    let old = scanned(&mongod, "orders", doc! {}, &[1.into(), 2.into()]).await;
    let orders = mongod
        .client()
        .database("shop")
        .collection::<Document>("orders");
    orders.drop().await.unwrap();
    scanned(&mongod, "orders", doc! {}, &[1.into(), 2.into()]).await;
    let refused = [
        split(&cluster, &old, 1).await.err(),
        read(&cluster, &old, &Range::whole(), ReadAt::Majority, 10)
            .await
            .err(),
    ];
    for error in refused {
        let code = error.as_ref().and_then(tandem::cluster::errors::code_of);
        assert_eq!(code, Some(COLLECTION_UUID_MISMATCH), "{error:?}");
    }
}
