//! What an auditor asks of the conflict report: why, how much, and what exactly.

use std::process::Output;
use std::time::Duration;

use bson::{DateTime, doc};
use serde_json::Value;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(10);

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Lets the servers' clocks move on, so that the next write is later for certain.
async fn next_millisecond() {
    let start = DateTime::now().timestamp_millis();
    wait_for("the clock moves on", SOON, || async {
        (DateTime::now().timestamp_millis() > start + 2).then_some(())
    })
    .await;
}

/// Two races over `disputed` and one over `other`, all won by us. Returns the records.
async fn races(env: &TestEnv, tandem: &Tandem) -> Vec<Value> {
    let (a, b) = (env.orders_a(), env.orders_b());
    for id in ["disputed", "other"] {
        a.insert_one(doc! { "_id": id, "x": 0, "same": "text" })
            .await
            .unwrap();
    }
    assert_converged(env, SOON).await;
    for round in 0..2 {
        tandem.sigstop();
        let set = |by: &str| doc! { "$set": { "x": round, "by": by } };
        let mine = a.update_one(doc! { "_id": "disputed" }, set("eu")).await;
        mine.unwrap();
        if round == 0 {
            a.update_one(doc! { "_id": "other" }, set("eu"))
                .await
                .unwrap();
        }
        next_millisecond().await;
        b.update_one(doc! { "_id": "disputed" }, set("us"))
            .await
            .unwrap();
        if round == 0 {
            b.delete_one(doc! { "_id": "other" }).await.unwrap();
        }
        tandem.sigcont();
        assert_converged(env, SOON).await;
    }
    tandem.all_conflicts(env).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_tells_how_much_was_lost_why_and_what_exactly() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let records = races(&env, &tandem).await;
    assert_eq!(records.len(), 3, "{records:#?}");
    tandem
        .wait_status("all is counted", SOON, |status| {
            let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
            let sum = |name: &str| {
                pipelines
                    .iter()
                    .filter_map(|p| p[name].as_u64())
                    .sum::<u64>()
            };
            sum("conflicts_total") == 3 && sum("events_read_total") == 8
        })
        .await;

    summary_counts_documents_and_the_share_of_all_writes(&tandem);
    filters_combine_and_pages_are_sorted(&tandem);
    one_conflict_is_told_in_full(&tandem, &records);
    a_mistyped_name_is_answered_with_the_nearest_one(&tandem);
    a_check_names_the_nearest_collection_where_a_pattern_names_none(&env);

    tandem.stop().await;
    let page = tandem.run(&["conflict-report", "--format", "html", "--limit", "2"]);
    let page = stdout(&page);
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<details class=\"one\"").count(), 2);
    assert!(page.contains("2 of 3 conflicts are told here"));
    summary_counts_documents_and_the_share_of_all_writes(&tandem);
}

fn summary_counts_documents_and_the_share_of_all_writes(tandem: &Tandem) {
    let summary = tandem.run(&["conflict-report", "--summary", "--format", "json"]);
    let summary: Value = serde_json::from_slice(&summary.stdout).unwrap();
    assert_eq!(summary["total"], 3);
    assert_eq!(summary["by_status"]["logged"], 3);
    assert_eq!(
        summary["top_documents"][0]["document_key"]["_id"],
        "disputed"
    );
    assert_eq!(summary["top_documents"][0]["count"], 2);
    assert_eq!(summary["top_documents_exact"], true);
    assert_eq!(summary["writes"]["lost_total"], 3);
    // Two inserts, six updates or deletes.
    assert_eq!(summary["writes"]["read_total"], 8);
    assert_eq!(summary["writes"]["lost_share"], 0.375);
}

fn filters_combine_and_pages_are_sorted(tandem: &Tandem) {
    let key = |record: &Value| record["document_key"]["_id"].as_str().unwrap().to_owned();
    let found = |arguments: &[&str]| -> Vec<String> {
        tandem.conflicts(arguments).iter().map(key).collect()
    };
    assert_eq!(
        found(&["--key", "dis*", "--status", "logged"]),
        ["disputed", "disputed"]
    );
    assert!(found(&["--key", "disputed", "--kind", "update_deleted"]).is_empty());
    assert_eq!(
        found(&[
            "--kind",
            "update_deleted",
            "--winner",
            "us",
            "--since",
            "1h"
        ]),
        ["other"]
    );
    assert!(found(&["--status", "restored"]).is_empty());
    assert_eq!(found(&["--sort", "kind", "--limit", "1"]), ["other"]);
    assert_eq!(found(&["--reverse", "--limit", "1"]), ["disputed"]);
    assert_eq!(
        found(&["--sort", "kind", "--offset", "1"]),
        ["disputed", "disputed"]
    );
    let page = tandem.run(&["conflict-report", "--format", "json", "--limit", "2"]);
    let page: Value = serde_json::from_slice(&page.stdout).unwrap();
    assert_eq!(page["next_offset"], 2);
    let code = |arguments: &[&str]| tandem.run(arguments).status.code();
    // The record that matches is not on the page.
    let none_shown = ["conflict-report", "--fail-if-any", "--offset", "9"];
    assert_eq!(code(&none_shown), Some(6));
    assert_eq!(
        code(&[&none_shown[..], &["--status", "overturned"]].concat()),
        Some(0)
    );
}

fn one_conflict_is_told_in_full(tandem: &Tandem, records: &[Value]) {
    let disputed = |record: &&Value| record["document_key"]["_id"] == "disputed";
    let id = records.iter().find(disputed).unwrap()["id"]
        .as_str()
        .unwrap();
    let text = stdout(&tandem.run(&["conflict", "show", id]));
    for part in [
        "eu, lost",
        "us, won",
        "by the servers' clocks us wrote",
        "the whole document of us",
    ] {
        assert!(text.contains(part), "{part} in:\n{text}");
    }
    let marked = |sign: &str, field: &str| {
        let row = text
            .lines()
            .find(|line| line.split_whitespace().take(2).eq([sign, field]));
        assert!(row.is_some(), "{sign} {field} in:\n{text}");
    };
    marked("≠", "by");
    marked("same", "\"text\"");
    let json = tandem.run(&["conflict", "show", id, "--json", "--now"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["record"]["id"], id);
    assert!(
        json["now"] == "equal" || json["now"] == "equal_to_winner",
        "{json:#}"
    );
    let settled_by = json["record"]["settled_by"].as_str().unwrap();
    let since = &json["explanation"]["agreed_since"];
    // Known only where the winner's own pipeline has settled it.
    assert_eq!(since.is_null(), settled_by == "a-to-b", "{json:#}");
    let unknown = tandem.run(&["conflict", "show", "0123"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("hint:"), "{}", stderr(&unknown));
}

fn a_check_names_the_nearest_collection_where_a_pattern_names_none(env: &TestEnv) {
    let lines = |include: &[&str]| {
        let mut link = env.link();
        link.include = include.iter().map(|name| (*name).to_owned()).collect();
        link.state_dir = "never-run".to_owned();
        let checked = env.tandem_named("mistyped.toml", &link).run(&["check"]);
        let lines = stdout(&checked);
        let found = lines.lines().filter(|line| line.contains("names no coll"));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    let found = lines(&["shpo.*"]);
    assert!(found[0].contains("shpo.* names no collection of either side; did you mean shop.*?"));
    assert!(lines(&["shop.*", "bank.*"])[0].contains("bank.* names no collection of either side"));
    // That nothing is included is told for each side.
    assert!(lines(&["bank.*"]).is_empty());
}

fn a_mistyped_name_is_answered_with_the_nearest_one(tandem: &Tandem) {
    for (arguments, code) in [
        (&["conflict-report", "--namespace", "shop.order"][..], 0),
        (&["verify", "--namespace", "shop.order"], 2),
        (&["resync", "--namespace", "shop.order"], 2),
    ] {
        let output = tandem.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        let said = stderr(&output);
        assert!(
            said.contains("did you mean shop.orders?"),
            "{arguments:?}: {said}"
        );
    }
    let cluster = stderr(&tandem.run(&["conflict-report", "--winner", "uss"]));
    assert!(cluster.contains("did you mean us?"), "{cluster}");
    let command = stderr(&tandem.run(&["confict-report"]));
    assert!(command.contains("conflict-report"), "{command}");
}
