//! A paused direction writes nothing, the other one goes on, and a resume loses nothing.

use std::time::Duration;

use bson::{Document, doc};
use serde_json::Value;

use crate::support::compare::assert_converged_by;
use crate::support::env::{LinkConfig, TestEnv, raw_by_id};
use crate::support::load::Load;
use crate::support::oplog::{entries_after, from_tandem, now};
use crate::support::random::seed;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);
/// Long enough for some hundred writes on either side.
const A_WHILE: Duration = Duration::from_millis(700);

fn pipeline<'a>(status: &'a Value, id: &str) -> &'a Value {
    let mut pipelines = status["pipelines"].as_array().into_iter().flatten();
    pipelines
        .find(|pipeline| pipeline["id"] == id)
        .unwrap_or(&Value::Null)
}

fn told(tandem: &Tandem, arguments: &[&str]) -> String {
    let output = tandem.run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.code(),
        Some(0),
        "tandem {arguments:?}: {stderr}"
    );
    String::from_utf8(output.stdout).expect("text")
}

/// It must not be done; gives what is said about it.
fn refused(tandem: &Tandem, arguments: &[&str], code: i32) -> String {
    let output = tandem.run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        output.status.code(),
        Some(code),
        "tandem {arguments:?}: {stderr}"
    );
    stderr
}

/// Waits until a process runs with the one direction paused and the other one going on.
async fn until_paused(tandem: &Tandem) {
    let is_so = |status: &Value| {
        status["state"] == "running"
            && pipeline(status, "a-to-b")["phase"] == "paused"
            && pipeline(status, "b-to-a")["phase"] == "streaming"
    };
    tandem.wait_status("one is paused", SOON, is_so).await;
}

/// The same link, run from another host: another state directory.
fn elsewhere(env: &TestEnv, mut link: LinkConfig) -> Tandem {
    link.state_dir = "other-state".to_owned();
    env.tandem_named("other.toml", &link)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_under_two_way_load_outlives_kills_and_a_takeover_and_loses_nothing() {
    let env = TestEnv::start().await;
    // Small queues: what is paused has to wait on disk.
    let link = env
        .link()
        .extra("batch_bytes_max = 65536\n[limits]\nqueue_bytes_max = 65536");
    let mut tandem = env.streaming(&link).await;
    let load = Load::start(
        &env,
        Load::steady(seed("pause")).pause(Duration::from_millis(5)),
    );
    tokio::time::sleep(A_WHILE).await;

    assert_eq!(told(&tandem, &["pause", "a-to-b"]), "a-to-b is paused\n");
    assert_eq!(tandem.pipeline("a-to-b")["phase"], "paused", "at once");
    let paused_at = now(env.b.client()).await;
    let again = told(&tandem, &["pause", "a-to-b"]);
    assert!(
        again.starts_with("a-to-b is paused already, since "),
        "{again}"
    );
    until_paused(&tandem).await;
    let before = tandem.pipeline("b-to-a")["operations_applied_total"].as_u64();
    tokio::time::sleep(A_WHILE).await;
    let goes_on = |status: &Value| {
        pipeline(status, "b-to-a")["operations_applied_total"].as_u64() > before
            && pipeline(status, "a-to-b")["lag_seconds"].as_f64() > Some(0.5)
    };
    tandem.wait_status("lag is told", SOON, goes_on).await;
    assert!(tandem.log().contains("further events wait on disk"));

    tandem.kill9();
    tandem.start();
    until_paused(&tandem).await;
    let since = tandem.pipeline("a-to-b")["paused"].clone();
    assert!(
        since["by"].as_str().is_some_and(|by| !by.is_empty()),
        "{since}"
    );
    tandem.stop().await;
    assert_eq!(tandem.pipeline("a-to-b")["paused"], since);

    let mut other = elsewhere(&env, link.clone());
    other.start();
    until_paused(&other).await;
    assert_eq!(other.pipeline("a-to-b")["paused"], since);
    tokio::time::sleep(A_WHILE).await;
    let meanwhile = entries_after(env.b.client(), paused_at).await;
    assert_eq!(
        told(&other, &["resume"]),
        "a-to-b goes on\nb-to-a is not paused\n"
    );
    other.wait_until_streaming().await;
    let history = load.stop().await;
    let written = from_tandem(&meanwhile, &history.sessions);
    let first = written.first().map(|entry| &entry.entry);
    assert_eq!(first, None, "{} entries while paused", written.len());
    crate::support::load::assert_settled(&history, &env, &other, SOON).await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_needs_both_directions_is_refused_while_one_is_paused() {
    let env = TestEnv::start().await;
    let mut tandem = env.tandem(&env.link());
    // Before anything has run, with nothing but the state directory to keep it.
    told(&tandem, &["pause", "b-to-a"]);
    assert_eq!(tandem.status()["state"], "never_run");
    tandem.start();
    let is_so = |status: &Value| pipeline(status, "b-to-a")["phase"] == "paused";
    tandem.wait_status("it begins paused", SOON, is_so).await;
    told(&tandem, &["pause"]);
    let both = |status: &Value| status["state"] == "paused";
    tandem.wait_status("both are paused", SOON, both).await;
    for arguments in [
        vec!["resync"],
        vec!["cutover", "--yes", "--abort-if-lag", "1h"],
    ] {
        let stderr = refused(&tandem, &arguments, 2);
        assert!(stderr.contains("a-to-b is paused"), "{stderr}");
        assert!(stderr.contains("tandem resume a-to-b"), "{stderr}");
    }
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    env.orders_b().insert_one(doc! { "_id": 2 }).await.unwrap();
    // An index is a change of the collection: it must wait like everything else.
    let index = doc! { "createIndexes": "orders", "indexes": [{ "key": { "v": 1 }, "name": "v" }] };
    let shop = env.a.client().database("shop");
    shop.run_command(index).await.unwrap();
    tandem.stop().await;
    let stderr = refused(&tandem, &["run", "--until-caught-up"], 2);
    assert!(stderr.contains("cannot catch up"), "{stderr}");
    assert_eq!(raw_by_id(&env.orders_b(), 1).await, None);
    assert_eq!(told(&tandem, &["resume", "b-to-a"]), "b-to-a goes on\n");
    tandem.start();
    wait_for("b's write arrives", SOON, || raw_by_id(&env.orders_a(), 2)).await;
    until_paused(&tandem).await;
    let names = env.orders_b().list_index_names().await.unwrap_or_default();
    assert!(!names.contains(&"v".to_owned()), "{names:?}");
    told(&tandem, &["resume", "a-to-b"]);
    assert_converged_by(&tandem, &env, SOON).await;
    wait_for("the index arrives", SOON, || async {
        let names = env.orders_b().list_index_names().await.unwrap_or_default();
        names.contains(&"v".to_owned()).then_some(())
    })
    .await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_copy_stands_still_over_a_restart_and_goes_on_where_it_was() {
    let env = TestEnv::start().await;
    let documents = (0..6000).map(|id| doc! { "_id": id, "text": "x".repeat(100) });
    env.orders_a().insert_many(documents).await.unwrap();
    let link = env.link().extra("[initial_sync]\nmode = \"copy\"");
    let mut tandem = env.tandem(&link);
    tandem.env("TANDEM_APPLY__OPERATIONS_PER_SECOND_MAX", "3000");
    tandem.start();
    let done = |status: &Value| status["initial_sync"]["documents_done"].as_u64();
    tandem
        .wait_status("it copies", SOON, |status| done(status) > Some(500))
        .await;
    told(&tandem, &["pause", "a-to-b"]);
    let copied = count(&env).await;
    env.orders_b()
        .insert_one(doc! { "_id": "b" })
        .await
        .unwrap();
    tandem.stop().await;
    tandem.start();
    let is_so = |status: &Value| pipeline(status, "a-to-b")["phase"] == "paused";
    tandem.wait_status("still paused", SOON, is_so).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(
        count(&env).await,
        copied + 1,
        "a paused copy copies nothing"
    );
    assert!(copied < 6000, "it was paused too late");
    told(&tandem, &["resume"]);
    let is_done = |status: &Value| status["initial_sync"]["state"] == "done";
    tandem.wait_status("the copy is done", SOON, is_done).await;
    assert_converged_by(&tandem, &env, SOON).await;
    tandem.stop().await;
}

async fn count(env: &TestEnv) -> u64 {
    let orders = env.orders_b().clone_with_type::<Document>();
    orders.count_documents(doc! {}).await.expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_way_link_has_one_direction_to_pause_and_a_bad_word_is_named() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link().one_way()).await;
    let stderr = refused(&tandem, &["pause", "b-to-a"], 2);
    assert!(stderr.contains("one-way"), "{stderr}");
    let stderr = refused(&tandem, &["pause", "b-to-c"], 2);
    assert!(stderr.contains("a-to-b, b-to-a"), "{stderr}");
    assert_eq!(told(&tandem, &["pause"]), "a-to-b is paused\n");
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    env.b.sigstop();
    let all = told(&tandem, &["resume"]);
    assert!(all.contains("us does not know yet"), "{all}");
    let all = told(&tandem, &["pause"]);
    assert!(all.contains("us does not know yet"), "{all}");
    assert!(!all.contains("eu does not know"), "it is there: {all}");
    env.b.sigcont();
    told(&tandem, &["resume"]);
    wait_for("the write arrives", SOON, || raw_by_id(&env.orders_b(), 1)).await;
    tandem.stop().await;
    env.b.sigstop();
    tandem.env("TANDEM_TIMEOUTS__CONNECT", "1s");
    let all = told(&tandem, &["pause"]);
    assert!(all.contains("only this host knows"), "{all}");
    refused(&tandem, &["run"], 4);
    let status = tandem.status();
    let error = status["last_error"]["message"].to_string();
    assert!(
        status["state"] == "failed" && error.contains("us"),
        "{status}"
    );
    env.b.sigcont();
    tandem.start();
    let is_so = |status: &Value| status["state"] == "paused";
    tandem
        .wait_status("the word of this host counts", SOON, is_so)
        .await;
    tandem.stop().await;
}

/// Writes to the same documents on both sides while nothing replicates.
async fn race(env: &TestEnv, from: i32, count: i32) {
    for id in from..from + count {
        for (orders, side) in [(env.orders_a(), "a"), (env.orders_b(), "b")] {
            let set = doc! { "$set": { "by": side } };
            orders.update_one(doc! { "_id": id }, set).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_conflicts_pauses_the_link_once_and_counts_anew_after_a_resume() {
    const MOST: i32 = 30;
    let env = TestEnv::start().await;
    let all: Vec<Document> = (0..200).map(|id| doc! { "_id": id }).collect();
    for orders in [env.orders_a(), env.orders_b()] {
        orders.insert_many(&all).await.unwrap();
    }
    let extra = format!("[conflicts]\npause_above = {MOST}");
    let mut tandem = env.streaming(&env.link().extra(&extra)).await;
    tandem.stop().await;

    race(&env, 0, MOST).await;
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged_by(&tandem, &env, SOON).await;
    tokio::time::sleep(A_WHILE * 3).await;
    assert_eq!(tandem.status()["state"], "running", "as many are no storm");
    tandem.stop().await;

    race(&env, 100, MOST + 20).await;
    tandem.start();
    let is_paused = |status: &Value| {
        let by = |id: &str| {
            pipeline(status, id)["paused"]["by"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        ["a-to-b", "b-to-a"]
            .map(by)
            .iter()
            .all(|by| by.starts_with("conflicts.pause_above = 30"))
    };
    tandem
        .wait_status("the link has paused itself", SOON, is_paused)
        .await;
    told(&tandem, &["resume"]);
    tandem.wait_until_streaming().await;
    assert_converged_by(&tandem, &env, SOON).await;
    tokio::time::sleep(A_WHILE * 3).await;
    assert_eq!(
        tandem.status()["state"],
        "running",
        "what was before the resume counts"
    );
    tandem.stop().await;
}
