//! Changes of collections while they are copied, and what must not be copied at all.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;

use crate::support::compare::{assert_converged, contents};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::fail_points::{FailPoint, drop_amid_its_creation};
use crate::support::mongod::Mongod;
use crate::support::schema::{assert_same_schema, run, schema};
use crate::support::tandem::Tandem;

const SOON: Duration = Duration::from_secs(90);
const DOCUMENTS: i32 = 4000;

fn copying(env: &TestEnv) -> LinkConfig {
    let copy = "[initial_sync]\nmode = \"copy\"";
    env.link().one_way().extra(copy)
}

fn of(cluster: &Mongod, name: &str) -> Collection<Document> {
    cluster.client().database("shop").collection(name)
}

async fn fill(cluster: &Mongod, name: &str) {
    let documents = (0..DOCUMENTS).map(|id| doc! { "_id": id, "v": 0, "t": "x".repeat(100) });
    of(cluster, name).insert_many(documents).await.unwrap();
}

async fn copied(tandem: &Tandem) {
    let is_done = |status: &Value| status["initial_sync"]["state"] == "done";
    tandem.wait_status("the copy is done", SOON, is_done).await;
}

/// Slow enough for everything else to happen meanwhile.
async fn start_slowly(tandem: &mut Tandem) {
    tandem.env("TANDEM_APPLY__OPERATIONS_PER_SECOND_MAX", "4000");
    tandem.start();
    let begun = |status: &Value| status["initial_sync"]["documents_done"].as_u64() > Some(500);
    tandem.wait_status("it copies", SOON, begun).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn collections_that_change_while_they_are_copied_end_as_on_the_source() {
    let env = TestEnv::start().await;
    let names = [
        "dropped", "reborn", "renamed", "replaced", "indexed", "written", "zz last",
    ];
    for name in names {
        fill(&env.a, name).await;
    }
    for name in ["renamed", "zz last"] {
        let before = doc! { "key": { "t": 1 }, "name": "from before" };
        run(&env.a, doc! { "createIndexes": name, "indexes": [before] }).await;
    }
    let views = ["gone view", "no view"];
    for view in views {
        let command = doc! { "create": view, "viewOn": "written", "pipeline": [] };
        run(&env.a, command).await;
    }
    let mut tandem = env.tandem(&copying(&env));
    start_slowly(&mut tandem).await;
    for view in views {
        run(&env.a, doc! { "drop": view }).await;
    }
    fill(&env.a, "no view").await;
    of(&env.a, "dropped").drop().await.unwrap();
    of(&env.a, "reborn").drop().await.unwrap();
    let reborn = doc! { "_id": 1, "v": "reborn" };
    of(&env.a, "reborn").insert_one(reborn).await.unwrap();
    for (from, to, drop_target) in [
        ("shop.renamed", "shop.elsewhere", false),
        ("shop.zz last", "shop.replaced", true),
    ] {
        let rename = doc! { "renameCollection": from, "to": to, "dropTarget": drop_target };
        env.a.admin(rename).await;
    }
    let index = doc! { "key": { "v": 1 }, "name": "v" };
    run(
        &env.a,
        doc! { "createIndexes": "indexed", "indexes": [index] },
    )
    .await;
    let unique = doc! { "key": { "u": 1 }, "name": "u", "unique": true, "sparse": true };
    run(
        &env.a,
        doc! { "createIndexes": "written", "indexes": [unique] },
    )
    .await;
    for name in ["elsewhere", "replaced", "indexed", "written"] {
        let collection = of(&env.a, name);
        let some = doc! { "_id": { "$mod": [3, 0] } };
        let update = doc! { "$inc": { "v": 1 } };
        collection.update_many(some, update).await.unwrap();
        let others = doc! { "_id": { "$mod": [3, 1] } };
        collection.delete_many(others).await.unwrap();
        collection
            .replace_one(doc! { "_id": 2 }, doc! { "u": 2 })
            .await
            .unwrap();
    }
    run(
        &env.a,
        doc! { "collMod": "indexed", "validator": { "v": { "$gte": 0 } } },
    )
    .await;
    copied(&tandem).await;
    assert_same_schema(&env, SOON).await;
    assert_converged(&env, SOON).await;
    assert_eq!(tandem.total("dead_letters_total"), 0);
    assert_eq!(tandem.conflicts(&[]), Vec::<Value>::new());
    tandem.stop().await;
}

/// b's writes are held until the copy is done, and copies go on while the lanes are put on record.
#[tokio::test(flavor = "multi_thread")]
async fn a_unique_index_amid_a_two_way_copy_waits_for_nothing_held_and_loses_no_copy() {
    let env = TestEnv::start().await;
    let names = ["indexed", "second", "third", "fourth"];
    for name in names {
        fill(&env.a, name).await;
    }
    let mut tandem = env.tandem(&env.link().extra("[initial_sync]\nmode = \"copy\""));
    start_slowly(&mut tandem).await;
    let of_b = (0..20).map(|id| doc! { "_id": format!("of b {id}") });
    of(&env.b, "indexed").insert_many(of_b).await.unwrap();
    let lanes = FailPoint::on(&env.a, &["update"]);
    let slow = doc! {
        "namespace": "__tandem.collections", "blockConnection": true, "blockTimeMS": 1000,
    };
    lanes.fail_always(slow).await;
    let unique = doc! { "key": { "u": 1 }, "name": "u", "unique": true, "sparse": true };
    let unique = doc! { "createIndexes": "indexed", "indexes": [unique] };
    run(&env.a, unique).await;
    let is_there =
        || async { (schema(env.b.client()).await["shop.indexed"].2.len() == 2).then_some(()) };
    crate::support::wait::wait_for("the index on b", SOON, is_there).await;
    lanes.off().await;
    tandem.kill9();
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_same_schema(&env, SOON).await;
    assert_converged(&env, SOON).await;
    for (name, of_b) in names.into_iter().zip([20, 0, 0, 0]) {
        let documents = of(&env.a, name).count_documents(doc! {}).await.unwrap();
        assert_eq!(documents, DOCUMENTS as u64 + of_b, "{name}");
    }
    assert_eq!(tandem.conflicts(&[]), Vec::<Value>::new());
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_cannot_be_built_after_a_copy_is_listed_and_stays_so() {
    let env = TestEnv::start().await;
    fill(&env.a, "orders").await;
    let indexes = vec![
        doc! { "key": { "v": 1 }, "name": "v" },
        doc! { "key": { "t": 1 }, "name": "t" },
    ];
    run(
        &env.a,
        doc! { "createIndexes": "orders", "indexes": indexes },
    )
    .await;
    let mut tandem = env.tandem(&copying(&env));
    // Both together, and then the first one alone; tandem's own indexes are none.
    const CANNOT_CREATE_INDEX: i32 = 67;
    let refused = doc! {
        "failCommands": ["createIndexes"], "errorCode": CANNOT_CREATE_INDEX, "appName": "tandem",
    };
    env.b.fail_command(doc! { "times": 2 }, refused).await;
    tandem.start();
    copied(&tandem).await;
    assert_converged(&env, SOON).await;
    env.orders_a().insert_one(doc! { "_id": -1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    tandem.kill9();
    // As an older tandem has put it on record: by the name alone.
    let own = env.b.client().database("__tandem");
    let ddl = own.collection::<Document>("ddl");
    let by_name = doc! { "$unset": { "uuid": 1 } };
    let changed = ddl.update_one(doc! { "kind": "problem" }, by_name);
    assert_eq!(changed.await.unwrap().modified_count, 1);
    tandem.start();
    tandem.wait_until_streaming().await;
    let problems = tandem.status()["index_problems"].clone();
    assert_eq!(problems.as_array().map(Vec::len), Some(1), "{problems}");
    assert_eq!(problems[0]["cluster"], "b");
    assert!(
        problems[0]["reason"].as_str().unwrap().contains("67"),
        "{problems}"
    );
    assert_eq!(schema(env.b.client()).await["shop.orders"].2.len(), 2);
    let rename = doc! { "renameCollection": "shop.orders", "to": "shop.archive" };
    env.a.admin(rename).await;
    let goes_along = |status: &Value| status["index_problems"][0]["namespace"] == "shop.archive";
    tandem.wait_status("it goes along", SOON, goes_along).await;
    tandem.stop().await;
}

/// As long as one of tandem's own is being built there.
async fn hold_builds(cluster: &Mongod, mode: &str) {
    let hold = doc! { "configureFailPoint": "hangAfterStartingIndexBuild", "mode": mode };
    cluster.admin(hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_an_application_builds_beside_those_of_a_copy_is_brought_over() {
    let env = TestEnv::start().await;
    fill(&env.a, "orders").await;
    let copied_one = doc! { "key": { "v": 1 }, "name": "copied" };
    let copied_one = doc! { "createIndexes": "orders", "indexes": [copied_one] };
    run(&env.a, copied_one).await;
    for view in ["gone", "late"] {
        let command = doc! { "create": view, "viewOn": "orders", "pipeline": [] };
        run(&env.a, command).await;
    }
    let mut tandem = env.tandem(&env.link().extra("[initial_sync]\nmode = \"copy\""));
    hold_builds(&env.b, "alwaysOn").await;
    tandem.start();
    let builds = |status: &Value| status["initial_sync"]["state"] == "building_indexes";
    tandem.wait_status("it builds", SOON, builds).await;
    let build = |name: &'static str| {
        let index = doc! { "key": { name: 1 }, "name": name };
        let command = doc! { "createIndexes": "orders", "indexes": [index] };
        let shop = env.b.client().database("shop");
        tokio::spawn(async move { shop.run_command(command).await })
    };
    let mine = [build("mine"), build("mine too")];
    run(&env.a, doc! { "drop": "gone" }).await;
    let go_on = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        hold_builds(&env.b, "off").await;
    };
    drop_amid_its_creation(&env, "late", go_on).await;
    for one in mine {
        one.await.unwrap().unwrap();
    }
    copied(&tandem).await;
    assert_same_schema(&env, SOON).await;
    let found = schema(env.a.client()).await;
    assert_eq!(found["shop.orders"].2.len(), 4);
    for view in ["shop.gone", "shop.late"] {
        assert!(!found.contains_key(view), "made again: {found:?}");
    }
    // What tandem itself makes competes with nobody.
    assert_eq!(tandem.conflicts(&[]), Vec::<Value>::new());
    tandem.stop().await;
}

/// The source's reader is cut off from then on: nobody has told yet that the name is another one's.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_renamed_right_before_a_copy_builds_its_indexes_gets_them() {
    let env = TestEnv::start().await;
    for name in ["first", "second"] {
        fill(&env.a, name).await;
        let index = doc! { "key": { "v": 1 }, "name": "v" };
        run(&env.a, doc! { "createIndexes": name, "indexes": [index] }).await;
    }
    let mut tandem = env.tandem(&copying(&env));
    hold_builds(&env.b, "alwaysOn").await;
    tandem.start();
    let builds = |status: &Value| status["initial_sync"]["state"] == "building_indexes";
    tandem.wait_status("it builds", SOON, builds).await;
    let stream = FailPoint::on(&env.a, &["getMore"]);
    stream.fail_always(doc! { "errorCode": 6 }).await;
    // What the stream waits for now is the last thing that it is told of.
    let last = doc! { "_id": -1 };
    of(&env.a, "first").insert_one(last).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let rename = doc! { "renameCollection": "shop.second", "to": "shop.third" };
    env.a.admin(rename).await;
    hold_builds(&env.b, "off").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stream.off().await;
    copied(&tandem).await;
    assert_same_schema(&env, SOON).await;
    assert_eq!(schema(env.b.client()).await["shop.third"].2.len(), 2);
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_a_server_is_neither_copied_nor_streamed() {
    let env = TestEnv::start().await;
    let mut link = copying(&env);
    link.include = vec!["*".to_owned()];
    let mut tandem = env.tandem(&link);
    let write = async |id: i32| {
        for (database, name) in [
            ("admin", "foo"),
            ("config", "mine"),
            ("local", "mine"),
            ("shop", "system.js"),
            ("shop", "orders"),
        ] {
            let database = env.a.client().database(database);
            let collection = database.collection::<Document>(name);
            // Some servers refuse some of these.
            let _ = collection.insert_one(doc! { "_id": id }).await;
        }
        let user = doc! { "createUser": format!("u{id}"), "pwd": "p", "roles": ["read"] };
        run(&env.a, user).await;
    };
    write(1).await;
    tandem.start();
    copied(&tandem).await;
    tandem.wait_until_streaming().await;
    write(2).await;
    let arrives = || async { env.orders_b().find_one(doc! { "_id": 2 }).await.unwrap() };
    crate::support::wait::wait_for("the order arrives", SOON, arrives).await;
    let on_b = contents(env.b.client()).await;
    assert_eq!(on_b.keys().collect::<Vec<_>>(), ["shop.orders"]);
    for (database, name) in [
        ("admin", "foo"),
        ("admin", "system.users"),
        ("shop", "system.js"),
    ] {
        let database = env.b.client().database(database);
        let collection = database.collection::<Document>(name);
        let count = collection.count_documents(doc! {}).await.unwrap();
        assert_eq!(count, 0, "{name}");
    }
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_over_the_edge_of_what_is_included_is_named_and_loses_nothing() {
    let env = TestEnv::start().await;
    let mut link = env.link().one_way();
    link.include = vec!["shop.in *".to_owned(), "shop.orders".to_owned()];
    let mut tandem = env.streaming(&link).await;
    for name in ["in leaves", "comes"] {
        let collection = of(&env.a, name);
        collection.insert_one(doc! { "_id": 1 }).await.unwrap();
    }
    arrives(&env, "in leaves", 1).await;
    for (from, to) in [
        ("shop.in leaves", "shop.left"),
        ("shop.comes", "shop.in came"),
    ] {
        let rename = doc! { "renameCollection": from, "to": to };
        env.a.admin(rename).await;
    }
    for name in ["shop.left", "shop.in came"] {
        let named = |status: &Value| {
            let named = status["unpaired_namespaces"].as_array().into_iter();
            named.flatten().any(|found| found == name)
        };
        tandem.wait_status(name, SOON, named).await;
    }
    env.orders_a().insert_one(doc! { "_id": 9 }).await.unwrap();
    arrives(&env, "orders", 9).await;
    arrives(&env, "in leaves", 1).await;
    tandem.stop().await;
}

/// To the server that is a new collection on one side and a drop on the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_to_or_from_a_database_that_is_not_included_is_a_drop_or_a_new_collection() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link().one_way()).await;
    of(&env.a, "leaves")
        .insert_one(doc! { "_id": 1 })
        .await
        .unwrap();
    let outside = env.a.client().database("outside");
    let comes = outside.collection::<Document>("comes");
    comes.insert_one(doc! { "_id": 2 }).await.unwrap();
    arrives(&env, "leaves", 1).await;
    for (from, to) in [
        ("shop.leaves", "outside.left"),
        ("outside.comes", "shop.came"),
    ] {
        let rename = doc! { "renameCollection": from, "to": to };
        env.a.admin(rename).await;
    }
    arrives(&env, "came", 2).await;
    assert_same_schema(&env, SOON).await;
    let on_b: Vec<String> = schema(env.b.client()).await.into_keys().collect();
    assert_eq!(on_b, ["shop.came"]);
    tandem.stop().await;
}

async fn arrives(env: &TestEnv, name: &str, id: i32) {
    let found = || async { of(&env.b, name).find_one(doc! { "_id": id }).await.unwrap() };
    crate::support::wait::wait_for("it arrives", SOON, found).await;
}
