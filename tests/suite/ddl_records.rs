//! What a change of a collection has lost against, or was refused for, is on record whatever is cut
//! off meanwhile.

use std::time::Duration;

use bson::{Document, doc};
use serde_json::Value;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::schema::{assert_same_schema, run, schema};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(40);

/// What both sides change at once, each in its own way: an index that is there, a new one, options,
/// a view, and a new collection.
fn changes_of(by: &str, days: i32) -> Vec<Document> {
    let seconds = days * 86_400;
    vec![
        doc! { "collMod": "orders", "index": { "name": "at", "expireAfterSeconds": seconds } },
        doc! { "createIndexes": "orders", "indexes": [{ "key": { by: 1 }, "name": "new" }] },
        doc! { "collMod": "orders", "validator": { "by": by } },
        doc! { "create": "view", "viewOn": "orders", "pipeline": [{ "$match": { "by": by } }] },
        doc! { "create": "fresh", "validator": { "by": by } },
    ]
}

/// tandem's change is made and its reply says that nobody knows: another attempt, or another
/// process, finds nothing left to be changed.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_reply_is_lost_leaves_no_loser_without_its_one_record() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let index = doc! { "key": { "at": 1 }, "name": "at", "expireAfterSeconds": 60 };
    run(
        &env.a,
        doc! { "createIndexes": "orders", "indexes": [index] },
    )
    .await;
    assert_same_schema(&env, SOON).await;

    tandem.sigstop();
    for (cluster, by, days) in [(&env.a, "a", 40), (&env.b, "b", 50)] {
        for command in changes_of(by, days) {
            run(cluster, command).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let unclear = doc! {
        "failCommands": ["collMod", "createIndexes", "dropIndexes", "create", "drop"],
        "appName": "tandem",
        "writeConcernError": { "code": 91, "errmsg": "made up", "errorLabels": [] },
    };
    env.a.fail_command("alwaysOn", unclear).await;
    tandem.sigcont();
    assert_same_schema(&env, SOON).await;
    tandem.kill9();
    env.a.fail_command("off", doc! {}).await;
    tandem.start();
    tandem.wait_until_streaming().await;
    let row = doc! { "_id": 1, "by": "b" };
    env.orders_a().insert_one(row).await.unwrap();
    assert_converged(&env, SOON).await;
    assert_same_schema(&env, SOON).await;
    let records = tandem.conflicts(&["--kind", "ddl"]);
    let indexes = &schema(env.a.client()).await["shop.orders"].2;
    assert!(indexes.contains_key("new"), "an echo was taken for a drop");
    let mut lost: Vec<_> = records
        .iter()
        .map(|record| {
            let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let losing = of(&record["losing"]["operation"]);
            (
                of(&record["namespace"]),
                losing,
                of(&record["winner_cluster"]),
            )
        })
        .collect();
    lost.sort();
    let expected = [
        ("shop.fresh", "create"),
        ("shop.orders", "createIndexes"),
        ("shop.orders", "modify"),
        ("shop.orders", "modify"),
        ("shop.view", "create"),
    ]
    .map(|(namespace, losing)| (namespace.to_owned(), losing.to_owned(), "b".to_owned()));
    assert_eq!(lost, expected);
    tandem.stop().await;
}

/// The next process finds the winner's name given already.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_lost_is_on_record_once_though_a_kill_came_before_the_record() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    // So the older one wins, which has its turn first.
    let preferred = "[conflicts]\npolicy = \"prefer-a\"";
    let mut tandem = env.streaming(&env.link().extra(preferred)).await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    tandem.sigstop();
    for (cluster, name) in [(&env.a, "shop.new"), (&env.b, "shop.old")] {
        let rename = doc! { "renameCollection": "shop.orders", "to": name };
        cluster.admin(rename).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cut = doc! {
        "failCommands": ["update"], "namespace": "__tandem.conflicts", "appName": "tandem",
        "closeConnection": true,
    };
    for cluster in [&env.a, &env.b] {
        cluster.fail_command("alwaysOn", cut.clone()).await;
    }
    tandem.sigcont();
    wait_for("an attempt to put it on record", SOON, || async {
        let log = tandem.log();
        log.contains("cannot write __tandem.conflicts")
            .then_some(())
    })
    .await;
    tandem.kill9();
    for cluster in [&env.a, &env.b] {
        cluster.fail_command("off", doc! {}).await;
    }
    tandem.start();
    tandem.wait_until_streaming().await;
    let shop = env.a.client().database("shop");
    let renamed = shop.collection::<Document>("new");
    renamed.insert_one(doc! { "_id": 2 }).await.unwrap();
    assert_converged(&env, SOON).await;
    let records = tandem.conflicts(&["--kind", "ddl"]);
    let [record] = &records[..] else {
        panic!("one record: {records:#?}");
    };
    assert_eq!(record["losing"]["operation"], "rename");
    assert_eq!(record["winner_cluster"], "a");
    tandem.stop().await;
}

/// One event after the other about an index that the target refuses for its own documents.
#[tokio::test(flavor = "multi_thread")]
async fn each_change_that_is_refused_is_on_record_once_also_over_a_kill() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link().one_way()).await;
    for id in 1..=2 {
        let row = doc! { "_id": id, "sku": 1 };
        env.orders_b().insert_one(row).await.unwrap();
    }
    // The problem is listed, and the process killed before the record is made.
    let cut = doc! {
        "failCommands": ["update"], "namespace": "__tandem.conflicts", "appName": "tandem",
        "closeConnection": true,
    };
    env.a.fail_command("alwaysOn", cut).await;
    let unique = doc! { "key": { "sku": 1 }, "name": "sku", "unique": true };
    run(
        &env.a,
        doc! { "createIndexes": "orders", "indexes": [unique] },
    )
    .await;
    let own = env.b.client().database("__tandem");
    let problems = own.collection::<Document>("ddl");
    wait_for("the problem", SOON, || async {
        let problem = problems.find_one(doc! { "kind": "problem" });
        problem.await.unwrap()
    })
    .await;
    tandem.kill9();
    env.a.fail_command("off", doc! {}).await;
    tandem.start();
    tandem.wait_until_streaming().await;
    let hidden = doc! { "name": "sku", "hidden": true };
    run(&env.a, doc! { "collMod": "orders", "index": hidden }).await;
    let row = doc! { "_id": 3, "sku": 3 };
    env.orders_a().insert_one(row).await.unwrap();
    let records = wait_for("both records", SOON, || async {
        let records = tandem.conflicts(&["--kind", "ddl"]);
        (records.len() > 1).then_some(records)
    })
    .await;
    let refused: Vec<_> = records
        .iter()
        .map(|record| {
            assert_eq!(record["reason"], "refused", "{record}");
            record["losing"]["operation"].as_str().unwrap_or_default()
        })
        .collect();
    assert_eq!(refused, ["createIndexes", "modify"]);
    assert_eq!(
        tandem.status()["index_problems"].as_array().unwrap().len(),
        1
    );
    tandem.stop().await;
}

/// A view that one side makes, in a database that the other one drops.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_new_view_and_a_dropped_database_the_later_one_stays_and_the_other_is_on_record() {
    let env = TestEnv::start().await;
    let mut tandem = env
        .streaming(&env.link().extra("[ddl]\ndrops = true"))
        .await;
    let view = doc! { "create": "report", "viewOn": "orders", "pipeline": [] };
    let mut expected = Vec::new();
    // In the first round the drop has its turn first, though it is the later one.
    for (view_is_later, is_paused) in [(false, true), (false, false), (true, false)] {
        env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
        rest(&env, &tandem).await;
        match is_paused {
            true => assert!(tandem.run(&["pause", "b-to-a"]).status.success()),
            false => tandem.sigstop(),
        }
        let mut in_order = [(&env.b, view.clone()), (&env.a, doc! { "dropDatabase": 1 })];
        if view_is_later {
            in_order.reverse();
        }
        for (cluster, command) in in_order {
            run(cluster, command).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if is_paused {
            wait_for("everything is gone from b", SOON, || async {
                let on_b = schema(env.b.client()).await;
                on_b.is_empty().then_some(())
            })
            .await;
            assert!(tandem.run(&["resume", "b-to-a"]).status.success());
        } else {
            tandem.sigcont();
        }
        rest(&env, &tandem).await;
        let found: Vec<String> = schema(env.a.client()).await.into_keys().collect();
        let (left, lost): (&[&str], _) = match view_is_later {
            true => (&["shop.report"], ("b", "dropDatabase")),
            false => (&[], ("a", "create")),
        };
        assert_eq!(found, left);
        expected.push(lost);
        let records = tandem.conflicts(&["--kind", "ddl"]);
        assert_eq!(records.len(), expected.len(), "{records:?}");
        if view_is_later {
            run(&env.a, doc! { "drop": "report" }).await;
        }
    }
    let records = tandem.conflicts(&["--kind", "ddl"]);
    let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lost = records.iter().map(|record| {
        let losing = of(&record["losing"]["operation"]);
        (of(&record["winner_cluster"]), losing)
    });
    let expected = expected
        .iter()
        .map(|(winner, losing)| (winner.to_string(), losing.to_string()));
    assert_eq!(lost.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    tandem.stop().await;
}

/// Nothing waits, and both sides are the same.
async fn rest(env: &TestEnv, tandem: &Tandem) {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let is_at_rest = |status: &Value| {
        let mut pipelines = (0..2).map(|at| &status["pipelines"][at]["lag_seconds"]);
        pipelines.all(|lag| *lag == 0.0)
    };
    tandem.wait_status("nothing waits", SOON, is_at_rest).await;
    assert_same_schema(env, SOON).await;
    assert_converged(env, SOON).await;
}
