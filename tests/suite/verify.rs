//! `tandem verify`: what differs is found and named, what only lags is not.

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use mongodb::Collection;
use serde_json::{Value, json};

use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::Mongod;
use crate::support::random::seed;
use crate::support::tandem::Tandem;
use crate::support::workload::Workload;

const EQUAL: i32 = 0;
const DIFFERENT: i32 = 6;
const UNDECIDED: i32 = 124;

fn of(cluster: &Mongod, name: &str) -> Collection<Document> {
    cluster.client().database("shop").collection(name)
}

async fn insert_both(env: &TestEnv, name: &str, documents: &[Document]) {
    for cluster in [&env.a, &env.b] {
        of(cluster, name)
            .insert_many(documents)
            .await
            .expect("inserted");
    }
}

/// The exit code and what was printed as JSON.
fn verify(tandem: &Tandem, arguments: &[&str]) -> (i32, Value) {
    let mut all = vec!["verify", "--json"];
    all.extend(arguments);
    let output = tandem.run(&all);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code().expect("an exit code");
    let found = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("verify ended with {code}: {error}\n{stderr}"));
    (code, found)
}

/// `namespace key kind [field: kind]` of every difference, sorted.
fn differences(found: &Value) -> Vec<String> {
    let list = found["differences"].as_array().expect("differences");
    let shown = list.iter().map(|one| {
        let fields = one["fields"]
            .as_array()
            .expect("fields")
            .iter()
            .map(|field| {
                let text = |name: &str| field[name].as_str().unwrap_or("?").to_owned();
                format!("{}: {}", text("path"), text("kind"))
            });
        let fields = fields.collect::<Vec<_>>().join(", ");
        let text = |name: &str| one[name].as_str().unwrap_or("?").to_owned();
        format!(
            "{} {} {} [{fields}]",
            text("namespace"),
            one["key"]["_id"],
            text("kind")
        )
    });
    let mut shown: Vec<String> = shown.collect();
    shown.sort();
    shown
}

fn one_way(env: &TestEnv) -> LinkConfig {
    env.link().one_way()
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_clusters_are_found_equal_whatever_the_keys_are() {
    let env = TestEnv::start().await;
    let ids = [
        Bson::MinKey,
        Bson::Null,
        f64::NAN.into(),
        1.into(),
        "x".into(),
        doc! { "a": 1, "b": 2 }.into(),
        true.into(),
        Bson::MaxKey,
    ];
    let documents = ids.map(|id| doc! { "_id": id, "x": { "y": [1, 2.0] } });
    insert_both(&env, "orders", &documents).await;
    insert_both(&env, "items", &[doc! { "_id": 1 }]).await;
    let (code, found) = verify(&env.tandem(&env.link()), &[]);
    assert_eq!(code, EQUAL, "{found:#}");
    assert_eq!(found["namespaces"][1]["namespace"], "shop.orders");
    assert_eq!(
        found["namespaces"][1]["documents"],
        json!({ "a": 8, "b": 8 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_difference_is_named_by_key_and_field() {
    let env = TestEnv::start().await;
    insert_both(&env, "orders", &[doc! { "_id": 1, "x": 1 }]).await;
    insert_both(&env, "hidden", &[doc! { "_id": 1 }]).await;
    let on_a = [
        doc! { "_id": 2 },
        doc! { "_id": 4, "x": 1, "y": 2 },
        doc! { "_id": 5, "x": 1 },
        doc! { "_id": 6, "n": { "x": 1, "only": 1 }, "same": [1] },
        doc! { "_id": 7 },
    ];
    let on_b = [
        doc! { "_id": 3 },
        doc! { "_id": 4, "y": 2, "x": 1 },
        doc! { "_id": 5, "x": 1.0 },
        doc! { "_id": 6, "n": { "x": 2 }, "same": [1] },
        doc! { "_id": 7.0 },
    ];
    env.orders_a().insert_many(on_a).await.unwrap();
    env.orders_b().insert_many(on_b).await.unwrap();
    of(&env.a, "hidden")
        .insert_one(doc! { "_id": 2 })
        .await
        .unwrap();
    let tandem = env.tandem(&env.link());
    let (code, found) = verify(&tandem, &["--namespace", "shop.ord*"]);
    assert_eq!(code, DIFFERENT);
    let id = |id: &str| format!("shop.orders {{\"$numberInt\":\"{id}\"}}");
    assert_eq!(
        differences(&found),
        [
            format!("{} missing_on_b []", id("2")),
            format!("{} missing_on_a []", id("3")),
            format!("{} field_order [: order]", id("4")),
            format!("{} fields [x: type]", id("5")),
            format!("{} fields [n.x: value, n.only: missing_on_b]", id("6")),
            format!("{} fields [_id: type]", id("7")),
        ]
    );
    let counts = &found["namespaces"][0];
    assert_eq!(counts["documents"], json!({ "a": 6, "b": 6 }));
    assert_eq!(
        (&counts["differing"], &found["cut_short"]),
        (&json!(6), &json!(false))
    );

    let table = tandem.run(&["verify", "--namespace", "shop.hidden"]);
    let text = String::from_utf8(table.stdout).unwrap();
    assert_eq!(table.status.code(), Some(DIFFERENT));
    assert!(text.contains("missing on b"), "{text}");
    assert!(
        text.contains("link eu-us: the clusters differ: 2 documents, 1 differing"),
        "{text}"
    );

    let (code, found) = verify(&tandem, &["--differences-max", "3", "--settle-time", "0s"]);
    assert_eq!((code, &found["cut_short"]), (DIFFERENT, &json!(true)));
    assert_eq!(found["differences"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn options_and_indexes_that_differ_are_named() {
    let env = TestEnv::start().await;
    insert_both(&env, "orders", &[doc! { "_id": 1 }]).await;
    for (cluster, unique) in [(&env.a, true), (&env.b, false)] {
        let index = doc! { "key": { "x": 1 }, "name": "x_1", "unique": unique };
        let command = doc! { "createIndexes": "orders", "indexes": [index] };
        let database = cluster.client().database("shop");
        database.run_command(command).await.unwrap();
    }
    let validator = doc! { "create": "checked", "validator": { "x": { "$gt": 0 } } };
    env.a
        .client()
        .database("shop")
        .run_command(validator)
        .await
        .unwrap();
    env.b
        .client()
        .database("shop")
        .create_collection("checked")
        .await
        .unwrap();
    env.a
        .client()
        .database("shop")
        .create_collection("alone")
        .await
        .unwrap();
    let (code, found) = verify(&env.tandem(&env.link()), &[]);
    assert_eq!(code, DIFFERENT);
    let entry = |namespace: &str, subject: &str, found: &str| json!({ "namespace": namespace, "subject": subject, "found": found });
    assert_eq!(
        found["schema"],
        json!([
            entry("shop.alone", "collection", "missing on b"),
            entry("shop.checked", "option validator", "missing on b"),
            entry("shop.orders", "index x_1", "different"),
        ])
    );
    assert_eq!(found["differences"], json!([]));
}

/// Both sides are written without a pause while they are compared.
#[tokio::test(flavor = "multi_thread")]
async fn lag_under_load_is_not_a_difference() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    env.create_on_both("shop", "items").await;
    env.create_on_both("bank", "accounts").await;
    let mut tandem = env.streaming(&env.link()).await;
    let load = Workload::new(seed("lag_under_load"), 6000).keys(2000);
    let (a, b) = (env.a.client().clone(), env.b.client().clone());
    let writing = tokio::spawn(async move { load.run(&a, &b).await });
    let mut compared = 0;
    while !writing.is_finished() || compared == 0 {
        let (code, found) = verify(&tandem, &[]);
        assert_eq!(differences(&found), [""; 0], "{found:#}");
        assert_eq!(code, EQUAL, "{found:#}");
        compared += 1;
    }
    writing.await.unwrap();
    tandem.stop().await;
}

/// A real difference is found while the link runs, and nothing else is.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_is_found_while_the_link_streams_and_others_write() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let documents: Vec<Document> = (0..2000).map(|id| doc! { "_id": id, "n": 0 }).collect();
    insert_both(&env, "orders", &documents).await;
    // On both sides before the link starts: nobody will ever repair them.
    env.orders_b().delete_one(doc! { "_id": 77 }).await.unwrap();
    let other = doc! { "$set": { "n": 9 } };
    env.orders_b()
        .update_one(doc! { "_id": 78 }, other)
        .await
        .unwrap();
    let mut tandem = env.streaming(&one_way(&env)).await;
    let orders = env.orders_a();
    let writing = tokio::spawn(async move {
        for round in 0_i32.. {
            let filter = doc! { "_id": { "$gte": 1000 + round % 1000 }, "n": { "$gte": 0 } };
            let changed = orders.update_one(filter, doc! { "$inc": { "n": 1 } }).await;
            changed.expect("updated");
        }
    });
    let (code, found) = verify(&tandem, &[]);
    writing.abort();
    assert_eq!(code, DIFFERENT, "{found:#}");
    let id = |id: &str| format!("shop.orders {{\"$numberInt\":\"{id}\"}}");
    assert_eq!(
        differences(&found),
        [
            format!("{} missing_on_b []", id("77")),
            format!("{} fields [n: value]", id("78")),
        ]
    );
    // An idle link has nothing to apply, and still tells that it is past everything.
    let (code, at_rest) = verify(&tandem, &[]);
    assert_eq!(
        (code, differences(&at_rest)),
        (DIFFERENT, differences(&found))
    );
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_written_all_the_time_is_unsettled_and_no_difference() {
    let env = TestEnv::start().await;
    insert_both(
        &env,
        "orders",
        &[doc! { "_id": 1, "n": 0 }, doc! { "_id": 2 }],
    )
    .await;
    let orders = env.orders_a();
    let writing = tokio::spawn(async move {
        loop {
            let inc = doc! { "$inc": { "n": 1 } };
            orders
                .update_one(doc! { "_id": 1 }, inc)
                .await
                .expect("updated");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let (code, found) = verify(&env.tandem(&env.link()), &["--settle-time", "3s"]);
    writing.abort();
    assert_eq!(code, EQUAL, "{found:#}");
    assert_eq!(found["unsettled"][0]["reason"], "busy");
    assert_eq!(found["unsettled"].as_array().map(Vec::len), Some(1));
    assert_eq!(found["differences"], json!([]));
}

/// A link that is there and does not move: whatever it has yet to bring is no difference, but
/// nobody can call the clusters equal.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_has_not_caught_up_leaves_it_undecided() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&one_way(&env)).await;
    env.b
        .admin(doc! { "setUserWriteBlockMode": 1, "global": true })
        .await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    let (code, found) = verify(&tandem, &["--settle-time", "4s"]);
    env.b
        .admin(doc! { "setUserWriteBlockMode": 1, "global": false })
        .await;
    assert_eq!(differences(&found), [""; 0], "{found:#}");
    assert_eq!((code, &found["outcome"]), (UNDECIDED, &json!("undecided")));
    assert_eq!(found["unsettled"][0]["reason"], "behind");
    let (code, found) = verify(&tandem, &["--resume"]);
    assert_eq!(code, EQUAL, "{found:#}");
    tandem.stop().await;
}

/// The second comparison starts from the ranges that the first one has put on record.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_comparison_is_resumed_and_still_names_every_difference() {
    let env = TestEnv::start().await;
    let many: Vec<Document> = (0..3000).map(|id| doc! { "_id": id }).collect();
    insert_both(&env, "first", &many).await;
    of(&env.b, "first")
        .delete_one(doc! { "_id": 7 })
        .await
        .unwrap();
    insert_both(&env, "hot", &[doc! { "_id": 1, "n": 0 }]).await;
    let hot = of(&env.a, "hot");
    let writing = tokio::spawn(async move {
        loop {
            let inc = doc! { "$inc": { "n": 1 } };
            hot.update_one(doc! { "_id": 1 }, inc)
                .await
                .expect("updated");
        }
    });
    let mut interrupted = env.tandem(&env.link());
    interrupted.start_command(&["verify"]);
    let progress = env.path("tandem-state").join("verify.progress");
    let done = || std::fs::read(&progress).is_ok_and(|bytes| contains(&bytes, b"differing\0"));
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "a range is on record"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    interrupted.kill9();
    writing.abort();
    of(&env.a, "first")
        .insert_one(doc! { "_id": -1 })
        .await
        .unwrap();

    let tandem = env.tandem(&env.link());
    let (code, found) = verify(&tandem, &["--resume"]);
    assert_eq!(code, DIFFERENT);
    let found = differences(&found);
    let first = "shop.first {\"$numberInt\":\"7\"} missing_on_b []";
    assert!(found.iter().any(|one| one == first), "{found:?}");
    assert!(
        !found.iter().any(|one| one.contains("\"-1\"")),
        "read again: {found:?}"
    );
    assert!(!progress.exists(), "nothing is left to resume");
    let (_, found) = verify(&tandem, &["--resume"]);
    assert_eq!(
        found["differences"].as_array().map(Vec::len),
        Some(3),
        "{found:#}"
    );
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// What one side lacks is found in full, though it is far more than is ever held at once, and though
/// no three readings of it fit into the time to settle.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_run_of_missing_documents_is_counted_once_each() {
    const DOCUMENTS: i32 = 12_000;
    let env = TestEnv::start().await;
    let all: Vec<Document> = (0..DOCUMENTS).map(|id| doc! { "_id": id }).collect();
    env.orders_a().insert_many(&all).await.unwrap();
    env.orders_b().insert_many(&all[7_000..]).await.unwrap();
    let tandem = env.tandem(&env.link());
    let all = ["--differences-max", "100000", "--settle-time", "1s"];
    let (code, found) = verify(&tandem, &all);
    assert_eq!(code, DIFFERENT);
    let counts = &found["namespaces"][0];
    assert_eq!(counts["differing"], 7_000);
    assert_eq!(counts["documents"], json!({ "a": DOCUMENTS, "b": 5_000 }));
}
