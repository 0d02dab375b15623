//! What `status --json` tells, which others script against, and where configuration comes from.

use std::time::Duration;

use bson::doc;
use serde_json::Value;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;

const SOON: Duration = Duration::from_secs(15);

const TOP: [&str; 9] = [
    "format",
    "link",
    "state",
    "pid",
    "since",
    "started_from",
    "clusters",
    "pipelines",
    "last_error",
];

const OF_A_PIPELINE: [&str; 13] = [
    "id",
    "phase",
    "waiting_on",
    "lag_seconds",
    "observed_through",
    "applied_through",
    "events_read_total",
    "operations_applied_total",
    "operations_applied_by_type",
    "conflicts_total",
    "identical_total",
    "dead_letters_total",
    "fence_conflicts_total",
];

const OF_A_CLUSTER: [&str; 6] = [
    "name",
    "set_name",
    "version",
    "reachable",
    "clock_skew_ms",
    "oplog_window_seconds",
];

fn missing(of: &Value, fields: &[&str]) -> Vec<String> {
    let absent = fields.iter().filter(|field| of.get(**field).is_none());
    absent.map(|field| field.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_the_contract_is_there_while_it_runs_and_after() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    for id in 0..100 {
        env.orders_a().insert_one(doc! { "_id": id }).await.unwrap();
    }
    assert_converged(&env, SOON).await;
    // The documents are there before the process has seen its own commit come back.
    let caught_up = |status: &Value| {
        let pipeline = &status["pipelines"][0];
        pipeline["lag_seconds"].as_f64() == Some(0.0)
            && pipeline["operations_applied_by_type"]["insert"] == 100
    };
    tandem.wait_status("no lag", SOON, caught_up).await;
    assert_eq!(tandem.pipeline("b-to-a")["operations_applied_total"], 0);
    for state in ["running", "stopped"] {
        let status = tandem.status();
        assert_eq!(status["state"], state);
        assert_eq!(status["format"], 1);
        assert_eq!(missing(&status, &TOP), [""; 0]);
        for side in ["a", "b"] {
            assert_eq!(missing(&status["clusters"][side], &OF_A_CLUSTER), [""; 0]);
        }
        for pipeline in status["pipelines"].as_array().expect("pipelines") {
            assert_eq!(missing(pipeline, &OF_A_PIPELINE), [""; 0]);
        }
        if tandem.is_running() {
            tandem.stop().await;
        }
    }
}

#[tokio::test]
async fn a_link_that_never_ran_has_a_status() {
    let env = TestEnv::start().await;
    let tandem = env.tandem(&env.link());
    let output = tandem.run(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(tandem.status()["state"], "never_run");
    assert!(tandem.conflicts(&[]).is_empty());
}

#[tokio::test]
async fn the_environment_wins_over_the_file_and_unknown_variables_are_errors() {
    let env = TestEnv::start().await;
    let mut tandem = env.tandem(&env.link());
    tandem.env("TANDEM_LINK__MODE", "sideways");
    let output = tandem.run(&["run"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("sideways"));
    let mut tandem = env.tandem(&env.link());
    tandem.env("TANDEM_LINK__MOOD", "good");
    let output = tandem.run(&["run"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("MOOD"));
}
