//! Wall clocks that are wrong: whoever is later by its own clock wins, and nothing else happens.

use std::path::Path;
use std::time::Duration;

use bson::doc;
use serde_json::Value;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::load::Load;
use crate::support::mongod::MongodOptions;
use crate::support::oplog::push_ahead;
use crate::support::random::seed;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// The environment of a process whose wall clock is wrong by `offset`, such as `+1h`.
fn clock(offset: &str) -> Vec<(String, String)> {
    let library = LIBRARIES.iter().find(|path| Path::new(path).exists());
    let library = library.expect("libfaketime, from the package of that name");
    [
        ("LD_PRELOAD", *library),
        ("FAKETIME", offset),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A server whose wall clock is wrong by what stands in `file`.
fn wrong_by_what_stands_in(file: &Path, name: &str) -> MongodOptions {
    let mut options = wrong_by(name, "");
    options.environment.retain(|(name, _)| name != "FAKETIME");
    let more = [
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a path")),
        ("FAKETIME_CACHE_DURATION", "1"),
    ];
    let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
    options.environment.extend(more);
    options
}

fn wrong_by(name: &str, offset: &str) -> MongodOptions {
    let mut options = MongodOptions::named(name);
    options.environment = clock(offset);
    options
}

/// Both sides write one document while tandem is stopped, a first; gives the one record.
async fn race(env: &TestEnv, tandem: &Tandem, id: i32) -> Value {
    tandem.sigstop();
    env.orders_a()
        .insert_one(doc! { "_id": id, "by": "a" })
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    env.orders_b()
        .insert_one(doc! { "_id": id, "by": "b" })
        .await
        .unwrap();
    tandem.sigcont();
    wait_for("the race is on record", SOON, || async {
        let of_id = |record: &Value| record["document_key"].to_string().contains(&id.to_string());
        tandem.conflicts(&[]).into_iter().find(of_id)
    })
    .await
}

/// The load's account holds whatever the clocks say, and a race goes to the clock that is ahead.
async fn skewed(offset: &str, winner: &str) {
    let env = TestEnv::start_with(MongodOptions::named("eu-set"), wrong_by("us-set", offset)).await;
    let mut tandem = env.streaming(&env.link()).await;
    let skew = tandem.status()["clusters"]["b"]["clock_skew_ms"].as_i64();
    let hours = skew.map(|ms| (ms as f64 / 3_600_000.0).round() as i64);
    assert_eq!(hours, Some(if winner == "b" { 1 } else { -1 }));
    assert!(tandem.log().contains("clocks differ"), "{}", tandem.log());
    let record = race(&env, &tandem, 1_000_001).await;
    assert_eq!(record["winner_cluster"], winner, "{record}");
    let raced = doc! { "_id": 1_000_001 };
    env.orders_b().delete_one(raced).await.unwrap();
    let load = Load::start(&env, Load::steady(seed("skewed")));
    tokio::time::sleep(Duration::from_secs(3)).await;
    load.settle(&env, &tandem, SOON).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime: the wall clock of b is an hour fast"]
async fn long_a_cluster_an_hour_ahead_wins_every_true_race_and_no_other() {
    skewed("+1h", "b").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime: the wall clock of b is an hour slow"]
async fn long_a_cluster_an_hour_behind_loses_every_true_race_and_no_other() {
    skewed("-1h", "a").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime: the wall clock of the replicator's host is a day wrong"]
async fn long_the_clock_of_the_replicators_host_decides_nothing() {
    let env = TestEnv::start().await;
    for offset in ["+1d", "-1d"] {
        let mut tandem = env.tandem(&env.link());
        for (name, value) in clock(offset) {
            tandem.env(&name, &value);
        }
        tandem.start();
        tandem.wait_until_streaming().await;
        let id = if offset == "+1d" {
            1_000_001
        } else {
            1_000_002
        };
        assert_eq!(race(&env, &tandem, id).await["winner_cluster"], "b");
        let load = Load::start(
            &env,
            Load::steady(seed("host")).ids_from(id as usize * 1000),
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        load.stop().await;
        tandem.stop().await;
    }
}

/// A client may push the cluster time of a set as far as it likes; the wall clock stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_time_that_was_pushed_ahead_wins_no_race() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    push_ahead(env.a.client(), 3600).await;
    // The server keeps this time, and no other test should get it.
    env.a.admin(doc! { "buildInfo": 1 }).await;
    let pushed = doc! { "_id": "pushed ahead" };
    env.orders_a().delete_one(pushed).await.unwrap();
    let load = Load::start(&env, Load::steady(seed("pushed")));
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.settle(&env, &tandem, SOON).await;
    assert!(stands(&env, 1_000_001).await);
    let record = race(&env, &tandem, 2_000_001).await;
    assert_eq!(record["winner_cluster"], "b", "{record}");
    tandem.stop().await;
}

/// b writes a document and a another time after it has arrived there; tells whether that stands.
async fn stands(env: &TestEnv, id: i32) -> bool {
    let by = |by: &str| doc! { "$set": { "by": by } };
    let filter = doc! { "_id": id };
    let (a, b) = (env.orders_a(), env.orders_b());
    b.insert_one(doc! { "_id": id, "by": "b" }).await.unwrap();
    wait_for("it arrives", SOON, || async {
        a.find_one(filter.clone()).await.unwrap()
    })
    .await;
    a.update_one(filter.clone(), by("a")).await.unwrap();
    let mark = doc! { "_id": id + 1 };
    a.insert_one(&mark).await.unwrap();
    wait_for("the mark arrives", SOON, || async {
        b.find_one(mark.clone()).await.unwrap()
    })
    .await;
    assert_converged(env, SOON).await;
    let found = b.find_one(filter).await.unwrap().expect("it is there");
    found.get_str("by").unwrap() == "a"
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime: the wall clock of a goes back ten minutes, and on again"]
async fn long_a_clock_that_goes_back_under_load_loses_true_races_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("clock");
    let turn = |offset: &str| std::fs::write(&file, offset).expect("the clock can be turned");
    turn("+0");
    let options = wrong_by_what_stands_in(&file, "eu-set");
    let env = TestEnv::start_with(options, MongodOptions::named("us-set")).await;
    let mut tandem = env.streaming(&env.link()).await;
    let load = Load::start(&env, Load::steady(seed("clock_back")));
    tokio::time::sleep(Duration::from_secs(2)).await;
    turn("-10m");
    tokio::time::sleep(Duration::from_secs(4)).await;
    load.settle(&env, &tandem, SOON).await;
    // Ten minutes ago by its own clock, and all the same after what it had seen.
    assert!(stands(&env, 2_000_001).await);
    let record = race(&env, &tandem, 3_000_001).await;
    assert_eq!(record["winner_cluster"], "b", "{record}");
    // Whoever starts now meets checkpoints of later wall times.
    tandem.stop().await;
    tandem.start();
    tandem.wait_until_streaming().await;
    assert!(stands(&env, 4_000_001).await);
    // Of b against a.
    let skew = tandem.status()["clusters"]["b"]["clock_skew_ms"].as_i64();
    let minutes = skew.map(|ms| (ms as f64 / 60_000.0).round() as i64);
    assert_eq!(minutes, Some(10));
    turn("+0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(stands(&env, 5_000_001).await);
    assert!(tandem.is_running());
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes 40 s: clocks are looked at every half a minute"]
async fn long_a_cluster_that_is_slow_to_answer_has_no_wrong_clock() {
    let env = TestEnv::start().await;
    let link = env.link().extra("[conflicts]\nclock_skew_warn = \"500ms\"");
    let mut tandem = env.streaming(&link).await;
    // The second look comes half a minute after the first one.
    tokio::time::sleep(Duration::from_secs(27)).await;
    env.b.sigstop();
    tokio::time::sleep(Duration::from_secs(6)).await;
    env.b.sigcont();
    tandem.wait_until_streaming().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!tandem.log().contains("clocks differ"), "{}", tandem.log());
    let skew = tandem.status()["clusters"]["b"]["clock_skew_ms"].as_i64();
    assert!(skew.is_some_and(|ms| ms.abs() < 500), "{skew:?}");
    tandem.stop().await;
}
