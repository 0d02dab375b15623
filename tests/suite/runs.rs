//! `tandem runs`: every run is on record with what it moved and how it came out.

use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::tandem::Tandem;

const SOON: Duration = Duration::from_secs(15);

fn runs(tandem: &Tandem) -> Vec<Value> {
    let output = tandem.run(&["runs", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["format"], 1);
    found["runs"].as_array().expect("runs").clone()
}

fn outcomes(tandem: &Tandem) -> Vec<(String, Value)> {
    let outcome = |run: &Value| {
        let outcome = run["outcome"].as_str().expect("an outcome").to_owned();
        (outcome, run["exit_code"].clone())
    };
    runs(tandem).iter().map(outcome).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_run_is_on_record_with_what_it_moved_and_how_it_came_out() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.tandem(&env.link());
    assert_eq!(outcomes(&tandem), [], "it never ran");
    tandem.start();
    tandem.wait_until_streaming().await;
    env.orders_a().insert_one(doc! { "_id": 0 }).await.unwrap();
    assert_converged(&env, SOON).await;
    let expect = |name: &str, code: Value| (name.to_owned(), code);
    assert_eq!(outcomes(&tandem), [expect("running", Value::Null)]);
    tandem.kill9();

    for id in 1..=5 {
        env.orders_a().insert_one(doc! { "_id": id }).await.unwrap();
        env.orders_b()
            .insert_one(doc! { "_id": -id })
            .await
            .unwrap();
    }
    let caught_up = tandem.run(&["run", "--until-caught-up"]);
    let line = String::from_utf8(caught_up.stdout).unwrap();
    let summary = "link eu-us: caught up: 10 operations applied, 0 conflicts, 0 dead letters in ";
    assert!(line.starts_with(summary), "{line}");
    assert_eq!(line.lines().count(), 1);

    let timed_out = tandem.run(&["run", "--timeout", "1s"]);
    assert_eq!(timed_out.status.code(), Some(124));
    assert_eq!(
        outcomes(&tandem),
        [
            expect("killed", Value::Null),
            expect("caught_up", json!(0)),
            expect("timed_out", json!(124)),
        ]
    );
    let all = runs(&tandem);
    let moved = |at: usize, pipeline: usize| &all[at]["pipelines"][pipeline]["operations_applied"];
    assert_eq!((moved(1, 0), moved(1, 1)), (&json!(5), &json!(5)));
    assert_eq!((moved(2, 0), moved(2, 1)), (&json!(0), &json!(0)));
    assert!(
        all[2]["error"]
            .as_str()
            .is_some_and(|text| text.contains("--timeout"))
    );
    assert!(all[1]["ended_at"].as_str() >= all[1]["started_at"].as_str());
    let table = String::from_utf8(tandem.run(&["runs"]).stdout).unwrap();
    assert!(
        table.contains("caught up") && table.contains("timed out"),
        "{table}"
    );
}

/// `HH:MM` in UTC, so many minutes from now.
fn in_minutes(minutes: i64) -> String {
    const DAY_MINUTES: i64 = 24 * 60;
    let now_ms = bson::DateTime::now().timestamp_millis();
    let minute = (now_ms / 60_000 + minutes).rem_euclid(DAY_MINUTES);
    format!("{:02}:{:02}", minute / 60, minute % 60)
}

fn run_in(tandem: &mut Tandem, from: i64, to: i64) {
    let window = format!("{}-{}", in_minutes(from), in_minutes(to));
    tandem.run_with(&["--window", &window, "--time-zone", "UTC"]);
    tandem.start();
}

async fn wait_outside(tandem: &Tandem, deadline: Duration) {
    tandem
        .wait_status("it is outside the window", deadline, |status| {
            status["state"] == "outside_window"
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outside_its_window_the_link_rests_and_holds_nothing() {
    const START_TIME: Duration = Duration::from_secs(15);
    const MINUTE: Duration = Duration::from_secs(60);
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.tandem(&env.link());
    run_in(&mut tandem, 120, 180);
    wait_outside(&tandem, SOON).await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    tandem.sigterm();
    assert_eq!(tandem.wait_exit(SOON).await, 0);
    assert_eq!(tandem.status()["state"], "stopped");
    assert_eq!(outcomes(&tandem), [], "it never ran");

    let into_minute = bson::DateTime::now().timestamp_millis() as u64 % 60_000;
    let left = MINUTE.saturating_sub(Duration::from_millis(into_minute));
    run_in(&mut tandem, -60, if left > START_TIME { 1 } else { 2 });
    tandem.wait_until_streaming().await;
    env.orders_a().insert_one(doc! { "_id": 2 }).await.unwrap();
    env.orders_b().insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    wait_outside(&tandem, 2 * MINUTE).await;
    assert_eq!(outcomes(&tandem), [("stopped".to_owned(), json!(0))]);
    assert!(tandem.is_running(), "it waits for the next window");
    env.orders_a().insert_one(doc! { "_id": 3 }).await.unwrap();
    tandem.stop().await;

    tandem.run_with(&[]);
    tandem.start();
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}
