//! The roles of `docs/roles`: with exactly these everything works, and what is missing is named.

use std::time::Duration;

use bson::{Bson, Document, doc};

use crate::support::access::{KeyFile, create_user, role, set_privileges, uri_as};
use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::{Mongod, MongodOptions};
use crate::support::schema::assert_same_schema;
use crate::support::tandem::Tandem;

mod script;

const SOON: Duration = Duration::from_secs(30);
const PASSWORD: &str = "first";

/// Actions that a cutover asks for and does without.
const FOR_CUTOVER: [&str; 2] = ["appendOplogNote", "setUserWriteBlockMode"];
/// What only `check` asks for.
const FOR_CHECK: [&str; 1] = ["serverStatus"];
/// Only `reset --clusters` needs it.
const FOR_RESET: &str = "dropDatabase";

/// Two servers with access control, where tandem has one role each.
async fn env_with(role_a: &str, role_b: &str) -> TestEnv {
    let keys = KeyFile::new();
    let (a, b) = tokio::join!(
        keys.start(MongodOptions::named("eu-set")),
        keys.start(MongodOptions::named("us-set")),
    );
    create_user(&a, &role(role_a), PASSWORD).await;
    create_user(&b, &role(role_b), PASSWORD).await;
    TestEnv::of(a, b)
}

fn link(env: &TestEnv) -> LinkConfig {
    let mut link = env.link();
    link.include = vec!["shop.*".to_owned()];
    let credentials = format!("tandem:{PASSWORD}");
    link.uri_a = uri_as(&env.a, &credentials);
    link.uri_b = uri_as(&env.b, &credentials);
    link.extra("[ddl]\ndrops = true")
}

fn succeeds(tandem: &Tandem, arguments: &[&str]) {
    let output = tandem.run(arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
}

/// Writes and changes of every kind, on one side.
async fn use_it(server: &Mongod, id: i32) {
    let shop = server.client().database("shop");
    let run = async |command: Document| {
        let shown = command.to_string();
        let reply = shop.run_command(command).await;
        reply.unwrap_or_else(|error| panic!("{shown}: {error}"))
    };
    let orders = shop.collection::<Document>("orders");
    let set = doc! { "$set": { "x": 1 } };
    orders.update_one(doc! { "_id": 1 }, set).await.unwrap();
    orders.delete_one(doc! { "_id": 2 }).await.unwrap();
    orders.insert_one(doc! { "_id": id }).await.unwrap();
    let new = shop.collection::<Document>("new");
    new.insert_one(doc! { "_id": 1 }).await.unwrap();
    run(doc! { "create": "v", "viewOn": "orders", "pipeline": [] }).await;
    run(doc! { "createIndexes": "orders", "indexes": [{ "key": { "x": 1 }, "name": "x" }] }).await;
    run(doc! { "collMod": "orders", "validator": { "q": { "$exists": false } } }).await;
    run(doc! { "insert": "orders", "documents": [{ "_id": id + 1, "q": 1 }], "bypassDocumentValidation": true }).await;
    run(doc! { "collMod": "v", "viewOn": "new", "pipeline": [] }).await;
    run(doc! { "dropIndexes": "orders", "index": "x" }).await;
    let rename = doc! { "renameCollection": "shop.new", "to": "shop.newer" };
    server.admin(rename).await;
    run(doc! { "drop": "newer" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_exactly_the_roles_of_the_documents_everything_works() {
    let env = env_with("source", "target").await;
    let rows = (0..10).map(|id| doc! { "_id": id });
    env.orders_a().insert_many(rows).await.unwrap();
    let one_way = link(&env)
        .one_way()
        .extra("[initial_sync]\nmode = \"copy\"");
    let mut tandem = env.streaming(&one_way).await;
    succeeds(&tandem, &["check", "--write-probe"]);
    use_it(&env.a, 20).await;
    assert_converged(&env, SOON).await;
    assert_same_schema(&env, SOON).await;
    succeeds(&tandem, &["verify"]);
    tandem.stop().await;
    cannot_reset(&env, &tandem).await;
    succeeds(&tandem, &["reset", "--clusters", "--yes"]);

    env.a.admin(role("target")).await;
    let other = doc! { "updateUser": "tandem", "roles": ["tandem_target"] };
    env.a.admin(other).await;
    let mut tandem = env.streaming(&link(&env)).await;
    succeeds(&tandem, &["check", "--write-probe"]);
    env.orders_b()
        .insert_one(doc! { "_id": "b" })
        .await
        .unwrap();
    assert_converged(&env, SOON).await;
    env.b
        .client()
        .database("shop")
        .collection::<Document>("v")
        .drop()
        .await
        .unwrap();
    use_it(&env.b, 30).await;
    assert_converged(&env, SOON).await;
    assert_same_schema(&env, SOON).await;
    succeeds(&tandem, &["cutover", "--yes"]);
    assert_eq!(tandem.wait_exit(SOON).await, 0);
    assert_eq!(tandem.conflicts(&[]).len(), 0);
    for word in ["ERROR", "not authorized"] {
        assert!(!tandem.log().contains(word), "{}", tandem.log());
    }
}

fn privileges_of(role: &Document) -> Vec<Document> {
    let listed = role.get_array("privileges").expect("privileges");
    let listed = listed.iter();
    let documents = listed.map(|one| one.as_document().expect("a privilege").clone());
    documents.collect()
}

/// A role's privileges with one action taken out of one of them, and that action.
fn each_without_one(role: &Document) -> Vec<(String, Vec<Document>)> {
    let all = privileges_of(role);
    let mut found = Vec::new();
    for (at, privilege) in all.iter().enumerate() {
        let actions = privilege.get_array("actions").expect("actions");
        for action in actions {
            let rest: Vec<Bson> = actions.iter().filter(|a| *a != action).cloned().collect();
            let mut less = all.clone();
            less[at].insert("actions", rest.clone());
            if rest.is_empty() {
                less.remove(at);
            }
            found.push((action.as_str().expect("a name").to_owned(), less));
        }
    }
    found
}

fn without(role: &Document, action: &str) -> Vec<Document> {
    let mut each = each_without_one(role).into_iter();
    let found = each.find(|(taken, _)| taken == action);
    found.expect("the action").1
}

/// Without the one privilege that only a reset needs: it is named, and what is left can be taken up.
async fn cannot_reset(env: &TestEnv, tandem: &Tandem) {
    let target = role("target");
    set_privileges(&env.b, &target, &without(&target, FOR_RESET)).await;
    let output = tandem.run(&["reset", "--clusters", "--yes"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    let error = said.lines().find(|line| line.starts_with("error:"));
    let error = error.expect("an error");
    assert!(error.contains("us") && error.contains(FOR_RESET), "{said}");
    set_privileges(&env.b, &target, &privileges_of(&target)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_privilege_is_named_once_with_its_cluster() {
    let env = env_with("source", "target").await;
    let tandem = env.tandem(&link(&env).one_way());
    for (server, file, name) in [(&env.a, "source", "eu"), (&env.b, "target", "us")] {
        let role = role(file);
        for (action, privileges) in each_without_one(&role) {
            set_privileges(server, &role, &privileges).await;
            let output = tandem.run(&["check"]);
            let lines = String::from_utf8_lossy(&output.stdout).into_owned();
            let about: Vec<&str> = lines
                .lines()
                .filter(|line| line.contains("privileges ") && line.contains(&action))
                .collect();
            if action == FOR_RESET {
                continue;
            }
            assert_eq!(about.len(), 1, "{action}: {lines}");
            assert!(about[0].contains(name), "{action}: {lines}");
            if FOR_CUTOVER.contains(&action.as_str()) {
                assert!(about[0].starts_with("WARN"), "{action}: {lines}");
                assert_eq!(output.status.code(), Some(0), "{action}: {lines}");
                continue;
            }
            assert!(about[0].starts_with("FAIL"), "{action}: {lines}");
            assert_eq!(output.status.code(), Some(4), "{action}: {lines}");

            if FOR_CHECK.contains(&action.as_str()) {
                continue;
            }
            let output = tandem.run(&["run"]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(4), "{action}: {said}");
            let errors: Vec<&str> = said.lines().filter(|l| l.starts_with("error:")).collect();
            let [error] = errors.as_slice() else {
                panic!("{action}: not one error: {said}");
            };
            assert!(error.contains(&action) && error.contains(name), "{error}");
        }
        set_privileges(server, &role, &privileges_of(&role)).await;
    }
    // Nothing of all that has left a trace, and with the whole roles it runs.
    let mut tandem = tandem;
    tandem.start();
    tandem.wait_until_streaming().await;
    tandem.stop().await;
}

/// It ends with 4 and names the cluster, and with what it lacked it goes on where it was.
async fn stops_and_goes_on(
    env: &TestEnv,
    tandem: &mut Tandem,
    said: &str,
    repair: impl AsyncFnOnce(),
) {
    assert_eq!(tandem.wait_exit(SOON).await, 4, "{}", tandem.tail());
    let log = tandem.log();
    let error = log.lines().rfind(|line| line.starts_with("error:"));
    let error = error.unwrap_or_else(|| panic!("no error: {log}"));
    assert!(error.contains("us") && error.contains(said), "{error}");
    let last = tandem.status()["last_error"]["message"].to_string();
    assert!(last.contains(said), "{last}");
    repair().await;
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged(env, SOON).await;
    assert_eq!(tandem.total("dead_letters_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_while_it_runs_stops_it_and_it_goes_on_when_given_back() {
    let env = env_with("target", "target").await;
    env.create_on_both("shop", "orders").await;
    let link_before = link(&env);
    let mut tandem = env.streaming(&link_before).await;
    let role = role("target");
    let whole = role.get_array("privileges").expect("privileges").iter();
    let whole: Vec<Document> = whole.filter_map(|p| p.as_document().cloned()).collect();
    let without = each_without_one(&role);
    let less = |action: &str| {
        let found = without.iter().rev().find(|(name, _)| name == action);
        found.expect("the action").1.clone()
    };
    for (id, action) in [(1, "insert"), (2, "changeStream"), (3, "createIndex")] {
        set_privileges(&env.b, &role, &less(action)).await;
        env.orders_a().insert_one(doc! { "_id": id }).await.unwrap();
        let index = doc! { "key": { format!("f{id}"): 1 }, "name": format!("f{id}") };
        let create = doc! { "createIndexes": "orders", "indexes": [index] };
        env.a
            .client()
            .database("shop")
            .run_command(create)
            .await
            .unwrap();
        let give_back = async || set_privileges(&env.b, &role, &whole).await;
        stops_and_goes_on(&env, &mut tandem, "not authorized", give_back).await;
        assert_same_schema(&env, SOON).await;
    }

    // A changed password counts for the next connection, also of a lane that asks for the outcome of
    // its commit.
    let mut after = link_before.clone();
    for (id, command, password) in [(8, "getMore", "second"), (9, "commitTransaction", "third")] {
        env.b
            .admin(doc! { "updateUser": "tandem", "pwd": password })
            .await;
        let cut = doc! { "failCommands": [command], "closeConnection": true, "appName": "tandem" };
        env.b.fail_command(doc! { "times": 4 }, cut).await;
        env.orders_a().insert_one(doc! { "_id": id }).await.unwrap();
        after.uri_b = uri_as(&env.b, &format!("tandem:{password}"));
        let rotate = async || drop(env.tandem(&after));
        stops_and_goes_on(&env, &mut tandem, "Authentication failed", rotate).await;
    }
    tandem.stop().await;
}

/// A cutover that was killed once it was about to block, as the target remembers it.
async fn killed_while_blocking(env: &TestEnv) {
    let links = env
        .b
        .client()
        .database("__tandem")
        .collection::<Document>("links");
    let cutover = doc! {
        "started_at_ms": 1_i64, "blocked": true, "decided": false, "step": "block",
        "pid": 4_000_000_i64,
    };
    let set = doc! { "$set": { "cutover": cutover } };
    links.update_one(doc! {}, set).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_by_an_account_that_may_not_write_notes_does_without() {
    let env = env_with("source", "target").await;
    env.create_on_both("shop", "orders").await;
    let source = role("source");
    set_privileges(&env.a, &source, &without(&source, "appendOplogNote")).await;
    let mut tandem = env.streaming(&link(&env).one_way()).await;
    let rows = (0..100).map(|id| doc! { "_id": id });
    env.orders_a().insert_many(rows).await.unwrap();
    // Two drains wait for entries of the server's own: up to 20 s, and up to 10.
    let output = tandem.run(&["cutover", "--yes", "--timeout", "60s"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(tandem.wait_exit(SOON).await, 0);
    assert_converged(&env, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_by_an_account_that_may_not_block_writes_waits_until_nobody_writes() {
    let env = env_with("source", "target").await;
    env.create_on_both("shop", "orders").await;
    let source = role("source");
    let less: Vec<Document> = without(&source, "setUserWriteBlockMode");
    set_privileges(&env.a, &source, &less).await;
    let mut tandem = env.streaming(&link(&env).one_way()).await;
    let orders = env.orders_a();
    let writer = tokio::spawn(async move {
        for id in 0.. {
            orders.insert_one(doc! { "_id": id }).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let output = tandem.run(&["cutover", "--yes", "--timeout", "6s"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(124), "{said}");
    for word in [
        "setUserWriteBlockMode",
        "stop every application",
        "still write",
        "on eu",
    ] {
        assert!(said.contains(word), "no {word}: {said}");
    }
    writer.abort();
    let _ = writer.await;

    // Whether it had blocked before it was killed, only the server knows.
    killed_while_blocking(&env).await;
    let block = |on: bool| doc! { "setUserWriteBlockMode": 1, "global": on };
    env.a.admin(block(true)).await;
    let output = tandem.run(&["cutover", "--abort"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("db.adminCommand({ setUserWriteBlockMode: 1"),
        "{said}"
    );
    env.a.admin(block(false)).await;
    succeeds(&tandem, &["cutover", "--abort"]);

    let output = tandem.run(&["cutover", "--yes", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown["writes_blocked"], false);
    assert_eq!(shown["steps"][1]["step"], "block");
    assert_eq!(
        shown["steps"][1]["found"],
        "nobody has written to eu for 3 s"
    );
    assert_eq!(tandem.wait_exit(SOON).await, 0);
    assert_converged(&env, SOON).await;
}
