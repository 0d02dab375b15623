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

/// Both sides write one document while tandem is stopped, `first` first; gives the one record.
async fn race(env: &TestEnv, tandem: &Tandem, id: i32, first: &str) -> Value {
    tandem.sigstop();
    let (a, b) = ((env.orders_a(), "a"), (env.orders_b(), "b"));
    let in_turn = if first == "a" { [a, b] } else { [b, a] };
    for (orders, by) in in_turn {
        orders
            .insert_one(doc! { "_id": id, "by": by })
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tandem.sigcont();
    on_record(tandem, id).await
}

async fn on_record(tandem: &Tandem, id: i32) -> Value {
    wait_for("the race is on record", SOON, || async {
        let of_id = |record: &Value| record["document_key"].to_string().contains(&id.to_string());
        tandem.conflicts(&[]).into_iter().find(of_id)
    })
    .await
}

/// One side deletes a document and the other one updates it; whoever is ahead wins, though first.
async fn race_with_a_delete(env: &TestEnv, tandem: &Tandem, ahead: &str, id: i32, deletes: bool) {
    let row = doc! { "_id": id };
    env.orders_a().insert_one(&row).await.unwrap();
    assert_converged(env, SOON).await;
    tandem.sigstop();
    let (a, b) = (env.orders_a(), env.orders_b());
    let in_turn = if ahead == "a" { [a, b] } else { [b, a] };
    for (number, orders) in in_turn.into_iter().enumerate() {
        if deletes == (number == 0) {
            orders.delete_one(row.clone()).await.unwrap();
        } else {
            let set = doc! { "$set": { "by": ahead } };
            orders.update_one(row.clone(), set).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tandem.sigcont();
    let record = on_record(tandem, id).await;
    assert_eq!(record["winner_cluster"], ahead, "{record}");
    assert_converged(env, SOON).await;
    let found = env.orders_b().find_one(row).await.unwrap();
    assert_eq!(found.is_none(), deletes, "{record}");
}

/// The load's account holds whatever the clocks say, and a race goes to the clock that is ahead.
async fn skewed(offset: &str, ms: i64) {
    /// Of `conflicts.clock_skew_warn`.
    const WARNED_FROM_MS: i64 = 5000;
    let (winner, other) = if ms > 0 { ("b", "a") } else { ("a", "b") };
    let env = TestEnv::start_with(MongodOptions::named("eu-set"), wrong_by("us-set", offset)).await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let skew = tandem.status()["clusters"]["b"]["clock_skew_ms"].as_i64();
    let measured = skew.expect("a skew");
    assert!((measured - ms).abs() < 200, "{measured} ms");
    let is_warned = tandem.log().contains("clocks differ");
    assert_eq!(is_warned, ms.abs() > WARNED_FROM_MS, "{}", tandem.log());
    let load = Load::start(&env, Load::steady(seed("skewed")));
    tokio::time::sleep(Duration::from_secs(3)).await;
    load.settle(&env, &tandem, SOON).await;
    let id = 1_000_001;
    let record = race(&env, &tandem, id, winner).await;
    assert_eq!(record["winner_cluster"], winner, "{record}");
    for (id, deletes) in [(id + 1, true), (id + 2, false)] {
        race_with_a_delete(&env, &tandem, winner, id, deletes).await;
    }
    // What has seen the other one is later, whatever its clock says.
    assert!(stands(&env, id + 10, other).await);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime: the wall clock of b is an hour fast"]
async fn long_a_cluster_an_hour_ahead_wins_every_true_race_and_no_other() {
    skewed("+1h", 3_600_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime: the wall clock of b is an hour slow"]
async fn long_a_cluster_an_hour_behind_loses_every_true_race_and_no_other() {
    skewed("-1h", -3_600_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs libfaketime: the wall clock of b is half a second fast, then slow"]
async fn long_half_a_second_between_the_clocks_decides_true_races_and_warns_nobody() {
    skewed("+0.5", 500).await;
    skewed("-0.5", -500).await;
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
        let record = race(&env, &tandem, id, "a").await;
        assert_eq!(record["winner_cluster"], "b", "{record}");
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
    assert!(stands(&env, 1_000_001, "a").await);
    let record = race(&env, &tandem, 2_000_001, "a").await;
    assert_eq!(record["winner_cluster"], "b", "{record}");
    tandem.stop().await;
}

/// The other side writes a document and `last` another time after it has arrived there; tells
/// whether that stands.
async fn stands(env: &TestEnv, id: i32, last: &str) -> bool {
    let set = doc! { "$set": { "by": "last" } };
    let filter = doc! { "_id": id };
    let (a, b) = (env.orders_a(), env.orders_b());
    let (last, first) = if last == "a" { (a, b) } else { (b, a) };
    let row = doc! { "_id": id, "by": "first" };
    first.insert_one(row).await.unwrap();
    wait_for("it arrives", SOON, || async {
        last.find_one(filter.clone()).await.unwrap()
    })
    .await;
    last.update_one(filter.clone(), set).await.unwrap();
    let mark = doc! { "_id": id + 1 };
    last.insert_one(&mark).await.unwrap();
    wait_for("the mark arrives", SOON, || async {
        first.find_one(mark.clone()).await.unwrap()
    })
    .await;
    assert_converged(env, SOON).await;
    let found = first.find_one(filter).await.unwrap();
    found.expect("it is there").get_str("by").unwrap() == "last"
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
    assert!(stands(&env, 2_000_001, "a").await);
    let record = race(&env, &tandem, 3_000_001, "b").await;
    assert_eq!(record["winner_cluster"], "b", "{record}");
    // Whoever starts now meets checkpoints of later wall times.
    tandem.stop().await;
    tandem.start();
    tandem.wait_until_streaming().await;
    assert!(stands(&env, 4_000_001, "a").await);
    // Of b against a.
    let skew = tandem.status()["clusters"]["b"]["clock_skew_ms"].as_i64();
    let minutes = skew.map(|ms| (ms as f64 / 60_000.0).round() as i64);
    assert_eq!(minutes, Some(10));
    turn("+0");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(stands(&env, 5_000_001, "a").await);
    // Right again, what is later wins again.
    let record = race(&env, &tandem, 6_000_001, "b").await;
    assert_eq!(record["winner_cluster"], "a", "{record}");
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
