//! Changes of collections go both ways: they settle, and no echo of them comes back.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use serde_json::Value;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv, raw_by_id};
use crate::support::mongod::Mongod;
use crate::support::schema::{assert_same_schema, run, schema};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(40);

/// Long enough for an echo to come back, be taken for a change and be sent again.
const QUIET: Duration = Duration::from_millis(1500);

async fn rename(cluster: &Mongod, from: &str, to: &str) {
    let command = doc! { "renameCollection": from, "to": to };
    cluster.admin(command).await;
}

fn with_drops(env: &TestEnv) -> LinkConfig {
    env.link().extra("[ddl]\ndrops = true")
}

/// Commands that tandem has issued for changes of collections, from a to b and from b to a.
fn issued(status: &Value) -> (u64, u64) {
    let of = |at: usize| {
        let counted = &status["pipelines"][at]["operations_applied_by_type"]["ddl"];
        counted.as_u64().expect("a count")
    };
    (of(0), of(1))
}

/// Both sides are the same, and tandem has nothing more to do about it. Returns what it issued.
async fn settled(env: &TestEnv, tandem: &Tandem) -> (u64, u64) {
    tandem
        .wait_status("nothing waits", SOON, |status| {
            let lag = |at: usize| status["pipelines"][at]["lag_seconds"] == 0.0;
            lag(0) && lag(1)
        })
        .await;
    assert_same_schema(env, SOON).await;
    assert_converged(env, SOON).await;
    // What bounces never comes to rest.
    let mut before = issued(&tandem.status());
    let until = Instant::now() + SOON;
    loop {
        tokio::time::sleep(2 * QUIET).await;
        let now = issued(&tandem.status());
        if now == before {
            break;
        }
        assert!(
            Instant::now() < until,
            "a change bounces: {before:?} {now:?}"
        );
        before = now;
    }
    assert_same_schema(env, SOON).await;
    before
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_changes_on_one_side_arrive_once_and_do_not_come_back() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&with_drops(&env)).await;
    run(&env.b, doc! { "create": "orders" }).await;
    run(
        &env.b,
        doc! { "create": "view", "viewOn": "orders", "pipeline": [] },
    )
    .await;
    let index = |name: &str| doc! { "key": { name: 1 }, "name": name };
    let indexes = vec![index("x"), index("y")];
    run(
        &env.b,
        doc! { "createIndexes": "orders", "indexes": indexes },
    )
    .await;
    assert_eq!(settled(&env, &tandem).await, (0, 4));

    for step in 0..5 {
        for command in [
            doc! { "collMod": "orders", "validator": { "v": { "$gt": step } } },
            doc! { "collMod": "orders", "index": { "name": "x", "hidden": step % 2 == 0 } },
            doc! { "collMod": "view", "viewOn": "orders", "pipeline": [{ "$limit": step + 1 }] },
            doc! { "dropIndexes": "orders", "index": "y" },
            doc! { "createIndexes": "orders", "indexes": [index("y")] },
        ] {
            run(&env.b, command).await;
        }
        rename(&env.b, "shop.orders", "shop.other").await;
        rename(&env.b, "shop.other", "shop.orders").await;
    }
    let (from_a, from_b) = settled(&env, &tandem).await;
    assert_eq!(from_a, 0, "an echo was sent back");
    assert!(from_b <= 4 + 5 * 7, "{from_b} commands for 35 changes");

    for round in 0..5 {
        run(&env.b, doc! { "drop": "orders" }).await;
        let orders = env.orders_b();
        orders
            .insert_one(doc! { "_id": 1, "round": round })
            .await
            .unwrap();
    }
    assert_eq!(settled(&env, &tandem).await.0, 0, "an echo was sent back");
    assert!(tandem.conflicts(&["--kind", "ddl"]).is_empty());
    tandem.stop().await;
}

fn kept_for(days: i32) -> Document {
    doc! { "name": "at", "expireAfterSeconds": days * 86_400 }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_same_thing_on_both_sides_settle_and_the_loser_is_on_record() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let mut index = kept_for(30);
    index.insert("key", doc! { "at": 1 });
    run(
        &env.a,
        doc! { "createIndexes": "orders", "indexes": [index] },
    )
    .await;
    settled(&env, &tandem).await;

    tandem.sigstop();
    let other = doc! { "key": { "b": 1 }, "name": "b" };
    run(
        &env.b,
        doc! { "createIndexes": "orders", "indexes": [other] },
    )
    .await;
    for (cluster, by, days) in [(&env.a, "a", 40), (&env.b, "b", 50)] {
        for command in [
            doc! { "collMod": "orders", "index": kept_for(days) },
            doc! { "collMod": "orders", "validator": { "by": by } },
            doc! { "create": "fresh", "validator": { "by": by } },
        ] {
            run(cluster, command).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tandem.sigcont();
    settled(&env, &tandem).await;

    let on_a = schema(env.a.client()).await;
    let (_, options, indexes) = &on_a["shop.orders"];
    let by_b = doc! { "by": "b" };
    assert_eq!(options.get_document("validator").unwrap(), &by_b);
    assert_eq!(
        on_a["shop.fresh"].1.get_document("validator").unwrap(),
        &by_b
    );
    assert!(
        indexes.contains_key("b"),
        "an index that nothing races with was lost"
    );
    let kept = indexes["at"].get("expireAfterSeconds");
    assert_eq!(kept, kept_for(50).get("expireAfterSeconds"));
    let records = tandem.conflicts(&["--kind", "ddl"]);
    assert_eq!(records.len(), 3, "{records:?}");
    let of_b = |record: &Value| record["winner_cluster"] == "b";
    assert!(records.iter().all(of_b), "{records:?}");
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quick_changes_on_both_sides_at_once_settle() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let index = doc! { "key": { "x": 1 }, "name": "x" };
    run(
        &env.a,
        doc! { "createIndexes": "orders", "indexes": [index] },
    )
    .await;
    settled(&env, &tandem).await;
    let changes = |cluster: &'static str| {
        (0..8).flat_map(move |step| {
            [
                doc! { "collMod": "orders", "validator": { "by": cluster, "step": step } },
                doc! { "collMod": "orders", "index": { "name": "x", "hidden": step % 2 == 0 } },
                doc! { "create": format!("{cluster}{step}") },
                doc! { "create": format!("both{step}"), "validator": { "by": cluster } },
            ]
        })
    };
    let on = |cluster: &'static str, server: &Mongod| {
        let shop = server.client().database("shop");
        async move {
            for command in changes(cluster) {
                // One side may have made already what the other one makes.
                let _ = shop.run_command(command).await;
            }
        }
    };
    tokio::join!(on("a", &env.a), on("b", &env.b));
    let (from_a, from_b) = settled(&env, &tandem).await;
    assert!(from_a + from_b < 200, "{from_a} and {from_b} commands");
    assert_eq!(schema(env.b.client()).await.len(), 1 + 8 + 8 + 8);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_collection_keeps_its_conflicts_and_one_of_two_names() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let row = doc! { "_id": 1, "v": "first" };
    env.orders_a().insert_one(row).await.unwrap();
    wait_for("the first row", SOON, || raw_by_id(&env.orders_b(), 1)).await;

    tandem.sigstop();
    let set = |by: &str| doc! { "$set": { "v": by } };
    env.orders_a()
        .update_one(doc! { "_id": 1 }, set("a"))
        .await
        .unwrap();
    rename(&env.a, "shop.orders", "shop.of_a").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    rename(&env.b, "shop.orders", "shop.of_b").await;
    let of_b = env
        .b
        .client()
        .database("shop")
        .collection::<Document>("of_b");
    of_b.update_one(doc! { "_id": 1 }, set("b")).await.unwrap();
    tandem.sigcont();
    settled(&env, &tandem).await;

    let names: Vec<String> = schema(env.a.client()).await.into_keys().collect();
    assert_eq!(names, ["shop.of_b"]);
    let found = of_b.find_one(doc! { "_id": 1 }).await.unwrap().unwrap();
    assert_eq!(found.get_str("v").unwrap(), "b");
    let kinds: Vec<Value> = tandem
        .conflicts(&[])
        .iter()
        .map(|record| record["kind"].clone())
        .collect();
    assert_eq!(kinds.len(), 2, "{kinds:?}");
    assert!(kinds.contains(&"ddl".into()) && kinds.contains(&"update_origin_differs".into()));
    env.orders_b()
        .insert_one(doc! { "_id": 1, "v": "a new collection" })
        .await
        .unwrap();
    settled(&env, &tandem).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_drops_a_dropped_collection_is_named_and_its_documents_stay() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    for name in ["orders", "kept"] {
        let collection = env.a.client().database("shop").collection(name);
        collection.insert_one(doc! { "_id": 1 }).await.unwrap();
    }
    let bank = env.a.client().database("bank");
    let view = doc! { "create": "view", "viewOn": "accounts", "pipeline": [] };
    bank.run_command(view).await.unwrap();
    settled(&env, &tandem).await;
    // It holds views alone.
    bank.drop().await.unwrap();
    settled(&env, &tandem).await;
    env.orders_a().drop().await.unwrap();
    tandem
        .wait_status("it is named", SOON, |status| {
            status["unpaired_namespaces"] == serde_json::json!(["shop.orders"])
        })
        .await;
    assert!(raw_by_id(&env.orders_b(), 1).await.is_some());
    assert_eq!(tandem.conflicts(&["--kind", "ddl"]).len(), 1);
    run(&env.b, doc! { "collMod": "kept", "validator": { "x": 1 } }).await;
    wait_for("the other collection goes on", SOON, || async {
        let on_a = schema(env.a.client()).await;
        on_a["shop.kept"].1.contains_key("validator").then_some(())
    })
    .await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_echo_of_a_drop_spares_the_newer_collection_of_either_side() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&with_drops(&env)).await;
    for round in 0..6 {
        let (here, there) = match round % 2 {
            0 => (env.orders_a(), env.orders_b()),
            _ => (env.orders_b(), env.orders_a()),
        };
        here.insert_one(doc! { "_id": "old", "round": round })
            .await
            .unwrap();
        wait_for("the old one", SOON, || raw_by_id(&there, "old")).await;
        here.drop().await.unwrap();
        wait_for("it is gone", SOON, || async {
            raw_by_id(&there, "old").await.is_none().then_some(())
        })
        .await;
        // On the other side, while the echo of the drop may still be on its way.
        there
            .insert_one(doc! { "_id": "new", "round": round })
            .await
            .unwrap();
        wait_for("the new one", SOON, || raw_by_id(&here, "new")).await;
        there.drop().await.unwrap();
        wait_for("it is gone", SOON, || async {
            raw_by_id(&here, "new").await.is_none().then_some(())
        })
        .await;
    }
    settled(&env, &tandem).await;
    tandem.stop().await;
}

/// The side that has refused it renames its collection and makes the index, is resynced, or drops it
/// all.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_index_is_listed_by_its_collections_name_until_it_or_the_collection_is_not() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&with_drops(&env)).await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    wait_for("it arrives", SOON, || raw_by_id(&env.orders_b(), 1)).await;
    let listed = async |expected: &[&str]| {
        let as_expected = |status: &Value| {
            let found = status["index_problems"].as_array();
            let names = found.map(|found| found.iter().map(|one| one["namespace"].as_str()));
            names.is_some_and(|names| names.flatten().eq(expected.iter().copied()))
        };
        let what = format!("{expected:?} are listed");
        tandem.wait_status(&what, SOON, as_expected).await;
    };
    let refuse = async |command: &str| {
        let fails = doc! { "failCommands": [command], "appName": "tandem", "errorCode": 67 };
        env.b.fail_command(doc! { "times": 1 }, fails).await;
    };
    let index = |name: &str| doc! { "key": { name: 1 }, "name": name };
    let make = |on: &str, name: &str| doc! { "createIndexes": on, "indexes": [index(name)] };
    for (name, here) in [("x", "orders"), ("z", "archive"), ("y", "archive")] {
        refuse("createIndexes").await;
        run(&env.a, make(here, name)).await;
        listed(&[&format!("shop.{here}")]).await;
        if name == "x" {
            rename(&env.b, "shop.orders", "shop.archive").await;
            listed(&["shop.archive"]).await;
            run(&env.b, make("archive", name)).await;
        } else if name == "z" {
            refuse("create").await;
            let view = doc! { "create": "view", "viewOn": "archive", "pipeline": [] };
            run(&env.a, view).await;
            listed(&["shop.archive", "shop.view"]).await;
            assert!(tandem.run(&["resync"]).status.success());
        } else {
            run(&env.b, doc! { "drop": "archive" }).await;
        }
        listed(&[]).await;
    }
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_side_lacks_at_the_first_start_is_made_there_with_its_indexes() {
    let env = TestEnv::start().await;
    for (client, name) in [(env.a.client(), "only_a"), (env.b.client(), "only_b")] {
        let shop = client.database("shop");
        let options = doc! { "create": name, "validator": { "x": { "$gt": 0 } } };
        shop.run_command(options).await.unwrap();
        let indexes = bson::bson!([
            { "key": { "sku": 1 }, "name": "sku_1", "unique": true, "sparse": true },
            { "key": { "at": 1 }, "name": "at_1", "expireAfterSeconds": 86_400 },
        ]);
        let command = doc! { "createIndexes": name, "indexes": indexes };
        shop.run_command(command).await.unwrap();
    }
    let mut tandem = env.streaming(&env.link()).await;
    assert_same_schema(&env, SOON).await;
    for (client, name) in [(env.a.client(), "only_a"), (env.b.client(), "only_b")] {
        let collection = client.database("shop").collection::<Document>(name);
        collection
            .insert_one(doc! { "_id": 1, "x": 1, "sku": "s" })
            .await
            .unwrap();
    }
    assert_converged(&env, SOON).await;
    assert_same_schema(&env, SOON).await;
    assert_eq!(
        tandem.all_conflicts(&env).await,
        Vec::<serde_json::Value>::new()
    );
    tandem.stop().await;
}
