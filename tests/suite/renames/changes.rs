//! Changes of collections go over under the names of the other side.

use std::collections::BTreeMap;

use super::*;
use crate::support::schema::schema_in;

async fn rename(cluster: &Mongod, from: &str, to: &str) {
    let command = doc! { "renameCollection": from, "to": to };
    cluster.admin(command).await;
}

async fn rename_onto(cluster: &Mongod, from: &str, to: &str) {
    let command = doc! { "renameCollection": from, "to": to, "dropTarget": true };
    cluster.admin(command).await;
}

/// The collections of `shop` on both sides are the same, under the names on a.
async fn assert_same_shop(env: &TestEnv, tandem: &Tandem) -> BTreeMap<String, Document> {
    let started = Instant::now();
    loop {
        let a = schema_in(env.a.client(), &["shop".to_owned()]).await;
        let b = schema_in(env.b.client(), &["shop_eu".to_owned()]).await;
        let b = b.into_iter();
        let b = b.map(|(name, is)| (name.replace("shop_eu.", "shop."), is));
        let b = b.collect();
        if a == b {
            return a.into_iter().map(|(name, is)| (name, is.1)).collect();
        }
        if started.elapsed() > SOON {
            panic!("{a:#?}\n{b:#?}\n{}", tandem.tail());
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn views_of(cluster: &Mongod, database: &str) -> BTreeMap<String, Document> {
    let found = schema_in(cluster.client(), &[database.to_owned()]).await;
    let views = found.into_iter().filter(|(_, is)| is.0 == "view");
    views.map(|(name, is)| (name, is.1)).collect()
}

fn index(name: &str) -> Document {
    doc! { "key": { name: 1 }, "name": name, "unique": name == "x" }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_collections_go_over_under_the_names_of_the_other_side() {
    let env = TestEnv::start().await;
    plant_strangers(&env).await;
    let link = renaming(&env).extra("[ddl]\ndrops = true");
    let mut tandem = env.streaming(&link).await;
    make_and_change(&env, &tandem).await;
    insert(&env.a, "shop.new", 1).await;
    assert_same(&env, &tandem).await;
    let found = assert_same_shop(&env, &tandem).await;
    assert!(found.contains_key("shop.things"), "{found:?}");
    rename_onto(&env.a, "shop.new", "shop.things").await;
    insert(&env.b, "shop_eu.later", 1).await;
    assert_same_shop(&env, &tandem).await;
    assert!(holds(&env.b, "shop_eu.things", 1).await, "renamed onto it");
    tandem.kill9();
    run(&env.b, "shop_eu", doc! { "drop": "things" }).await;
    rename(&env.a, "shop.later", "shop.last").await;
    tandem.start();
    tandem.wait_until_streaming().await;
    let found = assert_same_shop(&env, &tandem).await;
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["shop.last", "shop.view"]);
    run(&env.b, "shop_eu", doc! { "dropDatabase": 1 }).await;
    let found = assert_same_shop(&env, &tandem).await;
    assert!(found.is_empty(), "{found:?}");
    assert_strangers_untouched(&env).await;
    assert!(tandem.conflicts(&["--kind", "ddl"]).is_empty());
    let status = tandem.status();
    assert_eq!(status["index_problems"], serde_json::json!([]), "{status}");
    tandem.stop().await;
}

async fn make_and_change(env: &TestEnv, tandem: &Tandem) {
    let validator = |n: i32| doc! { "v": { "$gt": n } };
    let indexes = vec![index("x"), index("y")];
    for command in [
        doc! { "create": "items", "validator": validator(1) },
        doc! { "createIndexes": "items", "indexes": indexes },
    ] {
        run(&env.b, "shop_eu", command).await;
    }
    let items = doc! { "from": "items", "localField": "v", "foreignField": "_id", "as": "i" };
    let pipeline = vec![doc! { "$lookup": items }];
    let view = doc! { "create": "view", "viewOn": "orders", "pipeline": pipeline };
    run(&env.a, "shop", view).await;
    let found = assert_same_shop(env, tandem).await;
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["shop.items", "shop.view"]);
    let other = doc! { "collMod": "items", "validator": validator(2) };
    run(&env.a, "shop", other).await;
    for command in [
        doc! { "dropIndexes": "items", "index": "y" },
        doc! { "collMod": "view", "viewOn": "items", "pipeline": [] },
    ] {
        run(&env.b, "shop_eu", command).await;
    }
    rename(&env.b, "shop_eu.items", "shop_eu.things").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_follow_under_the_other_name_is_named_and_replicated_no_more() {
    let env = TestEnv::start().await;
    plant_strangers(&env).await;
    let mut tandem = env.streaming(&renaming(&env)).await;
    for name in ["bank.log", "bank.accounts"] {
        insert(&env.a, name, 2).await;
        must_arrive(&env.b, &on_b(name), 2).await;
    }
    // A view of a collection that b calls otherwise, and one of what b has in another database.
    let view = |on: &str| doc! { "create": format!("view{on}"), "viewOn": on, "pipeline": [] };
    run(&env.a, "bank", view("accounts")).await;
    run(&env.a, "bank", view("log")).await;
    // On b it would have to move from one database to another.
    rename(&env.a, "bank.log", "bank.diary").await;
    // On b the name is that of nothing on a.
    run(&env.b, "bank", doc! { "drop": "accounts" }).await;
    rename(&env.b, "bank.accounts_eu", "bank.old").await;
    rename(&env.b, "bank.old", "bank.accounts").await;
    let unpaired = |status: &Value| {
        let names = status["unpaired_namespaces"].to_string();
        names.contains("bank.diary") && names.contains("bank.old")
    };
    tandem.wait_status("both are named", SOON, unpaired).await;
    let log = tandem.log();
    for told in [
        "it would have to move from audit to bank on us",
        "it was renamed from or to what is not replicated",
    ] {
        assert!(log.contains(told), "{log}");
    }
    assert_replicated_no_more(&env).await;
    let status = tandem.status();
    let problems = status["index_problems"].to_string();
    assert!(problems.contains("bank.viewlog"), "{status}");
    let views = views_of(&env.b, "bank").await;
    let shown = doc! { "viewOn": "accounts_eu", "pipeline": [] };
    assert_eq!(views.get("bank.viewaccounts"), Some(&shown));
    tandem.stop().await;
}

async fn assert_replicated_no_more(env: &TestEnv) {
    insert(&env.a, "bank.diary", 3).await;
    insert(&env.b, "bank.accounts", 3).await;
    for (cluster, name, there, other) in [
        (&env.a, "shop.orders", &env.b, "shop_eu.orders"),
        (&env.b, "shop_eu.items", &env.a, "shop.items"),
    ] {
        insert(cluster, name, 3).await;
        must_arrive(there, other, 3).await;
    }
    for (cluster, name) in [
        (&env.b, "audit.bank_log"),
        (&env.b, "bank.diary"),
        (&env.a, "bank.old"),
        (&env.a, "bank.accounts"),
    ] {
        assert!(!holds(cluster, name, 3).await, "{name}");
    }
}
