//! What people decide about records while no link runs: restore, discard, reset; and a store that
//! cannot be read.

use std::fs;
use std::process::Output;
use std::time::Duration;

use bson::{DateTime, Document, RawDocumentBuf, Timestamp, doc, rawdoc};
use mongodb::Client;
use tandem::change::{DocumentKey, Namespace};
use tandem::config::{Config, Environment, Flags};
use tandem::error::ExitCode;
use tandem::link::restore::{Outcome, restore};
use tandem::store::Store;
use tandem::target::key_id;
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::support::env::{TestEnv, raw_by_id};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const ID: &str = "64a1f0c2e7b94d3355aa01c8";
const EMPTY: Timestamp = Timestamp {
    time: 0,
    increment: 0,
};

/// A record of a write on b that lost.
fn record(id: &str, kind: &str, document: impl Into<bson::RawBson>) -> RawDocumentBuf {
    rawdoc! {
        "_id": id,
        "logged_at": DateTime::from_millis(1_700_000_000_000),
        "pipeline": "b-to-a",
        "namespace": "shop.orders",
        "document_key": { "_id": 1 },
        "kind": kind,
        "winner": "eu",
        "winner_cluster": "a",
        "reason": "later",
        "losing": { "operation": "update", "document": document.into() },
        "status": "logged",
    }
}

/// Puts the record where the link would have: on the target and in the store.
async fn put(env: &TestEnv, record: RawDocumentBuf) {
    let conflicts = env.a.client().database("__tandem");
    let conflicts = conflicts.collection::<RawDocumentBuf>("conflicts");
    conflicts.insert_one(&record).await.unwrap();
    let store = Store::open(&env.path("tandem-state")).unwrap();
    store.put_records(&[record]).unwrap();
}

async fn status_on_cluster(env: &TestEnv, id: &str) -> String {
    let conflicts = env.a.client().database("__tandem");
    let conflicts = conflicts.collection::<Document>("conflicts");
    let found = conflicts.find_one(doc! { "_id": id }).await.unwrap();
    found.unwrap().get_str("status").unwrap().to_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn expect(tandem: &Tandem, arguments: &[&str], expected: i32) -> String {
    let output = tandem.run(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(code(&output), expected, "{arguments:?}: {said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loser_comes_back_byte_for_byte_and_only_once() {
    let env = TestEnv::start().await;
    let tandem = env.tandem(&env.link());
    let lost = rawdoc! { "_id": 1, "t": EMPTY, "$odd": { "a.b": 1 }, "x": 1.0 };
    let now = doc! { "_id": 1, "x": 1 };
    env.orders_b().insert_one(&now).await.unwrap();
    put(&env, record(ID, "update_origin_differs", lost.clone())).await;

    expect(&tandem, &["conflict", "restore", ID], 2);
    assert_ne!(raw_by_id(&env.orders_b(), 1).await, Some(lost.clone()));
    expect(&tandem, &["conflict", "restore", "0123", "--yes"], 2);

    let shown = expect(&tandem, &["conflict", "restore", ID, "--yes"], 0);
    assert!(shown.contains("on us"), "{shown}");
    assert_eq!(raw_by_id(&env.orders_b(), 1).await, Some(lost));
    assert_eq!(raw_by_id(&env.orders_a(), 1).await, None);
    assert_eq!(status_on_cluster(&env, ID).await, "restored");
    assert_eq!(tandem.conflicts(&[])[0]["status"], "restored");
    expect(&tandem, &["conflict", "restore", ID, "--yes"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_delete_deletes_and_a_key_of_another_type_is_replaced() {
    let env = TestEnv::start().await;
    let tandem = env.tandem(&env.link());
    let now = doc! { "_id": 1, "x": 1 };
    env.orders_b().insert_one(&now).await.unwrap();
    let lost = rawdoc! { "_id": 1.0, "x": 2 };
    put(&env, record("0a", "update_origin_differs", lost.clone())).await;
    put(
        &env,
        record("0b", "delete_origin_differs", bson::RawBson::Null),
    )
    .await;
    expect(&tandem, &["conflict", "restore", "0a", "--yes"], 0);
    assert_eq!(raw_by_id(&env.orders_b(), 1).await, Some(lost));
    expect(&tandem, &["conflict", "restore", "0b", "--yes"], 0);
    assert_eq!(raw_by_id(&env.orders_b(), 1).await, None);
}

/// The commit lands without a clear answer, and is refused when it is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_restored_without_a_clear_answer_is_not_called_changed() {
    const SOON: Duration = Duration::from_secs(30);
    let env = TestEnv::start().await;
    let mut tandem = env.tandem(&env.link());
    let lost = rawdoc! { "_id": 1, "x": 2 };
    put(&env, record("0a", "update_deleted", lost.clone())).await;
    let deleted = record("0b", "delete_origin_differs", bson::RawBson::Null);
    put(&env, deleted).await;
    for (id, expected) in [("0a", Some(lost)), ("0b", None)] {
        let commit = |mut data: Document| {
            data.extend(doc! { "failCommands": ["commitTransaction"], "appName": "tandem" });
            data
        };
        let unclear = doc! { "writeConcernError": { "code": 91, "errmsg": "made up" } };
        env.b.fail_command("alwaysOn", commit(unclear)).await;
        tandem.start_command(&["conflict", "restore", id, "--yes"]);
        wait_for("it has landed", SOON, || async {
            (raw_by_id(&env.orders_b(), 1).await == expected).then_some(())
        })
        .await;
        let refused = doc! { "errorCode": 251, "errorLabels": ["TransientTransactionError"] };
        env.b
            .fail_command(doc! { "times": 1 }, commit(refused))
            .await;
        let code = tandem.wait_exit(SOON).await;
        assert_eq!(code, 0, "{}", tandem.log());
        assert_eq!(status_on_cluster(&env, id).await, "restored");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_changed_since_it_was_shown_is_left_alone() {
    let env = TestEnv::start().await;
    let link = env.link();
    env.tandem(&link);
    put(
        &env,
        record(ID, "insert_exists", rawdoc! { "_id": 1, "x": 1 }),
    )
    .await;
    let (file, flags) = (env.path("tandem.toml"), Flags::default());
    let config = Config::load(&file, &Environment::default(), &flags).unwrap();
    let orders = env.orders_b();
    let meanwhile = |_: &str| {
        let write = orders.insert_one(doc! { "_id": 1, "x": 2 });
        block_in_place(|| Handle::current().block_on(write.into_future())).unwrap();
        Ok(true)
    };
    let error = restore(&config, ID, meanwhile).await.unwrap_err();
    assert_eq!(error.exit, ExitCode::Usage, "{error}");
    let kept = Some(rawdoc! { "_id": 1, "x": 2 });
    assert_eq!(raw_by_id(&orders, 1).await, kept);
    let declined = restore(&config, ID, |_| Ok(false)).await.unwrap();
    assert_eq!(declined, Outcome::Declined);
    assert_eq!(raw_by_id(&orders, 1).await, kept);
    assert_eq!(status_on_cluster(&env, ID).await, "logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_document_that_collides_says_so_and_changes_nothing() {
    let env = TestEnv::start().await;
    let tandem = env.tandem(&env.link());
    let index = mongodb::IndexModel::builder().keys(doc! { "sku": 1 });
    let unique = mongodb::options::IndexOptions::builder().unique(true);
    let index = index.options(unique.build()).build();
    env.orders_b().create_index(index).await.unwrap();
    let holder = doc! { "_id": 2, "sku": 5 };
    env.orders_b().insert_one(&holder).await.unwrap();
    put(
        &env,
        record(ID, "update_deleted", rawdoc! { "_id": 1, "sku": 5 }),
    )
    .await;
    let said = expect(&tandem, &["conflict", "restore", ID, "--yes"], 4);
    assert!(said.contains("unique index"), "{said}");
    assert_eq!(status_on_cluster(&env, ID).await, "logged");
}

async fn is_marked_dead(client: &Client, key: &DocumentKey) -> bool {
    let keys = client.database("__tandem").collection::<Document>("keys");
    let id: Document = Document::try_from(key_id("eu-us", key)).unwrap();
    let found = keys.find_one(doc! { "_id": id }).await.unwrap();
    found.is_some_and(|note| note.get_bool("dead").unwrap_or(false))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_discarded_dead_letter_of_a_document_takes_its_mark_off() {
    let env = TestEnv::start().await;
    let tandem = env.tandem(&env.link());
    let namespace = Namespace::new("shop", "orders");
    let key = DocumentKey::of(&namespace, &rawdoc! { "_id": 1 }).unwrap();
    let keys = env.a.client().database("__tandem");
    let keys = keys.collection::<RawDocumentBuf>("keys");
    let note = rawdoc! { "_id": key_id("eu-us", &key), "dead": true, "raw": { "_id": 1 } };
    keys.insert_one(&note).await.unwrap();
    for id in ["0a", "0b"] {
        put(&env, record(id, "dead_letter", bson::RawBson::Null)).await;
    }
    let listed = tandem.run(&["dead-letter", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["dead_letters"].as_array().unwrap().len(), 2);

    let said = expect(&tandem, &["dead-letter", "retry", "0a"], 2);
    assert!(said.contains("no tandem runs"), "{said}");
    expect(&tandem, &["dead-letter", "discard", "0a"], 0);
    assert!(is_marked_dead(env.a.client(), &key).await);
    assert_eq!(status_on_cluster(&env, "0a").await, "discarded");
    expect(&tandem, &["dead-letter", "discard", "0a"], 2);
    expect(&tandem, &["dead-letter", "discard", "0b"], 0);
    assert!(!is_marked_dead(env.a.client(), &key).await);
    let listed = tandem.run(&["dead-letter", "list"]);
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "no dead letters\n");
}

async fn names(client: &Client) -> Vec<String> {
    client.list_database_names().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_forgets_this_link_and_leaves_others_alone() {
    let env = TestEnv::start().await;
    let tandem = env.tandem(&env.link());
    put(&env, record(ID, "insert_exists", bson::RawBson::Null)).await;
    let state_of = |client: &Client| client.database("__tandem");
    for link in ["eu-us", "another"] {
        let document = doc! { "_id": format!("{link}/a-to-b/0"), "link": link };
        let checkpoints = state_of(env.b.client()).collection("checkpoints");
        checkpoints.insert_one(document).await.unwrap();
    }
    expect(&tandem, &["reset", "--clusters"], 2);
    assert_eq!(tandem.conflicts(&[]).len(), 1);
    expect(&tandem, &["reset", "--yes"], 0);
    assert!(tandem.conflicts(&[]).is_empty());
    assert_eq!(status_on_cluster(&env, ID).await, "logged");

    let links = state_of(env.b.client()).collection::<Document>("links");
    let until = |ms: i64| DateTime::from_millis(DateTime::now().timestamp_millis() + ms);
    let held = doc! { "_id": "eu-us", "holder": { "store_id": "x" }, "lease_until": until(60_000) };
    links.insert_one(held).await.unwrap();
    expect(&tandem, &["reset", "--clusters", "--yes"], 8);
    let lapsed = doc! { "$set": { "lease_until": until(-1) } };
    links.update_one(doc! {}, lapsed).await.unwrap();

    let shown = expect(&tandem, &["reset", "--clusters", "--yes"], 0);
    assert_eq!(links.count_documents(doc! {}).await.unwrap(), 0);
    assert!(shown.contains("another"), "{shown}");
    assert!(!names(env.a.client()).await.contains(&"__tandem".to_owned()));
    let left = state_of(env.b.client()).collection::<Document>("checkpoints");
    assert_eq!(left.count_documents(doc! {}).await.unwrap(), 1);
    assert!(
        left.find_one(doc! { "link": "another" })
            .await
            .unwrap()
            .is_some()
    );

    let held = Store::open(&env.path("tandem-state")).unwrap();
    expect(&tandem, &["reset", "--yes"], 7);
    drop(held);
}

/// Records of 100 kB that take more than one segment of the store's file.
const SEGMENTS_FILLED_BY: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_read_ends_every_command_with_7() {
    let env = TestEnv::start().await;
    let tandem = env.tandem(&env.link());
    let dir = env.path("tandem-state");
    let damages: [fn(&std::path::Path); 4] = [
        |db| fs::write(db, vec![0xA5; 700_000]).unwrap(),
        |db| fs::write(db, b"").unwrap(),
        |db| fs::remove_file(db).unwrap(),
        // Its first segment's header: the later ones make no sense then, and sled panics.
        |db| {
            let mut bytes = fs::read(db).unwrap();
            bytes[..8].fill(0x5A);
            fs::write(db, bytes).unwrap();
        },
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let _ = fs::remove_dir_all(&dir);
        let store = Store::open(&dir).unwrap();
        for id in 0..SEGMENTS_FILLED_BY {
            let document = rawdoc! { "_id": 1, "x": format!("{id:02}").repeat(50_000) };
            let one = record(&format!("{id:02}"), "insert_exists", document);
            store.put_records(&[one]).unwrap();
        }
        store.flush().unwrap();
        drop(store);
        damage(&dir.join("store/db"));
        for arguments in [&["status"][..], &["runs"], &["conflict-report"]] {
            let said = expect(&tandem, arguments, 7);
            assert!(said.contains("hint: "), "damage {number}: {said}");
        }
    }
}
