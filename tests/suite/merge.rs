//! Both sides hold data when the link begins: nothing of it is lost, and both end with the same.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{DateTime, Document, doc};
use mongodb::{Client, Collection, IndexModel};
use serde_json::Value;

use crate::support::compare::{assert_converged, contents};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::oplog::{entries_after, now};
use crate::support::oracle::Side;
use crate::support::random::{scaled, seed};
use crate::support::workload::{Workload, documents_of};

const SOON: Duration = Duration::from_secs(90);
const MERGE: &str = "[initial_sync]\nmode = \"merge\"";

fn of(client: &Client, name: &str) -> Collection<Document> {
    client.database("shop").collection(name)
}

async fn insert(client: &Client, name: &str, documents: &[Document]) {
    for some in documents.chunks(2000) {
        of(client, name).insert_many(some).await.expect("inserted");
    }
}

fn is_done(status: &Value) -> bool {
    status["initial_sync"]["state"] == "done"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_under_writes_on_both_sides_loses_no_document_and_ends_equal() {
    let env = TestEnv::start().await;
    let link = env.link();
    merge_under_writes(&env, &link, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_is_killed_under_writes_loses_no_document_and_ends_equal() {
    let env = TestEnv::start().await;
    let link = env.link();
    merge_under_writes(&env, &link, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_with_the_waiting_fence_and_one_lane_loses_no_document_and_ends_equal() {
    let env = TestEnv::start().await;
    let link = env.link().fence("waiting").lanes(1);
    merge_under_writes(&env, &link, 0).await;
}

async fn merge_under_writes(env: &TestEnv, link: &LinkConfig, kills: usize) {
    let load = |number: u64| {
        let writes = scaled(4000);
        let load = Workload::new(seed("merge") + number, writes).keys(300);
        load.ids_from(number as usize * 1_000_000)
    };
    let (on_a, on_b) = (load(1), load(2));
    let (before_a, before_b) = tokio::join!(
        on_a.run_side(Side::A, env.a.client()),
        on_b.run_side(Side::B, env.b.client())
    );
    let before = before_a.merge(before_b).before_the_start();
    let mut tandem = env.tandem(&link.clone().extra(MERGE));
    tandem.start();
    let syncing = |status: &Value| status["initial_sync"]["mode"] == "merge";
    tandem.wait_status("it merges", SOON, syncing).await;
    let writes = load(3);
    let meanwhile = writes.run(env.a.client(), env.b.client());
    let (meanwhile, ()) = tokio::join!(meanwhile, async {
        for _ in 0..kills {
            tokio::time::sleep(Duration::from_millis(700)).await;
            tandem.kill9();
            tandem.start();
        }
    });
    let history = before.merge(meanwhile);
    // A process that found nothing left to merge says nothing of it.
    let is_over = |status: &Value| is_done(status) || status["initial_sync"].is_null();
    tandem.wait_until_streaming().await;
    tandem.wait_status("the merge is over", SOON, is_over).await;
    assert_converged(env, SOON).await;
    let documents = documents_of(&contents(env.a.client()).await);
    history.assert_accounted(&documents, &tandem.all_conflicts(env).await);
    // From here on it is a link like any other.
    env.orders_b()
        .insert_one(doc! { "_id": "last" })
        .await
        .unwrap();
    assert_converged(env, SOON).await;
    tandem.stop().await;
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_eq!(tandem.status()["initial_sync"], Value::Null);
    tandem.stop().await;
}

/// Of four documents one is the same on both sides, one differs, and one is on each side alone.
fn both_sides(documents: usize) -> (Vec<Document>, Vec<Document>) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for id in 0..documents as i32 {
        // The later one is on b for half of the differing documents.
        let at = |later: bool| DateTime::from_millis(1_000_000 + i64::from(later));
        let one = |side: &str, at| doc! { "_id": id, "on": side, "at": at };
        match id % 4 {
            0 => {
                a.push(one("both", at(true)));
                b.push(one("both", at(true)));
            }
            1 => {
                a.push(one("a", at(id % 8 == 1)));
                b.push(one("b", at(id % 8 == 5)));
            }
            2 => a.push(one("a", at(true))),
            _ => b.push(one("b", at(true))),
        }
    }
    (a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_merge_goes_on_and_every_document_that_lost_is_on_exactly_one_record() {
    let env = TestEnv::start().await;
    let documents = scaled(40_000);
    let (a, b) = both_sides(documents);
    insert(env.a.client(), "orders", &a).await;
    insert(env.b.client(), "orders", &b).await;
    let link = env
        .link()
        .extra(MERGE)
        .extra("[conflicts]\nversion_field = \"at\"");
    let mut tandem = env.tandem(&link);
    let shown = tandem.run(&["run", "--dry-run", "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let (on_a, on_b) = (a.len(), b.len());
    assert_eq!(shown["namespaces"][0]["documents"]["a"], on_a);
    assert_eq!(shown["namespaces"][0]["documents"]["b"], on_b);
    let names = env.b.client().list_database_names().await.unwrap();
    assert!(!names.contains(&"__tandem".to_owned()), "{names:?}");

    // Slow enough to be killed twice on its way.
    tandem.env("TANDEM_APPLY__OPERATIONS_PER_SECOND_MAX", "800");
    tandem.env("TANDEM_APPLY__BATCH_OPERATIONS_MAX", "20");
    for _ in 0..2 {
        tandem.start();
        let some = |status: &Value| {
            let copied = &status["initial_sync"]["tally"]["copied"];
            copied["a"].as_u64() > Some(100) && copied["b"].as_u64() > Some(100)
        };
        tandem.wait_status("it merges", SOON, some).await;
        tandem.kill9();
    }
    tandem.start();
    tandem.wait_status("the merge is done", SOON, is_done).await;
    assert_converged(&env, SOON).await;
    assert_eq!(
        env.orders_a().count_documents(doc! {}).await.unwrap(),
        documents as u64
    );
    let mut records: BTreeMap<i64, &Value> = BTreeMap::new();
    let all = tandem.all_conflicts(&env).await;
    for record in &all {
        let id = record["document_key"]["_id"]["$numberInt"]
            .as_str()
            .unwrap();
        let before = records.insert(id.parse().unwrap(), record);
        assert!(before.is_none(), "two records of {id}");
    }
    assert_eq!(
        records.len(),
        (0..documents).filter(|id| id % 4 == 1).count()
    );
    for (id, record) in records {
        let (winner, loser) = if id % 8 == 1 { ("a", "b") } else { ("b", "a") };
        assert_eq!(record["winner_cluster"], winner, "{record}");
        assert_eq!(record["kind"], "insert_exists");
        assert_eq!(record["reason"], "later");
        assert_eq!(record["losing"]["document"]["on"], loser);
        assert_eq!(record["winning"]["document"]["on"], winner);
    }
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_indexes_and_views_of_either_side_are_on_both_and_differences_are_named() {
    let env = TestEnv::start().await;
    let (a, b) = (env.a.client(), env.b.client());
    insert(a, "only_a", &[doc! { "_id": 1, "x": 1 }]).await;
    insert(b, "only_b", &[doc! { "_id": 1, "x": 1 }]).await;
    insert(a, "common", &[doc! { "_id": 1, "u": 1 }]).await;
    insert(b, "common", &[doc! { "_id": 2, "u": 2 }]).await;
    let index = |keys: Document, unique: bool| {
        let options = mongodb::options::IndexOptions::builder();
        let options = options.unique(unique).sparse(unique);
        IndexModel::builder()
            .keys(keys)
            .options(options.build())
            .build()
    };
    of(b, "only_b")
        .create_index(index(doc! { "x": 1 }, false))
        .await
        .unwrap();
    of(b, "common")
        .create_index(index(doc! { "u": 1 }, true))
        .await
        .unwrap();
    of(a, "common")
        .create_index(index(doc! { "y": 1 }, true))
        .await
        .unwrap();
    of(b, "common")
        .create_index(index(doc! { "y": 1 }, false))
        .await
        .unwrap();
    for name in ["seen", "gone"] {
        let view = doc! { "create": name, "viewOn": "common", "pipeline": [] };
        b.database("shop").run_command(view).await.unwrap();
    }
    let mut tandem = env.tandem(&env.link().extra(MERGE));
    let hold =
        |mode: &str| doc! { "configureFailPoint": "hangAfterStartingIndexBuild", "mode": mode };
    env.a.admin(hold("alwaysOn")).await;
    tandem.start();
    let builds = |status: &Value| status["initial_sync"]["state"] == "building_indexes";
    tandem.wait_status("it builds", SOON, builds).await;
    let gone = b.database("shop").collection::<Document>("gone");
    gone.drop().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    env.a.admin(hold("off")).await;
    tandem.wait_status("the merge is done", SOON, is_done).await;
    assert_converged(&env, SOON).await;
    for name in ["only_a", "only_b", "common"] {
        let (on_a, on_b) = (of(a, name), of(b, name));
        let (mut on_a, mut on_b) = (
            on_a.list_index_names().await.unwrap(),
            on_b.list_index_names().await.unwrap(),
        );
        on_a.sort();
        on_b.sort();
        assert_eq!(on_a, on_b, "{name}");
    }
    let on_a = a.database("shop").list_collection_names().await.unwrap();
    assert!(on_a.contains(&"seen".to_owned()), "{on_a:?}");
    assert!(!on_a.contains(&"gone".to_owned()), "{on_a:?}");
    let not_done = tandem.status()["initial_sync"]["not_done"].clone();
    assert_eq!(not_done.as_array().map(Vec::len), Some(1), "{not_done}");
    assert_eq!(not_done[0]["reason"], "index y_1: different");
    assert_eq!(tandem.all_conflicts(&env).await, Vec::<Value>::new());
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_way_a_decides_and_what_b_alone_has_stays_until_a_repair() {
    let env = TestEnv::start().await;
    let one = |id: i32, x: i32| doc! { "_id": id, "x": x };
    insert(env.a.client(), "orders", &[one(1, 1), one(2, 1)]).await;
    insert(env.b.client(), "orders", &[one(1, 2), one(3, 2)]).await;
    insert(env.b.client(), "only_b", &[one(1, 2)]).await;
    let start = now(env.a.client()).await;
    let mut tandem = env.tandem(&env.link().one_way().extra(MERGE));
    tandem.start();
    tandem.wait_status("the merge is done", SOON, is_done).await;
    let orders = env.orders_b();
    let on_b = |id: i32| orders.find_one(doc! { "_id": id });
    assert_eq!(on_b(1).await.unwrap(), Some(one(1, 1)));
    assert_eq!(on_b(2).await.unwrap(), Some(one(2, 1)));
    assert_eq!(on_b(3).await.unwrap(), Some(one(3, 2)));
    assert_eq!(tandem.status()["initial_sync"]["tally"]["left_alone"], 1);
    let written = entries_after(env.a.client(), start).await;
    assert_eq!(written.len(), 0, "nothing goes to a");
    // A write of b's own is the newest there is, and a decides all the same.
    env.orders_b().insert_one(one(4, 2)).await.unwrap();
    let arguments = ["verify", "--repair", "--namespace", "shop.orders"];
    let repaired = tandem.run(&arguments);
    let said = String::from_utf8_lossy(&repaired.stdout);
    assert_eq!(repaired.status.code(), Some(0), "{said}");
    assert!(
        said.contains("removed 0 from a and 2 from b, 2 on record"),
        "{said}"
    );
    assert_eq!(on_b(3).await.unwrap(), None);
    assert_eq!(tandem.all_conflicts(&env).await.len(), 3);
    tandem.stop().await;
}
