//! Clusters that go away for a while: it waits, says so, comes back and converges.

use std::time::{Duration, Instant};

use bson::doc;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::fail_points::FailPoint;
use crate::support::mongod::{Mongod, MongodOptions, free_port};
use crate::support::proxy::Proxy;
use crate::support::random::scaled;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);
const OUTAGE_SECONDS: usize = 120;

async fn writes(env: &TestEnv, from: i32) {
    for id in from..from + 50 {
        let (a, b) = (env.orders_a(), env.orders_b());
        a.insert_one(doc! { "_id": id, "by": "a" }).await.unwrap();
        let row = doc! { "_id": id + 1000, "by": "b" };
        b.insert_one(row).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clusters_may_vanish_while_it_runs() {
    let mut env = TestEnv::start().await;
    let link = env
        .link()
        .extra("[timeouts]\nconnect = \"2s\"\noperation = \"2s\"");
    let mut tandem = env.streaming(&link).await;
    writes(&env, 0).await;
    assert_converged(&env, SOON).await;
    env.a.sigkill();
    env.b.sigkill();
    let gone = Instant::now();
    tandem
        .wait_status("it says that it waits", SOON, |status| {
            status["state"] == "waiting"
        })
        .await;
    let outage = Duration::from_secs(scaled(OUTAGE_SECONDS) as u64);
    tokio::time::sleep(outage.saturating_sub(gone.elapsed())).await;
    assert!(tandem.is_running());
    tokio::join!(env.a.restart(), env.b.restart());
    writes(&env, 100).await;
    assert_converged(&env, Duration::from_secs(60)).await;
    tandem.wait_until_streaming().await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_waited_for() {
    let env = TestEnv::start().await;
    let link = env
        .link()
        .extra("[timeouts]\nconnect = \"2s\"\noperation = \"1s\"");
    let mut tandem = env.streaming(&link).await;
    env.b.sigstop();
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    let waits = |status: &serde_json::Value| status["clusters"]["b"]["reachable"] == false;
    tandem
        .wait_status("it says which cluster is gone", SOON, waits)
        .await;
    env.b.sigcont();
    writes(&env, 100).await;
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_is_no_transaction_that_takes_long_and_one_of_one_document_gets_its_time() {
    const FROZEN: Duration = Duration::from_secs(3);
    let env = TestEnv::start().await;
    let link = env.link().extra("transaction_time_max = \"500ms\"");
    let mut tandem = env.streaming(&link).await;
    writes(&env, 100).await;
    assert_converged(&env, SOON).await;
    let reason = |status: &serde_json::Value| {
        let reason = status["pipelines"][0]["waiting_on"].as_str();
        reason.map(str::to_owned)
    };
    // A commit that is seen may still be waited for by its lane.
    let is_idle = |status: &serde_json::Value| reason(status).is_none();
    tandem.wait_status("nobody waits", SOON, is_idle).await;
    env.b.sigstop();
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    let waits = |status: &serde_json::Value| {
        reason(status).is_some_and(|reason| reason.starts_with("us does not answer"))
    };
    tandem
        .wait_status("a lane says what it waits for", SOON, waits)
        .await;
    tokio::time::sleep(FROZEN).await;
    env.b.sigcont();
    assert_converged(&env, SOON).await;
    assert!(!tandem.log().contains("took longer"), "{}", tandem.log());
    let tries = tries_of_one_document(&env, &tandem).await;
    assert!(tandem.log().contains("took longer"), "{}", tandem.log());
    assert!(tries <= TRIES_MAX, "{tries} transactions");
    tandem.stop().await;
}

/// One that takes too long, half of it with twice the time, and the rest; some more on a slow machine.
/// Halves of halves, down to a single event, and doubles of that are 16.
const TRIES_MAX: i64 = 8;

/// How many transactions it takes to apply a backlog of one document, all of which take longer than
/// they may at first.
async fn tries_of_one_document(env: &TestEnv, tandem: &Tandem) -> i64 {
    const WRITES: u64 = 200;
    let read = |status: &serde_json::Value| {
        let pipeline = &status["pipelines"][0];
        pipeline["events_read_total"].as_u64().expect("a number")
    };
    let told = |arguments: &[&str]| assert!(tandem.run(arguments).status.success());
    told(&["pause", "a-to-b"]);
    let before = read(&tandem.status());
    for n in 1..=WRITES as i64 {
        let update = doc! { "$set": { "n": n } };
        env.orders_a()
            .update_one(doc! { "_id": 1 }, update)
            .await
            .unwrap();
    }
    let all_wait = |status: &serde_json::Value| read(status) >= before + WRITES;
    tandem.wait_status("all of them wait", SOON, all_wait).await;
    let slow = doc! { "namespace": "shop.orders", "blockConnection": true, "blockTimeMS": 700 };
    let apply = async {
        told(&["resume", "a-to-b"]);
        assert_converged(env, SOON).await;
    };
    FailPoint::on(&env.b, &["update"])
        .fail_while(apply, slow)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_breaks_again_and_again_loses_nothing() {
    let (proxy_a, proxy_b) = (Proxy::start().await, Proxy::start().await);
    let (a, b) = tokio::join!(
        Mongod::start_behind(MongodOptions::named("eu-set"), &proxy_a),
        Mongod::start_behind(MongodOptions::named("us-set"), &proxy_b),
    );
    let env = TestEnv::of(a, b);
    let link = env
        .link()
        .extra("[timeouts]\nconnect = \"2s\"\noperation = \"2s\"");
    let mut tandem = env.streaming(&link).await;
    for round in 0..4 {
        let proxy = if round % 2 == 0 { &proxy_a } else { &proxy_b };
        writes(&env, round * 100).await;
        proxy.sever();
        writes(&env, round * 100 + 50).await;
        proxy.heal();
    }
    assert_converged(&env, Duration::from_secs(60)).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_cannot_be_reached_at_the_start_ends_with_4_after_the_time_out() {
    let env = TestEnv::start().await;
    let mut link = env.link().extra("[timeouts]\nconnect = \"2s\"");
    for host in [&format!("127.0.0.1:{}", free_port()), "nobody.invalid"] {
        link.uri_b = format!("mongodb://{host}/?replicaSet=us-set");
        let start = Instant::now();
        let output = env.tandem(&link).run(&["run"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{host}: {said}");
        let took = start.elapsed();
        let around = Duration::from_secs(2)..Duration::from_secs(8);
        assert!(around.contains(&took), "{host}: {took:?}");
        assert!(said.contains("us"), "{said}");
    }
}

/// Both readers are full before either has passed the start.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_gets_past_a_backlog_larger_than_the_queue() {
    let env = TestEnv::start().await;
    let link = env
        .link()
        .extra("batch_bytes_max = 16384\n[limits]\nqueue_bytes_max = 16384");
    let mut tandem = env.streaming(&link).await;
    writes(&env, 0).await;
    assert_converged(&env, SOON).await;
    tandem.kill9();
    let filling = "x".repeat(10_000);
    for id in 100..120 {
        let row = doc! { "_id": id, "filling": &filling };
        env.orders_a().insert_one(row).await.unwrap();
        let row = doc! { "_id": id + 1000, "filling": &filling };
        env.orders_b().insert_one(row).await.unwrap();
    }
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

/// Full state of a document in a long backlog has to be read as of a moment that the server no
/// longer keeps: the reader comes to the present for that, past the bound of its queue.
#[tokio::test(flavor = "multi_thread")]
async fn conflicts_in_a_backlog_older_than_the_servers_snapshots_are_settled() {
    let env = TestEnv::start().await;
    let link = env
        .link()
        .extra("batch_bytes_max = 16384\n[limits]\nqueue_bytes_max = 16384");
    let mut tandem = env.streaming(&link).await;
    writes(&env, 0).await;
    assert_converged(&env, SOON).await;
    tandem.kill9();
    let filling = "x".repeat(4_000);
    let rows = |by| (100..140).map(move |id| doc! { "_id": id, "by": by });
    for (orders, by) in [(env.orders_b(), "b"), (env.orders_a(), "a")] {
        for mut row in rows(by) {
            row.insert("filling", &filling);
            orders.insert_one(row).await.unwrap();
        }
    }
    forget_snapshots(&env).await;
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged(&env, SOON).await;
    let row = env.orders_b().find_one(doc! { "_id": 100 }).await.unwrap();
    assert_eq!(row.unwrap().get_str("by").unwrap(), "a");
    tandem.stop().await;
    assert_eq!(tandem.conflicts(&[]).len(), 40);
}

/// Returns once a cannot be read as of now any more.
async fn forget_snapshots(env: &TestEnv) {
    let window = doc! { "setParameter": 1, "minSnapshotHistoryWindowInSeconds": 1 };
    let now = env.a.admin(window).await;
    let now = now.get_timestamp("operationTime").unwrap();
    wait_for("snapshots are forgotten", SOON, || async {
        let ticks = env.a.client().database("bank").collection("ticks");
        ticks.insert_one(doc! { "tick": 1 }).await.unwrap();
        let read = doc! {
            "find": "orders",
            "readConcern": { "level": "snapshot", "atClusterTime": now },
        };
        let read = env.a.client().database("shop").run_command(read).await;
        read.is_err().then_some(())
    })
    .await;
}

/// Whatever one reader cannot hold waits on disk, where decisions still find it.
#[tokio::test(flavor = "multi_thread")]
async fn two_backlogs_larger_than_the_queues_converge_through_the_spool_and_a_kill() {
    let env = TestEnv::start().await;
    let link = env
        .link()
        .extra("batch_bytes_max = 16384\n[limits]\nqueue_bytes_max = 16384");
    let mut tandem = env.streaming(&link).await;
    writes(&env, 0).await;
    assert_converged(&env, Duration::from_secs(60)).await;
    tandem.kill9();
    for (orders, by, own) in [(env.orders_b(), "b", 10_000), (env.orders_a(), "a", 20_000)] {
        let contested = 5000..5040;
        let ids = (own..own + 500)
            .chain(contested)
            .chain(own + 500..own + 1000);
        let rows = ids.map(|id| doc! { "_id": id, "by": by });
        orders.insert_many(rows).await.unwrap();
    }
    tandem.start();
    let arrived = doc! { "_id": { "$gte": 10_000 }, "by": "b" };
    wait_for("some have arrived", SOON, || async {
        env.orders_a().find_one(arrived.clone()).await.unwrap()
    })
    .await;
    tandem.kill9();
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged(&env, SOON).await;
    let row = env.orders_b().find_one(doc! { "_id": 5000 }).await.unwrap();
    assert_eq!(row.unwrap().get_str("by").unwrap(), "a");
    tandem.stop().await;
    let records = tandem.conflicts(&[]);
    assert_eq!(records.len(), 40);
    let is_whole =
        |record: &serde_json::Value| record["losing"]["change"]["fullDocument"]["by"] == "b";
    assert!(records.iter().all(is_whole));
    let log = tandem.log();
    assert!(
        log.contains("queues are full: further events wait on disk"),
        "{log}"
    );
}
