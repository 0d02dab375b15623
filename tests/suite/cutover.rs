//! `tandem cutover`: the applications move to the other cluster, and nothing is left behind.

use std::time::Duration;

use bson::{DateTime, Document, doc};
use mongodb::Client;
use serde_json::Value;

use crate::support::compare::assert_converged;
use crate::support::env::{TestEnv, raw_by_id};
use crate::support::tandem::Tandem;
use crate::support::wait::{wait_for, wait_for_step};

const SOON: Duration = Duration::from_secs(30);
const WRITES_BLOCKED: i32 = 371;
const NEW_COLLECTION_EVERY: i32 = 150;

/// Runs the command to its end, with JSON.
fn cutover(tandem: &Tandem, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut all = vec!["cutover", "--yes", "--json"];
    all.extend(arguments);
    let output = tandem.run(&all);
    let shown = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), shown, errors)
}

pub fn must_succeed(tandem: &Tandem, arguments: &[&str]) -> Value {
    let (code, shown, errors) = cutover(tandem, arguments);
    assert_eq!(code, Some(0), "{errors}");
    shown
}

fn steps(shown: &Value) -> Vec<String> {
    let steps = shown["steps"].as_array().expect("steps").iter();
    let name = |step: &Value| step["step"].as_str().expect("a name").to_owned();
    steps.map(name).collect()
}

/// Inserts one document after the other until the cluster refuses, now and then one more into a new
/// collection; gives the first `_id` that it did not take.
async fn write_until_refused(client: Client, first: i32) -> i32 {
    let shop = client.database("shop");
    let orders = shop.collection::<Document>("orders");
    for id in first.. {
        let mut written = orders.insert_one(doc! { "_id": id, "n": id }).await;
        if written.is_ok() && id % NEW_COLLECTION_EVERY == 0 {
            let new = shop.collection::<Document>(&format!("new_{id}"));
            written = new.insert_one(doc! { "_id": id }).await;
            if written.is_err() {
                return id + 1;
            }
        }
        if let Err(error) = written {
            let refused = error.to_string().contains(&WRITES_BLOCKED.to_string());
            assert!(refused, "{error}");
            return id;
        }
    }
    unreachable!("the cluster is never blocked")
}

async fn is_blocked(client: &Client) -> bool {
    let probe = client.database("probe").collection::<Document>("probe");
    let refused = probe.insert_one(doc! { "_id": 1 }).await.err();
    let _ = probe.delete_one(doc! { "_id": 1 }).await;
    refused.is_some_and(|error| error.to_string().contains(&WRITES_BLOCKED.to_string()))
}

pub async fn must_arrive(from: &Client, to: &Client, id: &str) {
    let orders = |client: &Client| client.database("shop").collection::<Document>("orders");
    let written = orders(from).insert_one(doc! { "_id": id }).await;
    written.expect("written");
    wait_for("the write arrives", SOON, || raw_by_id(&orders(to), id)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_under_load_ends_the_link_with_every_acknowledged_write_on_the_target() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link().one_way()).await;
    let writer = tokio::spawn(write_until_refused(env.a.client().clone(), 0));
    wait_for("some writes arrive", SOON, || {
        raw_by_id(&env.orders_b(), 200)
    })
    .await;
    let shown = must_succeed(&tandem, &[]);
    let written = writer.await.expect("the writer ends");
    let expected = [
        "lag",
        "block",
        "drain",
        "verify",
        "last_drain",
        "decide",
        "turn",
    ];
    assert_eq!(steps(&shown), expected);
    assert_eq!((&shown["from"], &shown["to"]), (&"eu".into(), &"us".into()));
    assert_eq!(tandem.wait_exit(SOON).await, 0, "the link has ended");

    let there = env.orders_b().count_documents(doc! {}).await.unwrap();
    assert_eq!(there, written as u64, "every acknowledged write");
    assert_converged(&env, SOON).await;
    assert!(
        is_blocked(env.a.client()).await,
        "nobody can write there by mistake"
    );
    assert_eq!(shown["writes_blocked"], true);
    assert_eq!(tandem.status()["state"], "ended");
    let again = tandem.run(&["run"]);
    assert_eq!(again.status.code(), Some(3));
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        said.contains("has ended") && said.contains("reset --clusters"),
        "{said}"
    );
    let runs: Value = serde_json::from_slice(&tandem.run(&["runs", "--json"]).stdout).unwrap();
    let runs = runs["runs"].as_array().expect("runs");
    let run = runs
        .iter()
        .find(|run| run["kind"] == "cutover")
        .expect("it");
    assert_eq!((&run["outcome"], steps(run).len()), (&"cut_over".into(), 7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reversed_link_brings_writes_back_without_a_copy_and_can_be_turned_again() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link().one_way();
    let (a, b) = (env.a.client(), env.b.client());
    let mut tandem = env.streaming(&link).await;
    must_arrive(a, b, "first").await;
    let writer = tokio::spawn(write_until_refused(a.clone(), 0));
    tandem.stop().await;
    // No process runs the link: the cutover runs it itself.
    let shown = must_succeed(&tandem, &["--reverse", "--abort-if-lag", "1h"]);
    assert_eq!(shown["writes_blocked"], false);
    let written = writer.await.expect("the writer ends");
    assert!(!is_blocked(a).await, "it has to take what comes from us");
    let there = env
        .orders_b()
        .count_documents(doc! { "n": { "$exists": true } })
        .await;
    assert_eq!(there.unwrap(), written as u64);

    tandem.start();
    tandem.wait_until_streaming().await;
    assert_eq!(tandem.status()["direction"], "b-to-a");
    must_arrive(b, a, "on us").await;
    env.orders_b().delete_one(doc! { "_id": 0 }).await.unwrap();
    wait_for("the delete arrives", SOON, || async {
        raw_by_id(&env.orders_a(), 0).await.is_none().then_some(())
    })
    .await;
    // One-way it stays: a write on eu is no longer sent, and us wins over it.
    env.orders_a()
        .insert_one(doc! { "_id": "both", "on": "eu" })
        .await
        .unwrap();
    env.orders_b()
        .insert_one(doc! { "_id": "both", "on": "us" })
        .await
        .unwrap();
    wait_for("us wins", SOON, || async {
        let found = raw_by_id(&env.orders_a(), "both").await?;
        (found.get_str("on").ok()? == "us").then_some(())
    })
    .await;
    assert_converged(&env, SOON).await;
    assert_eq!(tandem.conflicts(&[])[0]["winner"], "us");

    // Killed and started again, it goes on in the direction that is on record.
    tandem.kill9();
    env.orders_b()
        .insert_one(doc! { "_id": "while away" })
        .await
        .unwrap();
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged(&env, SOON).await;

    must_succeed(&tandem, &["--reverse"]);
    assert!(tandem.is_running(), "the same process goes on");
    assert_eq!(tandem.status()["direction"], "a-to-b");
    must_arrive(a, b, "on eu again").await;
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_two_way_cutover_drains_both_pipelines_and_goes_on_both_ways() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let (a, b) = (env.a.client(), env.b.client());
    let on_us = (0..500).map(|id| doc! { "_id": -1 - id });
    let writer = tokio::spawn(write_until_refused(a.clone(), 0));
    env.orders_b().insert_many(on_us).await.unwrap();
    let shown = must_succeed(&tandem, &["--reverse"]);
    let written = writer.await.expect("the writer ends");
    assert_eq!(steps(&shown)[..3], ["lag", "drain_back", "block"]);
    assert_converged(&env, SOON).await;
    let there = env.orders_b().count_documents(doc! {}).await.unwrap();
    assert_eq!(there, written as u64 + 500);
    must_arrive(b, a, "on us").await;
    must_arrive(a, b, "on eu").await;
    // The applications are on us now, so that the next cutover is from there.
    let shown = must_succeed(&tandem, &[]);
    assert_eq!(shown["from"], "us");
    assert!(is_blocked(b).await && !is_blocked(a).await);
    assert_eq!(tandem.wait_exit(SOON).await, 0);
    assert!(tandem.conflicts(&[]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_killed_at_any_step_is_taken_up_again_by_the_same_command() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link().one_way();
    let mut tandem = env.streaming(&link).await;
    let all = ["lag", "block", "drain", "verify", "last_drain", "turn"];
    for (round, step) in all.into_iter().enumerate() {
        let clients = [env.a.client(), env.b.client()];
        let (source, target) = (clients[round % 2], clients[(round + 1) % 2]);
        let first = round as i32 * 1_000_000;
        let writer = tokio::spawn(write_until_refused(source.clone(), first));
        let mut killed = env.tandem(&link);
        killed.start_command(&["cutover", "--reverse", "--yes"]);
        wait_for_step(target, step).await;
        killed.kill9();
        must_succeed(&tandem, &["--reverse"]);
        let written = writer.await.expect("the writer ends") - first;
        assert_converged(&env, SOON).await;
        let orders = target.database("shop").collection::<Document>("orders");
        let of_round = doc! { "_id": { "$gte": first } };
        let there = orders.count_documents(of_round).await.unwrap();
        assert_eq!(there, written as u64, "killed at {step}");
    }
    assert!(tandem.is_running());
    assert_eq!(tandem.status()["direction"], "a-to-b");
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_ran_the_link_itself_is_taken_up_again_or_given_up() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link();
    let mut tandem = env.streaming(&link).await;
    tandem.stop().await;
    for step in ["drain", "verify"] {
        env.orders_a()
            .insert_one(doc! { "at": step })
            .await
            .unwrap();
        tandem.start_command(&["cutover", "--yes"]);
        wait_for_step(env.b.client(), step).await;
        tandem.kill9();
        assert!(is_blocked(env.a.client()).await);
        if step == "drain" {
            let given_up = tandem.run(&["cutover", "--abort"]);
            assert_eq!(given_up.status.code(), Some(0));
            assert!(!is_blocked(env.a.client()).await);
        }
    }
    let shown = must_succeed(&tandem, &[]);
    assert_eq!(shown["writes_blocked"], true);
    assert_converged(&env, SOON).await;
    let (code, _, errors) = cutover(&tandem, &[]);
    assert_eq!(code, Some(3), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_that_cannot_be_proven_is_taken_back() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    // Ten operations a second, so that a hundred take ten.
    let link = env
        .link()
        .one_way()
        .lanes(1)
        .extra("operations_per_second_max = 10\nbatch_operations_max = 1");
    let mut tandem = env.streaming(&link).await;
    let many = (0..100).map(|id| doc! { "_id": id });
    env.orders_a().insert_many(many).await.unwrap();
    // Lag is the age of what was not applied yet: it has to grow old.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let late = doc! { "_id": "late" };
    env.orders_a().insert_one(late).await.unwrap();
    wait_for("it is behind", SOON, || async {
        let lag = tandem.pipeline("a-to-b")["lag_seconds"].as_f64();
        (lag? > 1.0).then_some(())
    })
    .await;
    let (code, shown, errors) = cutover(&tandem, &["--abort-if-lag", "1s"]);
    assert_eq!(code, Some(124), "{errors}");
    assert!(errors.contains("--abort-if-lag"), "{errors}");
    assert_eq!(steps(&shown), ["lag"], "nothing was blocked");
    let (code, shown, errors) = cutover(&tandem, &["--timeout", "2s"]);
    assert_eq!(code, Some(124), "{errors}");
    assert_eq!(shown["outcome"], "timed_out");
    assert!(!is_blocked(env.a.client()).await);

    env.orders_b()
        .insert_one(doc! { "_id": "only on us" })
        .await
        .unwrap();
    assert_eq!(steps(&shown).last().map(String::as_str), Some("drain"));
    let (code, shown, errors) = cutover(&tandem, &["--timeout", "2m"]);
    assert_eq!(code, Some(6), "{errors}");
    assert!(
        errors.contains("the clusters differ: 1 documents"),
        "{errors}"
    );
    assert_eq!(steps(&shown).last().map(String::as_str), Some("verify"));
    assert!(!is_blocked(env.a.client()).await);
    assert!(tandem.is_running(), "the link goes on");
    let runs: Value = serde_json::from_slice(&tandem.run(&["runs", "--json"]).stdout).unwrap();
    let outcomes = runs["runs"].as_array().unwrap().iter();
    let outcomes: Vec<_> = outcomes
        .map(|run| run["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["running", "timed_out", "timed_out", "failed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_cutover_takes_everything_back() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let slow = "operations_per_second_max = 10\nbatch_operations_max = 1";
    let link = env.link().one_way().lanes(1).extra(slow);
    let mut tandem = env.streaming(&link).await;
    let mut interrupted = env.tandem(&link);
    let tomorrow = DateTime::now().timestamp_millis() / 1000 - 3600;
    let (hour, minute) = (tomorrow / 3600 % 24, tomorrow / 60 % 60);
    let at = format!("{hour:02}:{minute:02}");
    interrupted.start_command(&["cutover", "--yes", "--at", &at, "--time-zone", "UTC"]);
    wait_for("it waits", SOON, || async {
        interrupted.log().contains("cutover: waiting").then_some(())
    })
    .await;
    interrupted.sigint();
    assert_eq!(interrupted.wait_exit(SOON).await, 130);

    let many = (0..100).map(|id| doc! { "_id": id });
    env.orders_a().insert_many(many).await.unwrap();
    interrupted.start_command(&["cutover", "--yes"]);
    wait_for_step(env.b.client(), "drain").await;
    let (code, _, errors) = cutover(&tandem, &[]);
    assert_eq!(code, Some(8), "two at once: {errors}");
    assert!(is_blocked(env.a.client()).await);
    interrupted.sigint();
    assert_eq!(interrupted.wait_exit(SOON).await, 130);
    assert!(!is_blocked(env.a.client()).await);
    assert!(tandem.is_running());
    // Nothing but the drain sees to it that what is still on its way arrives.
    let more = (100..150).map(|id| doc! { "_id": id });
    env.orders_a().insert_many(more).await.unwrap();
    let shown = must_succeed(&tandem, &["--skip-verify"]);
    assert_eq!(shown["outcome"], "cut_over");
    assert_eq!(tandem.wait_exit(SOON).await, 0);
    assert_eq!(env.orders_b().count_documents(doc! {}).await.unwrap(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_server_does_not_block_the_source_must_be_quiet() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link().one_way()).await;
    let client = env.a.client().clone();
    let writer = tokio::spawn(async move {
        let orders = client.database("shop").collection::<Document>("orders");
        for id in 0.. {
            orders.insert_one(doc! { "_id": id }).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let (code, _, errors) = cutover(&tandem, &["--no-block", "--timeout", "8s"]);
    assert_eq!(code, Some(124), "{errors}");
    assert!(errors.contains("applications still write"), "{errors}");
    writer.abort();
    let _ = writer.await;
    let shown = must_succeed(&tandem, &["--no-block", "--skip-verify"]);
    assert_eq!(shown["writes_blocked"], false);
    assert_eq!(tandem.wait_exit(SOON).await, 0);
    assert_converged(&env, SOON).await;
}
