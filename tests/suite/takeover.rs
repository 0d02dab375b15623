//! One writer: a second process waits or goes away, and a process that lost its link is harmless.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv, raw_by_id};
use crate::support::mongod::Mongod;
use crate::support::oplog::{entries_after, now};
use crate::support::schema::schema;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(3);

fn leased(env: &TestEnv) -> LinkConfig {
    let mut link = env.link();
    link.lease_duration = "3s".to_owned();
    link
}

/// The same link, run from another host: another state directory.
fn elsewhere(env: &TestEnv) -> Tandem {
    let mut link = leased(env);
    link.state_dir = "other-state".to_owned();
    env.tandem_named("other.toml", &link)
}

/// Starts the second host's process again and again until the lease is its own.
async fn take_over(env: &TestEnv) -> Tandem {
    let start = Instant::now();
    loop {
        let mut other = elsewhere(env);
        other.start();
        match tokio::time::timeout(SOON, other.ended_or_streaming()).await {
            Ok(None) => return other,
            Ok(Some(code)) => assert_eq!(code, 8, "refused because the link is held"),
            Err(_) => panic!("neither ended nor streaming"),
        }
        assert!(start.elapsed() < SOON, "the lease was never free");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_ends_with_7_on_the_same_state_and_8_elsewhere() {
    let env = TestEnv::start().await;
    let link = leased(&env);
    let mut first = env.streaming(&link).await;
    let same = env.tandem(&link).run(&["run"]);
    assert_eq!(same.status.code(), Some(7));
    let other = elsewhere(&env).run(&["run"]);
    assert_eq!(other.status.code(), Some(8));
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    assert!(first.is_running());
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_processes_lease_is_taken_over_once_it_has_run_out() {
    let env = TestEnv::start().await;
    let mut first = env.streaming(&leased(&env)).await;
    first.kill9();
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    let start = Instant::now();
    let mut other = take_over(&env).await;
    // Two seconds for the start itself.
    assert!(
        start.elapsed() < LEASE + Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert_converged(&env, SOON).await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_slept_through_its_lease_writes_nothing_when_it_wakes() {
    let env = TestEnv::start().await;
    let mut first = env.streaming(&leased(&env)).await;
    env.orders_a()
        .insert_one(doc! { "_id": 1, "n": 0 })
        .await
        .unwrap();
    wait_for("the insert arrives", SOON, || raw_by_id(&env.orders_b(), 1)).await;
    first.sigstop();
    for _ in 0..100 {
        let inc = doc! { "$inc": { "n": 1 } };
        env.orders_a()
            .update_one(doc! { "_id": 1 }, inc)
            .await
            .unwrap();
    }
    let mut other = take_over(&env).await;
    assert_converged(&env, SOON).await;
    let woken = now(env.b.client()).await;
    first.sigcont();
    assert_eq!(first.wait_exit(SOON).await, 8);
    assert!(entries_after(env.b.client(), woken).await.is_empty());
    env.orders_b().insert_one(doc! { "_id": 2 }).await.unwrap();
    assert_converged(&env, SOON).await;
    other.stop().await;
}

/// How many oplogs a run that catches up has searched.
fn searched(tandem: &Tandem) -> usize {
    let run = tandem.run(&["run", "--until-caught-up", "--verbose"]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    said.matches("looking for former writes").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oplog_is_searched_for_former_writes_unless_this_host_knows_all_of_them() {
    let env = TestEnv::start().await;
    let (here, elsewhere) = (env.tandem(&leased(&env)), elsewhere(&env));
    searched(&here);
    for id in 0..2 {
        env.orders_a().insert_one(doc! { "_id": id }).await.unwrap();
        env.orders_b()
            .insert_one(doc! { "_id": 10 + id })
            .await
            .unwrap();
        assert_eq!(searched(&elsewhere), 2);
        assert_converged(&env, SOON).await;
        assert_eq!(searched(&here), 2, "another host may have written");
        // The next one begins behind what this one has written last.
        searched(&here);
        assert_eq!(searched(&here), 0);
    }
}

/// The lanes stand where the store has them; what they wrote last is behind what is on record of the
/// target's history.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_wrote_last_is_searched_for() {
    let env = TestEnv::start().await;
    let mut here = env.tandem(&leased(&env));
    searched(&here);
    env.orders_a().insert_one(doc! { "_id": 0 }).await.unwrap();
    searched(&here);
    searched(&here);
    assert_eq!(searched(&here), 0);
    here.start();
    here.wait_until_streaming().await;
    // In every lane.
    let many = (1..100).map(|id| doc! { "_id": id });
    env.orders_a().insert_many(many).await.unwrap();
    assert_converged(&env, SOON).await;
    // Longer than until each has saved where it stands.
    tokio::time::sleep(Duration::from_secs(1)).await;
    here.kill9();
    assert_eq!(searched(&here), 2);
    assert_converged(&env, SOON).await;
}

fn own(cluster: &Mongod, collection: &str) -> Collection<Document> {
    cluster.client().database("__tandem").collection(collection)
}

/// A write of tandem that stands still inside the server for so long, whatever becomes of the process.
async fn hold(cluster: &Mongod, command: &str, collection: &str, time: Duration) {
    let data = doc! {
        "failCommands": [command], "namespace": format!("__tandem.{collection}"),
        "appName": "tandem", "blockConnection": true, "blockTimeMS": time.as_millis() as i64,
    };
    cluster.fail_command(doc! { "times": 1 }, data).await;
}

async fn is_under_way(cluster: &Mongod, command: &str, collection: &str) -> bool {
    let path = format!("command.{command}");
    let asked = doc! { "currentOp": 1, "$all": true, path: collection };
    let found = cluster.admin(asked).await;
    !found.get_array("inprog").expect("operations").is_empty()
}

/// Returns once a held write is there, or is done.
async fn wait_held(cluster: &Mongod, command: &str, collection: &str, is_there: bool) {
    wait_for("a held write", SOON, || async {
        (is_under_way(cluster, command, collection).await == is_there).then_some(())
    })
    .await;
}

const HELD: Duration = Duration::from_secs(10);

async fn end_leases(env: &TestEnv) {
    for cluster in [&env.a, &env.b] {
        let over = doc! { "$set": { "lease_until": bson::DateTime::from_millis(0) } };
        let links = own(cluster, "links");
        links
            .update_one(doc! { "_id": "eu-us" }, over)
            .await
            .unwrap();
    }
}

/// The next process drops what the killed one was about to give up.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_former_process_says_of_a_collection_too_late_changes_nothing() {
    let env = TestEnv::start().await;
    let mut first = env.streaming(&env.link()).await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    hold(&env.a, "update", "collections", HELD).await;
    env.orders_a().drop().await.unwrap();
    wait_held(&env.a, "update", "collections", true).await;
    first.kill9();
    let with_drops = env.link().extra("[ddl]\ndrops = true");
    let mut next = env.streaming(&with_drops).await;
    wait_for("the drop", SOON, || async {
        let on_b = schema(env.b.client()).await;
        (!on_b.contains_key("shop.orders")).then_some(())
    })
    .await;
    wait_held(&env.a, "update", "collections", false).await;
    let on_a = own(&env.a, "collections");
    let given_up = on_a.find_one(doc! { "state": "unpaired" });
    assert_eq!(given_up.await.unwrap(), None);
    next.kill9();
    next.start();
    next.wait_until_streaming().await;
    assert_eq!(next.status()["unpaired_namespaces"], serde_json::json!([]));
    env.orders_b().insert_one(doc! { "_id": 2 }).await.unwrap();
    wait_for("the new one", SOON, || raw_by_id(&env.orders_a(), 2)).await;
    next.stop().await;
}

/// A first start is killed while it deletes what an earlier link has left: nothing but another one may
/// follow, and that is ready before the server comes to the delete.
#[tokio::test(flavor = "multi_thread")]
async fn a_delete_of_a_first_start_that_comes_too_late_takes_nothing_of_the_next_one() {
    let env = TestEnv::start().await;
    let link = env.link().one_way();
    let mut tandem = env.streaming(&link).await;
    let keys = own(&env.b, "keys");
    let write_on_b = async |id: i32| {
        env.orders_b().insert_one(doc! { "_id": id }).await.unwrap();
        wait_for("its note", SOON, || async {
            let note = doc! { "raw._id": id, "local": { "$exists": true } };
            keys.find_one(note).await.unwrap()
        })
        .await;
    };
    write_on_b(1).await;
    tandem.stop().await;
    hold(&env.b, "delete", "keys", HELD).await;
    tandem.run_with(&["--first-start"]).start();
    wait_held(&env.b, "delete", "keys", true).await;
    tandem.kill9();
    let plain = env.tandem(&link).run(&["run", "--until-caught-up"]);
    assert_eq!(plain.status.code(), Some(5));
    let said = String::from_utf8_lossy(&plain.stderr);
    assert!(
        said.contains("`tandem run --first-start` does it again"),
        "{said}"
    );
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_eq!(keys.count_documents(doc! {}).await.unwrap(), 0);
    write_on_b(2).await;
    wait_held(&env.b, "delete", "keys", false).await;
    assert_eq!(keys.count_documents(doc! {}).await.unwrap(), 1);
    tandem.stop().await;
}

/// The record and the giving up come while the next process reads what is given up.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_a_former_process_makes_amid_a_start_is_in_the_log_of_the_next_one() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "kept").await;
    let mut link = env.link();
    link.lease_duration = "60s".to_owned();
    let mut first = env.streaming(&link).await;
    let cut = doc! {
        "failCommands": ["update"], "namespace": "__tandem.conflicts", "appName": "tandem",
        "closeConnection": true,
    };
    env.a.fail_command("alwaysOn", cut).await;
    let kept = env.a.client().database("shop");
    kept.collection::<Document>("kept").drop().await.unwrap();
    wait_for("the drop is read", SOON, || async {
        first
            .log()
            .contains("a change of a collection is not replicated")
            .then_some(())
    })
    .await;
    end_leases(&env).await;
    hold(&env.b, "find", "collections", HELD).await;
    let mut next = elsewhere(&env);
    next.start();
    wait_held(&env.b, "find", "collections", true).await;
    env.a.fail_command("off", doc! {}).await;
    wait_for("the collection is given up", SOON, || async {
        let given_up = own(&env.b, "collections");
        let given_up = given_up.find_one(doc! { "state": "unpaired" });
        given_up.await.unwrap()
    })
    .await;
    assert!(is_under_way(&env.b, "find", "collections").await);
    next.wait_until_streaming().await;
    let unpaired = next.status()["unpaired_namespaces"].clone();
    assert_eq!(unpaired, serde_json::json!(["shop.kept"]));
    assert_eq!(next.conflicts(&["--kind", "ddl"]).len(), 1);
    first.kill9();
    next.stop().await;
}

/// The first process sleeps right before it says so, and wakes once another first start has forgotten
/// what it had put on record, and before that one compares anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_former_process_that_says_too_late_that_a_merge_is_settled_keeps_nothing_from_the_next_one()
 {
    let env = TestEnv::start().await;
    let merge = "[initial_sync]\nmode = \"merge\"";
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    let mut first = env.tandem(&leased(&env).extra(merge));
    let slow = doc! {
        "failCommands": ["update"], "namespace": "__tandem.ranges", "appName": "tandem",
        "blockConnection": true, "blockTimeMS": 2000,
    };
    // The second one says that the only range is done.
    env.b.fail_command(doc! { "skip": 1 }, slow).await;
    first.start();
    wait_held(&env.b, "update", "ranges", true).await;
    first.sigstop();
    env.b.fail_command("off", doc! {}).await;
    env.orders_b().insert_one(doc! { "_id": 2 }).await.unwrap();
    end_leases(&env).await;
    hold(&env.b, "update", "sessions", HELD).await;
    let mut link = leased(&env).extra(merge);
    link.state_dir = "other-state".to_owned();
    let mut next = env.tandem_named("other.toml", &link);
    next.run_with(&["--first-start"]).start();
    wait_held(&env.b, "update", "sessions", true).await;
    first.sigcont();
    assert_eq!(first.wait_exit(SOON).await, 8);
    next.wait_until_streaming().await;
    assert_converged(&env, SOON).await;
    next.stop().await;
}
