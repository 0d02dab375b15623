//! `tandem resync` and `tandem verify --repair`: the way back to equal sides.

use std::process::Output;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use serde_json::Value;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::MongodOptions;
use crate::support::oplog::{entries_after, now, roll_over};
use crate::support::tandem::Tandem;

const SOON: Duration = Duration::from_secs(60);

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

/// Runs a command, expects its code, and gives what it printed.
fn ends_with(tandem: &Tandem, arguments: &[&str], expected: i32) -> String {
    let output = tandem.run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(code(&output), expected, "{printed}\n{said}");
    printed
}

/// Writes that no change stream tells of.
async fn behind_its_back(client: &Client, operations: Vec<Document>) {
    let command = doc! { "applyOps": operations };
    let reply = client.database("admin").run_command(command).await.unwrap();
    assert!(reply.get_f64("ok").is_ok_and(|ok| ok == 1.0), "{reply}");
}

fn put(namespace: &str, document: Document) -> Document {
    doc! { "op": "i", "ns": namespace, "o": document }
}

fn delete(namespace: &str, id: i32) -> Document {
    doc! { "op": "d", "ns": namespace, "o": { "_id": id } }
}

/// A two-way link whose sides are equal, and then are not: in both namespaces document 1 differs,
/// 2 is on a alone, 3 on b alone.
async fn apart(env: &TestEnv, link: &LinkConfig) -> Tandem {
    env.create_on_both("shop", "orders").await;
    env.create_on_both("bank", "accounts").await;
    let tandem = env.streaming(link).await;
    let both = [("shop", "orders"), ("bank", "accounts")];
    for (database, name) in both {
        let on_a = env.a.client().database(database);
        let all = (0..100).filter(|id| *id != 3);
        let all = all.map(|id| doc! { "_id": id, "x": 1 });
        let on_a = on_a.collection::<Document>(name);
        on_a.insert_many(all).await.unwrap();
    }
    assert_converged(env, SOON).await;
    for (database, name) in both {
        let namespace = format!("{database}.{name}");
        let operations = vec![
            put(&namespace, doc! { "_id": 1, "x": 2 }),
            delete(&namespace, 2),
            put(&namespace, doc! { "_id": 3, "x": 3 }),
        ];
        behind_its_back(env.b.client(), operations).await;
    }
    tandem
}

fn ids_and_losers(records: &[Value]) -> Vec<(String, i64)> {
    let mut found: Vec<(String, i64)> = records
        .iter()
        .map(|record| {
            let number = |value: &Value| value["$numberInt"].as_str().unwrap().parse().unwrap();
            let id: i64 = number(&record["document_key"]["_id"]);
            let x: i64 = number(&record["losing"]["document"]["x"]);
            (format!("{} {id}", record["namespace"].as_str().unwrap()), x)
        })
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_link_resyncs_one_namespace_by_its_policy_and_another_from_one_side() {
    let env = TestEnv::start().await;
    let mut tandem = apart(&env, &env.link()).await;
    ends_with(&tandem, &["resync", "--namespace", "shop.nothing"], 2);
    let said = ends_with(&tandem, &["resync", "--namespace", "shop.orders"], 0);
    let expected = "copied 1 to a and 1 to b, replaced 0 on a and 1 on b, removed 0 from a and 0 \
                    from b, 1 on record";
    assert!(said.contains(expected), "{said}");
    let lost = ids_and_losers(&tandem.conflicts(&[]));
    assert_eq!(lost, [("shop.orders 1".to_owned(), 2)]);
    ends_with(&tandem, &["verify", "--namespace", "shop.*"], 0);
    ends_with(&tandem, &["verify", "--namespace", "bank.*"], 6);
    let said = ends_with(
        &tandem,
        &["resync", "--namespace", "bank.*", "--from", "a"],
        0,
    );
    assert!(
        said.contains("removed 0 from a and 1 from b, 2 on record"),
        "{said}"
    );
    assert_converged(&env, SOON).await;
    let accounts = env
        .a
        .client()
        .database("bank")
        .collection::<Document>("accounts");
    let count = accounts.count_documents(doc! {}).await.unwrap();
    assert_eq!(count, 99, "document 3 is on no side");
    let records = tandem.conflicts(&["--namespace", "bank.*"]);
    let lost = ids_and_losers(&records);
    assert_eq!(
        lost,
        [
            ("bank.accounts 1".to_owned(), 2),
            ("bank.accounts 3".to_owned(), 3)
        ]
    );
    let kinds: Vec<&str> = records
        .iter()
        .filter_map(|one| one["kind"].as_str())
        .collect();
    assert!(
        kinds.contains(&"update_deleted") && kinds.contains(&"insert_exists"),
        "{kinds:?}"
    );
    // Held and released: both ways work.
    env.orders_a()
        .insert_one(doc! { "_id": "a" })
        .await
        .unwrap();
    env.orders_b()
        .insert_one(doc! { "_id": "b" })
        .await
        .unwrap();
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

/// An earlier sync was killed after its end was on record, and before its ranges were forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_resync_compares_what_an_earlier_sync_had_done() {
    let env = TestEnv::start().await;
    let mut tandem = apart(&env, &env.link()).await;
    let whole = doc! {};
    let own = env.b.client().database("__tandem");
    let ranges = own.collection::<Document>("ranges");
    for name in ["shop.orders", "bank.accounts"] {
        let done = doc! {
            "_id": format!("eu-us/{name}/0"), "link": "eu-us", "namespace": name, "range": &whole,
            "of": 1_i64, "done": true, "documents": 100_i64, "bytes": 100_i64,
        };
        ranges.insert_one(done).await.unwrap();
    }
    ends_with(&tandem, &["resync"], 0);
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_amid_writes_takes_no_lag_for_a_difference() {
    let env = TestEnv::start().await;
    let mut tandem = apart(&env, &env.link()).await;
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut writers = Vec::new();
    for (client, first) in [(env.a.client(), 10), (env.b.client(), 60)] {
        let orders = client.database("shop").collection::<Document>("orders");
        let stop = stop.clone();
        writers.push(tokio::spawn(async move {
            let mut round = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let filter = doc! { "_id": first + round % 30 };
                orders
                    .update_one(filter, doc! { "$inc": { "x": 1 } })
                    .await
                    .expect("updated");
                round += 1;
            }
        }));
    }
    for _ in 0..3 {
        ends_with(&tandem, &["resync", "--namespace", "shop.*"], 0);
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("it wrote on");
    }
    ends_with(&tandem, &["resync"], 0);
    assert_converged(&env, SOON).await;
    let lost = ids_and_losers(&tandem.conflicts(&["--namespace", "shop.*"]));
    assert_eq!(lost, [("shop.orders 1".to_owned(), 2)]);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_lost_resume_point_a_resync_begins_anew_and_merges_everything() {
    let small = MongodOptions::named("eu-set").with_small_oplog();
    let env = TestEnv::start_with(small, MongodOptions::named("us-set")).await;
    let mut tandem = apart(&env, &env.link()).await;
    tandem.stop().await;
    env.orders_a()
        .insert_one(doc! { "_id": "missed on a" })
        .await
        .unwrap();
    env.orders_b()
        .insert_one(doc! { "_id": "missed on b" })
        .await
        .unwrap();
    let other = doc! { "$set": { "x": 9 } };
    env.orders_a()
        .update_one(doc! { "_id": 50 }, other)
        .await
        .unwrap();
    roll_over(env.a.client()).await;
    env.a.client().database("elsewhere").drop().await.unwrap();
    let refused = tandem.run(&["run"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(code(&refused), 5);
    assert!(said.contains("tandem resync"), "{said}");
    ends_with(&tandem, &["resync", "--namespace", "shop.*"], 5);
    let said = ends_with(&tandem, &["resync"], 0);
    assert!(said.contains("3 on record"), "{said}");
    assert_converged(&env, SOON).await;
    let lost = ids_and_losers(&tandem.conflicts(&[]));
    let expected = [
        ("bank.accounts 1", 2),
        ("shop.orders 1", 2),
        ("shop.orders 50", 1),
    ];
    assert_eq!(lost, expected.map(|(name, x)| (name.to_owned(), x)));
    tandem.start();
    tandem.wait_until_streaming().await;
    env.orders_b()
        .insert_one(doc! { "_id": "b" })
        .await
        .unwrap();
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_settles_what_a_comparison_finds_with_and_without_a_running_link() {
    let env = TestEnv::start().await;
    let mut tandem = apart(&env, &env.link()).await;
    ends_with(&tandem, &["verify"], 6);
    let said = ends_with(&tandem, &["verify", "--repair", "--namespace", "shop.*"], 0);
    assert!(
        said.contains("repaired: copied 1 to a and 1 to b"),
        "{said}"
    );
    assert!(said.contains("1 on record, 0 left"), "{said}");
    let lost = ids_and_losers(&tandem.conflicts(&[]));
    assert_eq!(lost, [("shop.orders 1".to_owned(), 2)]);
    tandem.stop().await;
    let index = doc! { "key": { "x": 1 }, "name": "x_1" };
    let command = doc! { "createIndexes": "accounts", "indexes": [index] };
    env.b
        .client()
        .database("bank")
        .run_command(command)
        .await
        .unwrap();
    // What waits to be replicated is no difference that anybody could lose.
    let more = doc! { "$set": { "x": 7 } };
    env.orders_a()
        .update_one(doc! { "_id": 20 }, more)
        .await
        .unwrap();
    let said = ends_with(&tandem, &["verify", "--repair", "--from", "b", "--json"], 0);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(said["repaired"]["removed"]["a"], 1, "{said}");
    assert_converged(&env, SOON).await;
    let lost = ids_and_losers(&tandem.conflicts(&["--namespace", "bank.*"]));
    assert_eq!(
        lost,
        [
            ("bank.accounts 1".to_owned(), 1),
            ("bank.accounts 2".to_owned(), 1)
        ]
    );
    assert_eq!(tandem.conflicts(&["--namespace", "shop.*"]).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_turned_round_is_resynced_and_repaired_in_its_new_direction() {
    let env = TestEnv::start().await;
    let link = env.link().one_way().extra("[ddl]\nreplicate = false");
    let mut tandem = apart(&env, &link).await;
    ends_with(
        &tandem,
        &["cutover", "--reverse", "--yes", "--skip-verify"],
        0,
    );
    assert_eq!(tandem.status()["direction"], "b-to-a");
    let index = doc! { "key": { "x": 1 }, "name": "x_1" };
    let build = doc! { "createIndexes": "orders", "indexes": [index] };
    let on_us = env.b.client().database("shop");
    on_us.run_command(build).await.unwrap();

    ends_with(&tandem, &["resync", "--from", "a"], 2);
    ends_with(&tandem, &["verify", "--repair", "--from", "a"], 2);
    let start = now(env.b.client()).await;
    let said = ends_with(&tandem, &["resync", "--namespace", "shop.orders"], 0);
    let expected = "copied 1 to a and 0 to b, replaced 1 on a and 0 on b, removed 0 from a and 0 \
                    from b, 1 on record, 1 left on the target alone";
    assert!(said.contains(expected), "{said}");
    let on_eu = env.orders_a().list_index_names().await.unwrap();
    assert!(on_eu.contains(&"x_1".to_owned()), "{on_eu:?}");
    let said = ends_with(
        &tandem,
        &["resync", "--namespace", "bank.*", "--from", "b"],
        0,
    );
    assert!(
        said.contains("removed 1 from a and 0 from b, 2 on record"),
        "{said}"
    );
    let said = ends_with(&tandem, &["verify", "--repair"], 0);
    assert!(
        said.contains("removed 1 from a and 0 from b, 1 on record"),
        "{said}"
    );
    assert_converged(&env, SOON).await;
    let written = entries_after(env.b.client(), start).await;
    assert_eq!(written.len(), 0, "nothing goes to b");

    // With no process that runs the link, too.
    tandem.stop().await;
    let missed = vec![put("shop.orders", doc! { "_id": 50, "x": 9 })];
    behind_its_back(env.b.client(), missed).await;
    ends_with(&tandem, &["resync", "--from", "a"], 2);
    let said = ends_with(&tandem, &["resync"], 0);
    assert!(said.contains("replaced 1 on a and 0 on b"), "{said}");
    tandem.start();
    tandem.wait_until_streaming().await;
    env.orders_b()
        .insert_one(doc! { "_id": "us" })
        .await
        .unwrap();
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}
