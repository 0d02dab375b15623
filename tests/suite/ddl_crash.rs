//! Changes of collections under load and through crashes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::Mongod;
use crate::support::random::{Random, scaled, seed};
use crate::support::schema::{assert_same_schema, schema};
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);

/// Whether collections are dropped, too.
#[derive(Clone, Copy, PartialEq)]
enum Drops {
    Never,
    Sometimes,
}

/// One change after the other, with a write behind each of them.
async fn change_until(
    client: Client,
    by: &'static str,
    drops: Drops,
    mut random: Random,
    stop: Arc<AtomicBool>,
) {
    let shop = client.database("shop");
    let kinds = if drops == Drops::Sometimes { 8 } else { 6 };
    let mut step = 0;
    while !stop.load(Ordering::Relaxed) {
        step += 1;
        let name = format!("{by}{}", random.below(3));
        let index = format!("i{}", random.below(3));
        let to = format!("shop.{by}{}", random.below(3));
        let mut rename = doc! { "renameCollection": format!("shop.{name}"), "to": to };
        let command = match random.below(kinds) {
            0 => doc! { "create": &name },
            1 => {
                let index = doc! { "key": { &index: 1 }, "name": &index };
                doc! { "createIndexes": &name, "indexes": [index] }
            }
            2 => doc! { "dropIndexes": &name, "index": &index },
            3 => doc! { "collMod": &name, "validator": { "step": { "$gte": step } } },
            4 => doc! { "collMod": "shared", "validator": { by: { "$gte": step } } },
            5 => rename,
            6 => doc! { "drop": &name },
            _ => {
                rename.insert("dropTarget", true);
                rename
            }
        };
        // Some are refused: a name is taken, or there is nothing under it.
        let _ = match command.contains_key("renameCollection") {
            true => client.database("admin").run_command(command).await,
            false => shop.run_command(command).await,
        };
        let collection = shop.collection::<Document>(&name);
        let row = doc! { "$set": { "step": step, "by": by } };
        let only = doc! { "_id": random.below(20) as i32 };
        let _ = collection.update_one(only, row).upsert(true).await;
        tokio::time::sleep(Duration::from_millis(random.below(60))).await;
    }
}

/// Returns once a command of tandem is under way on the cluster.
pub async fn wait_for_open_intent(cluster: &Mongod) {
    let own = cluster.client().database("__tandem");
    let intents = own.collection::<Document>("ddl");
    wait_for("an intent", SOON, || async {
        let open = intents.find_one(doc! { "end": null, "kind": "intent" });
        open.await.unwrap()
    })
    .await;
}

async fn kill_amid_changes(env: &TestEnv, link: &LinkConfig, drops: Drops) {
    env.create_on_both("shop", "shared").await;
    let mut tandem = env.streaming(link).await;
    let mut random = Random::new(seed("ddl_crash"));
    let stop = Arc::new(AtomicBool::new(false));
    let sides = [("a", env.a.client()), ("b", env.b.client())];
    let changing: Vec<_> = sides
        .into_iter()
        .map(|(by, client)| {
            let random = random.fork(by.len() as u64);
            let changes = change_until(client.clone(), by, drops, random, stop.clone());
            tokio::spawn(changes)
        })
        .collect();
    for _ in 0..scaled(50) {
        tokio::time::sleep(Duration::from_millis(200 + random.below(1500))).await;
        tandem.kill9();
        tandem.start();
        tandem.wait_until_streaming().await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in changing {
        task.await.unwrap();
    }
    assert_same_schema(env, SOON).await;
    assert_converged(env, SOON).await;
    let status = tandem.status();
    assert_eq!(status["unpaired_namespaces"], serde_json::json!([]));
    assert_eq!(status["index_problems"], serde_json::json!([]));
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_moment_loses_no_change_of_a_collection() {
    let env = TestEnv::start().await;
    kill_amid_changes(&env, &env.link(), Drops::Never).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: kills for a quarter of a minute"]
async fn a_kill_at_any_moment_brings_no_dropped_collection_back() {
    let env = TestEnv::start().await;
    let link = env.link().extra("[ddl]\ndrops = true");
    kill_amid_changes(&env, &link, Drops::Sometimes).await;
}

/// A unique index on a collection that is being written moves its documents into one lane.
#[tokio::test(flavor = "multi_thread")]
async fn a_unique_index_made_under_load_orders_the_values_that_move() {
    const DOCUMENTS: i32 = 8;
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let orders = env.orders_a();
    for id in 0..DOCUMENTS {
        orders
            .insert_one(doc! { "_id": id, "sku": id })
            .await
            .unwrap();
    }
    let shop = env.a.client().database("shop");
    let unique = doc! { "key": { "sku": 1 }, "name": "sku", "unique": true };
    let steps = scaled(3000) as i32;
    for step in 0..steps {
        if step == steps / 3 {
            let command = doc! { "createIndexes": "orders", "indexes": [unique.clone()] };
            shop.run_command(command).await.unwrap();
        }
        // The value of one document goes on to the next one, by way of a free one.
        let (one, next) = (step % DOCUMENTS, (step + 1) % DOCUMENTS);
        let sku = |id: i32| {
            let found = orders.find_one(doc! { "_id": id });
            async move { found.await.unwrap().unwrap().get_i32("sku").unwrap() }
        };
        let (first, second) = (sku(one).await, sku(next).await);
        for (id, value) in [(one, 1000 + step), (next, first), (one, second)] {
            let set = doc! { "$set": { "sku": value } };
            orders.update_one(doc! { "_id": id }, set).await.unwrap();
        }
        if step % 50 == 0 {
            let other = env.orders_b();
            let row = doc! { "_id": -step - 1, "sku": -step - 1 };
            other.insert_one(row).await.unwrap();
        }
    }
    assert_same_schema(&env, SOON).await;
    assert_converged(&env, SOON).await;
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
}

/// The command hangs in the server, the process that sent it is killed, and the next one finds an
/// intent without an end.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_between_intent_and_command_makes_the_change_once() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let rename = doc! { "renameCollection": "shop.orders", "to": "shop.renamed" };
    for (database, command) in [
        ("shop", doc! { "create": "fresh", "validator": { "x": 1 } }),
        (
            "shop",
            doc! { "createIndexes": "orders", "indexes": [{ "key": { "x": 1 }, "name": "x" }] },
        ),
        (
            "shop",
            doc! { "collMod": "orders", "index": { "name": "x", "hidden": true } },
        ),
        ("shop", doc! { "dropIndexes": "orders", "index": "x" }),
        ("admin", rename),
    ] {
        let verb = command.keys().next().unwrap().clone();
        let held = doc! {
            "failCommands": [&verb], "appName": "tandem",
            "blockConnection": true, "blockTimeMS": 2000,
        };
        env.b.fail_command("alwaysOn", held).await;
        env.a
            .client()
            .database(database)
            .run_command(command)
            .await
            .unwrap();
        wait_for_open_intent(&env.b).await;
        tandem.kill9();
        env.b.fail_command("off", doc! {}).await;
        tandem.start();
        tandem.wait_until_streaming().await;
        let row = doc! { "_id": &verb };
        env.orders_a().insert_one(row).await.unwrap();
        assert_same_schema(&env, SOON).await;
        assert_converged(&env, SOON).await;
    }
    let from_b = tandem.pipeline("b-to-a")["operations_applied_by_type"]["ddl"].clone();
    assert_eq!(from_b, 0, "an echo was sent back");
    assert!(tandem.conflicts(&["--kind", "ddl"]).is_empty());
    tandem.stop().await;
}

/// The application's creation and drop lie between the two ends of tandem's own creation.
#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_creates_and_drops_amid_a_creation_is_not_taken_for_its_counterpart() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link().extra("[ddl]\ndrops = true");
    let mut tandem = env.streaming(&link).await;
    let held = doc! {
        "failCommands": ["create"], "appName": "tandem",
        "blockConnection": true, "blockTimeMS": 1500,
    };
    env.b.fail_command(doc! { "times": 1 }, held).await;
    let create = doc! { "create": "fresh" };
    let on_a = env.a.client().database("shop");
    on_a.run_command(create.clone()).await.unwrap();
    wait_for_open_intent(&env.b).await;
    let on_b = env.b.client().database("shop");
    on_b.run_command(create).await.unwrap();
    on_b.run_command(doc! { "drop": "fresh" }).await.unwrap();
    for round in 0..2 {
        let row = doc! { "_id": round };
        let fresh = on_a.collection::<Document>("fresh");
        fresh.insert_one(row).await.unwrap();
        assert_same_schema(&env, SOON).await;
        assert_converged(&env, SOON).await;
        let there = on_b.collection::<Document>("fresh");
        let there = there.count_documents(doc! {}).await.unwrap();
        assert_eq!(there, round as u64 + 1, "what was written stays");
        let unpaired = tandem.status()["unpaired_namespaces"].clone();
        assert_eq!(unpaired, serde_json::json!([]));
        tandem.kill9();
        tandem.start();
        tandem.wait_until_streaming().await;
    }
    tandem.stop().await;
}

/// The lane of the other direction once made what was dropped again.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_dropped_while_it_gets_its_counterpart_is_gone_from_both_sides() {
    let env = TestEnv::start().await;
    let link = env.link().extra("[ddl]\ndrops = true");
    let mut tandem = env.streaming(&link).await;
    // So the turn of the creation lasts, and a lane that looks for the name finds it gone.
    let held = doc! {
        "failCommands": ["listCollections"], "appName": "tandem",
        "blockConnection": true, "blockTimeMS": 500,
    };
    env.a.fail_command("alwaysOn", held).await;
    let fresh_on = |cluster: &Mongod| {
        let shop = cluster.client().database("shop");
        shop.collection::<Document>("fresh")
    };
    let (on_a, on_b) = (fresh_on(&env.a), fresh_on(&env.b));
    on_a.insert_one(doc! { "_id": 1 }).await.unwrap();
    let is_on_b = || async { schema(env.b.client()).await.contains_key("shop.fresh") };
    wait_for("the counterpart", SOON, || async {
        is_on_b().await.then_some(())
    })
    .await;
    let own = env.b.client().database("__tandem");
    let known = own.collection::<Document>("collections");
    wait_for("its lane", SOON, || async {
        let routed = known.find_one(doc! { "namespace": "shop.fresh" });
        routed.await.unwrap()
    })
    .await;
    on_b.insert_one(doc! { "_id": 2 }).await.unwrap();
    on_a.drop().await.unwrap();
    wait_for("its end", SOON, || async {
        (!is_on_b().await).then_some(())
    })
    .await;
    env.a.fail_command("off", doc! {}).await;
    assert_same_schema(&env, SOON).await;
    assert_converged(&env, SOON).await;
    for client in [env.a.client(), env.b.client()] {
        assert!(!schema(client).await.contains_key("shop.fresh"));
    }
    assert_eq!(
        tandem.status()["unpaired_namespaces"],
        serde_json::json!([])
    );
    tandem.stop().await;
}

/// The intent of a command that was cut off does not go on waiting for its echo.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_long_after_a_command_that_a_kill_has_cut_off_is_not_its_echo() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link().lanes(1)).await;
    let held = doc! {
        "failCommands": ["collMod"], "appName": "tandem",
        "blockConnection": true, "blockTimeMS": 2000,
    };
    env.b.fail_command("alwaysOn", held).await;
    let validate = |step: i32| doc! { "collMod": "orders", "validator": { "x": { "$ne": step } } };
    let (on_a, on_b) = (
        env.a.client().database("shop"),
        env.b.client().database("shop"),
    );
    on_a.run_command(validate(1)).await.unwrap();
    wait_for_open_intent(&env.b).await;
    tandem.kill9();
    env.b.fail_command("off", doc! {}).await;
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_same_schema(&env, SOON).await;
    // The checkpoint passes everything that the first process may have done.
    env.orders_b().insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    tandem.kill9();
    on_b.run_command(validate(2)).await.unwrap();
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_same_schema(&env, SOON).await;
    let listed = on_a.run_command(doc! { "listCollections": 1, "filter": { "name": "orders" } });
    let listed = listed.await.unwrap().to_string();
    assert!(listed.contains("\"$ne\": 2"), "{listed}");
    tandem.stop().await;
}
