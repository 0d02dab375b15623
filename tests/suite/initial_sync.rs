//! What was there before the start is copied while writes go on.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};
use futures_util::TryStreamExt;
use mongodb::options::{CreateCollectionOptions, IndexOptions};
use mongodb::{Client, IndexModel};

use crate::support::compare::{assert_converged, assert_converged_by, contents};
use crate::support::env::TestEnv;
use crate::support::fail_points::FailPoint;
use crate::support::oplog::{entries_after, from_tandem, namespaces_after, now};
use crate::support::oracle::Side;
use crate::support::random::{scaled, seed};
use crate::support::schema::{assert_same_schema, run, schema};
use crate::support::wait::wait_for;
use crate::support::workload::{Workload, documents_of};

const SOON: Duration = Duration::from_secs(60);
const COPY: &str = "[initial_sync]\nmode = \"copy\"";

async fn fill(client: &Client, documents: usize) {
    let items = client
        .database("shop")
        .collection::<RawDocumentBuf>("stock");
    let mut some = Vec::new();
    for number in 0..documents as i32 {
        some.push(rawdoc! { "_id": number, "text": "x".repeat(500), "number": number });
        if some.len() == 1000 || number as usize + 1 == documents {
            items.insert_many(std::mem::take(&mut some)).await.unwrap();
        }
    }
}

fn is_done(status: &serde_json::Value) -> bool {
    status["initial_sync"]["state"] == "done"
}

async fn indexes(client: &Client, collection: &str) -> Vec<Document> {
    let orders = client.database("shop").collection::<Document>(collection);
    let found: Vec<IndexModel> = orders
        .list_indexes()
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let mut found: Vec<Document> = found
        .into_iter()
        .map(|index| bson::serialize_to_document(&index).unwrap())
        .collect();
    found.sort_by_key(|index| index.to_string());
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_under_load_ends_with_both_sides_equal_and_leaves_nothing_on_the_source() {
    let env = TestEnv::start().await;
    fill(env.a.client(), scaled(50_000)).await;
    let seed = seed("copy");
    let load = Workload::new(seed, scaled(5_000));
    let before = load
        .run_side(Side::A, env.a.client())
        .await
        .before_the_start();
    let start = now(env.a.client()).await;
    let mut tandem = env.tandem(&env.link().one_way().extra(COPY));
    tandem.start();
    let load = load.ids_from(1_000_000);
    let history = before.merge(load.run_side(Side::A, env.a.client()).await);
    tandem.wait_status("the copy is done", SOON, is_done).await;
    assert_converged(&env, SOON).await;
    let entries = entries_after(env.a.client(), start).await;
    let echoes = from_tandem(&entries, &history.sessions);
    assert_eq!(echoes.first().map(|echo| &echo.entry), None);
    assert!(tandem.conflicts(&[]).is_empty());
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_meets_writes_on_both_sides_loses_none_unseen() {
    let env = TestEnv::start().await;
    let seed = seed("copy_both");
    let load = Workload::new(seed, scaled(10_000)).keys(300);
    let before = load
        .run_side(Side::A, env.a.client())
        .await
        .before_the_start();
    let mut tandem = env.tandem(&env.link().extra(COPY));
    tandem.run_with(&["-v"]).start();
    let syncing = |status: &serde_json::Value| status["initial_sync"]["state"].is_string();
    tandem.wait_status("it copies", SOON, syncing).await;
    let load = load.ids_from(1_000_000);
    let meanwhile = load.run(env.a.client(), env.b.client()).await;
    let history = before.merge(meanwhile);
    tandem.wait_status("the copy is done", SOON, is_done).await;
    assert_converged_by(&tandem, &env, SOON).await;
    let documents = documents_of(&contents(env.a.client()).await);
    history.assert_accounted(&documents, &tandem.all_conflicts(&env).await);
    tandem.stop().await;
}

async fn make_indexes_and_a_view(env: &TestEnv) {
    let (orders, shop) = (env.orders_a(), env.a.client().database("shop"));
    let unique = IndexOptions::builder().unique(true).build();
    let ttl = IndexOptions::builder()
        .expire_after(Duration::from_secs(9_000_000))
        .build();
    for (keys, options) in [
        (doc! { "u": 1 }, Some(unique)),
        (doc! { "at": 1 }, Some(ttl)),
        (doc! { "x": -1, "y": 1 }, None),
        (doc! { "text": "text" }, None),
    ] {
        let model = IndexModel::builder().keys(keys).options(options).build();
        orders.create_index(model).await.unwrap();
    }
    shop.run_command(
        doc! { "create": "seen", "viewOn": "orders", "pipeline": [{ "$match": { "x": 1 } }] },
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_every_type_options_and_indexes_are_copied() {
    let env = TestEnv::start().await;
    let shop = env.a.client().database("shop");
    let validator = doc! { "x": { "$exists": true } };
    let options = CreateCollectionOptions::builder()
        .validator(validator.clone())
        .build();
    shop.create_collection("orders")
        .with_options(options)
        .await
        .unwrap();
    let orders = env.orders_a();
    let ids: Vec<Bson> = vec![
        Bson::Null,
        Bson::Int32(1),
        Bson::Double(f64::NAN),
        Bson::Double(f64::NEG_INFINITY),
        Bson::String(String::new()),
        Bson::Document(doc! { "b": 1, "a": 2 }),
        Bson::Binary(bson::Uuid::new().into()),
        Bson::ObjectId(bson::oid::ObjectId::new()),
        Bson::Boolean(false),
        Bson::DateTime(bson::DateTime::from_millis(-1)),
        Bson::Timestamp(bson::Timestamp {
            time: 1,
            increment: 1,
        }),
        Bson::MinKey,
        Bson::MaxKey,
    ];
    for (number, id) in ids.iter().enumerate() {
        let document = doc! { "_id": id.clone(), "x": number as i32, "u": number as i32 };
        orders.insert_one(document).await.unwrap();
    }
    make_indexes_and_a_view(&env).await;
    let mut tandem = env.tandem(&env.link().extra(COPY));
    let output = tandem.run(&["run", "--until-caught-up"]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_converged(&env, SOON).await;
    assert_eq!(
        env.orders_b().count_documents(doc! {}).await.unwrap(),
        ids.len() as u64
    );
    let (a, b) = (env.a.client(), env.b.client());
    assert_eq!(indexes(a, "orders").await.len(), 5);
    assert_eq!(indexes(a, "orders").await, indexes(b, "orders").await);
    let listed = b.database("shop").list_collections().await.unwrap();
    let listed: Vec<_> = listed.try_collect().await.unwrap();
    let of = |name: &str| listed.iter().find(|found| found.name == name).unwrap();
    assert_eq!(of("orders").options.validator, Some(validator));
    assert_eq!(of("seen").options.view_on.as_deref(), Some("orders"));
    assert_eq!(tandem.conflicts(&[]), Vec::<serde_json::Value>::new());
    // The next run has nothing to copy.
    tandem.run_with(&["--until-caught-up"]);
    let again = tandem.run(&["run", "--until-caught-up"]);
    assert_eq!(again.status.code(), Some(0));
    assert_eq!(tandem.status()["initial_sync"], serde_json::Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_holds_data_is_refused_by_name_and_dropped_only_when_told() {
    let env = TestEnv::start().await;
    fill(env.a.client(), 100).await;
    env.orders_b().insert_one(doc! { "_id": 1 }).await.unwrap();
    let tandem = env.tandem(&env.link().extra(COPY));
    let start = (now(env.a.client()).await, now(env.b.client()).await);
    for arguments in [&["run"][..], &["run", "--dry-run"]] {
        let refused = tandem.run(arguments);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(3), "{said}");
        assert!(
            said.contains("shop.orders") && said.contains("--drop-target"),
            "{said}"
        );
    }
    let shown = tandem.run(&["run", "--dry-run", "--drop-target"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("shop.stock") && shown.contains("100"),
        "{shown}"
    );
    for (client, start) in [(env.a.client(), start.0), (env.b.client(), start.1)] {
        let written = namespaces_after(client, start).await;
        assert_eq!(
            written,
            Vec::<String>::new(),
            "by a run that writes nothing"
        );
    }
    assert_eq!(env.orders_b().count_documents(doc! {}).await.unwrap(), 1);
    let copied = tandem.run(&["run", "--until-caught-up", "--drop-target"]);
    assert_eq!(copied.status.code(), Some(0));
    assert_converged(&env, SOON).await;
    assert_eq!(env.orders_b().count_documents(doc! {}).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_was_killed_goes_on_where_it_was() {
    let env = TestEnv::start().await;
    let documents = scaled(400_000);
    fill(env.a.client(), documents).await;
    // Slow enough to be killed three times on its way.
    let mut tandem = env.tandem(&env.link().extra(COPY));
    tandem.env("TANDEM_APPLY__OPERATIONS_PER_SECOND_MAX", "3000");
    let done = |status: &serde_json::Value| status["initial_sync"]["documents_done"].as_u64();
    for _ in 0..3 {
        let had = done(&tandem.status()).unwrap_or(0);
        tandem.start();
        let further = |status: &serde_json::Value| done(status).is_some_and(|now| now > had + 4000);
        tandem.wait_status("it copies", SOON, further).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        tandem.kill9();
    }
    tandem.start();
    let copying = |status: &serde_json::Value| status["initial_sync"]["state"] != "waiting";
    tandem.wait_status("it goes on", SOON, copying).await;
    tandem.wait_status("the copy is done", SOON, is_done).await;
    let status = tandem.status();
    assert_converged(&env, SOON).await;
    let total = status["initial_sync"]["documents_done"].as_u64();
    assert_eq!(total, Some(documents as u64), "each document counts once");
    tandem.stop().await;
}

/// A process was killed while it put the ranges on record: those that are there are not all.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_with_ranges_missing_on_record_is_split_anew() {
    let env = TestEnv::start().await;
    fill(env.a.client(), 20_000).await;
    let mut tandem = env.tandem(&env.link().extra(COPY));
    tandem.env("TANDEM_APPLY__OPERATIONS_PER_SECOND_MAX", "2000");
    tandem.start();
    let ranges = env
        .b
        .client()
        .database("__tandem")
        .collection::<Document>("ranges");
    wait_for("ranges are on record", SOON, || async {
        (ranges.count_documents(doc! {}).await.unwrap() > 0).then_some(())
    })
    .await;
    tandem.kill9();
    let partial = doc! { "$set": { "done": true }, "$inc": { "of": 1_i64 } };
    ranges.update_many(doc! {}, partial).await.unwrap();
    tandem.env("TANDEM_APPLY__OPERATIONS_PER_SECOND_MAX", "0");
    tandem.start();
    tandem.wait_status("the copy is done", SOON, is_done).await;
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

/// The copy is killed while it makes the view, and goes on before the view's drop has had its turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_collection_that_has_got_a_views_name_waits_for_that_to_go_where_a_copy_goes_on() {
    let env = TestEnv::start().await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    let view = doc! { "create": "seen", "viewOn": "orders", "pipeline": [] };
    run(&env.a, view).await;
    let mut tandem = env.tandem(&env.link().extra(COPY));
    let slow = doc! { "namespace": "shop.seen", "blockConnection": true, "blockTimeMS": 3000 };
    let making = FailPoint::on(&env.b, &["create"]);
    tokio::join!(making.fail(1, slow.clone()), async { tandem.start() });
    tandem.kill9();
    run(&env.a, doc! { "drop": "seen" }).await;
    let seen = env.a.client().database("shop").collection("seen");
    seen.insert_one(doc! { "_id": 1 }).await.unwrap();
    wait_for("the view", SOON, || async {
        schema(env.b.client()).await.remove("shop.seen")
    })
    .await;
    let dropping = FailPoint::on(&env.b, &["drop"]);
    tokio::join!(dropping.fail(1, slow), async { tandem.start() });
    tandem.wait_status("the copy is done", SOON, is_done).await;
    assert_converged(&env, SOON).await;
    assert_same_schema(&env, SOON).await;
    let unpaired = tandem.status()["unpaired_namespaces"].clone();
    assert_eq!(unpaired, serde_json::json!([]));
    tandem.stop().await;
}
