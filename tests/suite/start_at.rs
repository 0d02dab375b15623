//! A link that begins at a known time of the past.

use std::time::Duration;

use bson::{DateTime, Document, doc};
use futures_util::TryStreamExt;
use mongodb::Client;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::oplog::now;

const SOON: Duration = Duration::from_secs(30);

/// Returns the present second once nothing older is in it.
async fn a_new_second(client: &Client) -> i64 {
    let second = i64::from(now(client).await.time);
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let note = doc! { "appendOplogNote": 1, "data": {} };
        client.database("admin").run_command(note).await.unwrap();
        let present = i64::from(now(client).await.time);
        if present > second {
            return present;
        }
    }
}

fn beginning(env: &TestEnv, keys: &[&str], second: i64) -> LinkConfig {
    let at = DateTime::from_millis(second * 1000);
    let at = at.try_to_rfc3339_string().expect("a time");
    let lines: Vec<String> = keys.iter().map(|key| format!("{key} = {at:?}\n")).collect();
    env.link()
        .extra(&format!("[initial_sync]\n{}", lines.concat()))
}

async fn change_all(env: &TestEnv, by: &str) {
    let orders = if by == "a" {
        env.orders_a()
    } else {
        env.orders_b()
    };
    let first = if by == "a" { 0 } else { 100 };
    let of = |from: i32, to: i32| doc! { "_id": { "$gte": first + from, "$lt": first + to } };
    let set = doc! { "$set": { "by": by }, "$inc": { "n": 1 }, "$push": { "list": by } };
    orders.update_many(of(0, 50), set).await.unwrap();
    orders.delete_many(of(50, 60)).await.unwrap();
    let moved = doc! { "$unset": { "n": "" }, "$set": { "last.of.all": by } };
    orders.update_many(of(60, 70), moved).await.unwrap();
    let again = (first + 50..first + 55).map(|id| doc! { "_id": id, "again": by });
    orders.insert_many(again).await.unwrap();
    orders
        .insert_one(doc! { "_id": format!("new on {by}") })
        .await
        .unwrap();
}

fn rows() -> impl Iterator<Item = Document> {
    (0..200).map(|id| doc! { "_id": id, "n": 0, "list": ["x", id] })
}

async fn run_until_caught_up(env: &TestEnv, link: &LinkConfig) {
    let tandem = env.tandem(link);
    let output = tandem.run(&["run", "--until-caught-up", "--timeout", "60s"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(tandem.conflicts(&[]), Vec::<serde_json::Value>::new());
}

/// The restore is later than what was written on `a` meanwhile, and must not win over it.
#[tokio::test(flavor = "multi_thread")]
async fn from_a_backups_time_on_b_comes_to_what_a_has_become_since() {
    let env = TestEnv::start().await;
    let second = a_new_second(env.a.client()).await;
    env.orders_a().insert_many(rows()).await.unwrap();
    change_all(&env, "a").await;
    let found = env.orders_a().find(doc! {}).await.unwrap();
    let backup: Vec<Document> = found.try_collect().await.unwrap();
    env.orders_a()
        .delete_many(doc! { "_id": "new on a" })
        .await
        .unwrap();
    change_all(&env, "a").await;
    let later = doc! { "$set": { "since": "the backup" } };
    env.orders_a()
        .update_many(doc! { "_id": { "$gte": 150 } }, later)
        .await
        .unwrap();
    env.orders_b().insert_many(backup).await.unwrap();
    run_until_caught_up(&env, &beginning(&env, &["start_at"], second)).await;
    assert_converged(&env, SOON).await;
    let row = env.orders_b().find_one(doc! { "_id": 199 }).await.unwrap();
    assert_eq!(row.unwrap().get_str("since").unwrap(), "the backup");
    let row = env.orders_b().find_one(doc! { "_id": 0 }).await.unwrap();
    assert_eq!(row.unwrap().get_i32("n").unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_sides_have_written_since_a_known_time_crosses_over() {
    let env = TestEnv::start().await;
    for orders in [env.orders_a(), env.orders_b()] {
        orders.insert_many(rows()).await.unwrap();
    }
    a_new_second(env.a.client()).await;
    let second = a_new_second(env.b.client()).await;
    change_all(&env, "a").await;
    change_all(&env, "b").await;
    let keys = ["start_at", "start_at_b"];
    run_until_caught_up(&env, &beginning(&env, &keys, second)).await;
    assert_converged(&env, SOON).await;
    for (id, by) in [(0, "a"), (100, "b")] {
        let row = env.orders_a().find_one(doc! { "_id": id }).await.unwrap();
        assert_eq!(row.unwrap().get_str("by").unwrap(), by);
    }
}

/// Nothing of it is left that the next start would have to wait for.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_refused_for_its_time_writes_nothing() {
    let env = TestEnv::start().await;
    for (key, name) in [("start_at", "eu"), ("start_at_b", "us")] {
        let never = format!("[initial_sync]\n{key} = \"2105-01-01T00:00:00Z\"");
        let output = env.tandem(&env.link().extra(&never)).run(&["run"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        let what = format!("initial_sync.{key}: it is in the future of {name}");
        assert!(said.contains(&what), "{said}");
    }
    for client in [env.a.client(), env.b.client()] {
        let names = client.list_database_names().await.unwrap();
        assert!(!names.contains(&"__tandem".to_owned()), "{names:?}");
    }
    run_until_caught_up(&env, &env.link()).await;
}
