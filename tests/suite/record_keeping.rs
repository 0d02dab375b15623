//! Records by hand: brought back by somebody, exported, removed, a log that is full, and records that
//! cannot be written.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::Duration;

use bson::{Document, doc};
use serde_json::Value;

use crate::audit::{stderr, stdout};
use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::fail_points::FailPoint;
use crate::support::processes::send_signal;
use crate::support::skipped::skipped;
use crate::support::tandem::Tandem;
use crate::support::terminal::on_a_terminal;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(10);

/// An insert on each side under `id`; the one on eu loses.
async fn race(env: &TestEnv, tandem: &Tandem, id: i32, text: &str) {
    let of = |by: &str| doc! { "_id": id, "by": by, "text": text };
    tandem.sigstop();
    env.orders_a().insert_one(of("eu")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    env.orders_b().insert_one(of("us")).await.unwrap();
    tandem.sigcont();
}

async fn records_on(client: &mongodb::Client) -> Vec<Document> {
    use futures_util::TryStreamExt;
    let conflicts = client
        .database("__tandem")
        .collection::<Document>("conflicts");
    let cursor = conflicts.find(doc! {}).await.unwrap();
    cursor.try_collect().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_restores_is_on_record_and_exported_records_can_be_removed() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    for id in 1..=3 {
        race(&env, &tandem, id, "").await;
        assert_converged(&env, SOON).await;
    }
    let records = tandem.all_conflicts(&env).await;
    assert_eq!(records.len(), 3);

    let id = records[0]["id"].as_str().unwrap();
    let unasked = tandem.run(&["conflict", "restore", id]);
    assert_eq!(unasked.status.code(), Some(2), "no terminal to ask on");
    assert!(stderr(&unasked).contains("is now") && stderr(&unasked).contains("becomes"));
    let restored = tandem.run(&["conflict", "restore", id, "--yes"]);
    assert_eq!(restored.status.code(), Some(0), "{}", stderr(&restored));
    assert_converged(&env, SOON).await;
    let record = &tandem.conflicts(&["--status", "restored"])[0];
    let by = &record["restored"];
    assert!(
        by["user"].as_str().is_some_and(|user| !user.is_empty()),
        "{record:#}"
    );
    assert!(
        by["account"]
            .as_str()
            .unwrap()
            .contains("no authentication"),
        "{record:#}"
    );
    assert!(by["at"].is_string(), "{record:#}");
    let on_clusters = [
        records_on(env.a.client()).await,
        records_on(env.b.client()).await,
    ];
    let marked = on_clusters
        .iter()
        .flatten()
        .filter(|record| record.contains_key("restored"));
    assert!(marked.count() >= 1, "the cluster's record says so too");
    let story = stdout(&tandem.run(&["conflict", "show", id]));
    assert!(story.contains("brought the losing version back"), "{story}");

    watching_adds_lines_and_draws_on_a_terminal(&tandem);

    let third = records[2]["logged_at"].as_str().unwrap();
    let unasked = tandem.run(&["conflict", "prune", "--before", third]);
    assert_eq!(unasked.status.code(), Some(2));
    assert!(
        stderr(&unasked).contains("2 records"),
        "{}",
        stderr(&unasked)
    );
    assert_eq!(tandem.conflicts(&[]).len(), 3);
    let pruned = tandem.run(&["conflict", "prune", "--before", third, "--yes"]);
    assert_eq!(pruned.status.code(), Some(0), "{}", stderr(&pruned));
    assert_eq!(tandem.conflicts(&[]).len(), 1);
    let report = tandem.run(&["conflict-report", "--format", "json"]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    assert_eq!(
        report["complete_since"], third,
        "the log says from when on it is whole"
    );

    tandem.stop().await;
    removed_where_no_link_runs(&env, &tandem).await;
}

async fn removed_where_no_link_runs(env: &TestEnv, tandem: &Tandem) {
    let pruned = tandem.run(&["conflict", "prune", "--before", "0h", "--yes"]);
    assert_eq!(pruned.status.code(), Some(0), "{}", stderr(&pruned));
    assert!(tandem.conflicts(&[]).is_empty());
    assert!(records_on(env.a.client()).await.is_empty());
    assert!(records_on(env.b.client()).await.is_empty());
    let again = stdout(&tandem.run(&["conflict", "prune", "--before", "0h"]));
    assert!(again.contains("no records"), "{again}");
}

fn watching_adds_lines_and_draws_on_a_terminal(tandem: &Tandem) {
    for (arguments, expected) in [
        (&["status", "--watch", "100ms"][..], " a-to-b "),
        (&["status", "--watch", "100ms", "--json"], "\"pipelines\""),
    ] {
        let mut child = tandem
            .command(&[], arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines: Vec<String> = lines.take(4).map(Result::unwrap).collect();
        let told = lines.iter().filter(|line| line.contains(expected)).count();
        assert!(told >= 2, "{arguments:?}: {lines:#?}");
        assert!(
            !lines.concat().contains('\x1b'),
            "nothing a file would not want"
        );
        send_signal(child.id(), "INT");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
    let watching = ["status", "--watch", "100ms"];
    let Ok(mut terminal) = on_a_terminal(tandem, &watching)
        .stdout(Stdio::piped())
        .spawn()
    else {
        return skipped("on a terminal: there is no script(1)");
    };
    let drawn = until_drawn_again(terminal.stdout.take().unwrap());
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    assert_eq!(
        drawn.matches("\x1b[2J").count(),
        1,
        "cleared once: {drawn:?}"
    );
}

/// What a terminal was sent up to its third picture, the second one in the first one's place.
fn until_drawn_again(mut screen: impl Read) -> String {
    let mut drawn = String::new();
    let mut bytes = [0; 4096];
    while drawn.matches("\x1b[H").count() < 3 {
        let read = screen.read(&mut bytes).unwrap_or(0);
        assert_ne!(read, 0, "drawn again in place: {drawn:?}");
        drawn.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    drawn
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_conflict_log_stops_the_link_and_loses_nothing() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link().extra("[conflicts]\nbytes_max = 30000");
    let mut tandem = env.streaming(&link).await;
    let text = "x".repeat(4000);
    let mut races = 0;
    while tandem.is_running() {
        races += 1;
        assert!(races < 10, "it never stops");
        race(&env, &tandem, races, &text).await;
        wait_for("it is on record", SOON, || async {
            (tandem.conflicts(&[]).len() == races as usize).then_some(())
        })
        .await;
        // What a full log ends, it ends at once.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(tandem.wait_exit(SOON).await, 7);
    let log = tandem.log();
    assert!(log.contains("nearly full"), "{log}");
    assert!(
        log.contains("conflicts.bytes_max") && log.contains("conflict prune"),
        "{log}"
    );

    tandem.start();
    assert_eq!(
        tandem.wait_exit(Duration::from_secs(30)).await,
        7,
        "it is still full"
    );
    let kept = tandem.conflicts(&[]).len();
    assert!(kept >= 2, "{kept} records of {races} races");
    let pruned = tandem.run(&["conflict", "prune", "--before", "0h", "--yes"]);
    assert_eq!(pruned.status.code(), Some(0), "{}", stderr(&pruned));
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged(&env, SOON).await;
    let later = tandem.all_conflicts(&env).await.len();
    assert_eq!(
        kept + later,
        races as usize,
        "each loser was on record once"
    );
}

/// What overwrites the document of eu puts it on record in the same transaction, or does not. It may be
/// on record before, on us, where the pipeline from eu has its turn first.
#[tokio::test(flavor = "multi_thread")]
async fn where_no_record_can_be_written_nothing_is_overwritten() {
    const OUT_OF_DISK_SPACE: i32 = 14031;
    const UNAUTHORIZED: i32 = 13;
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let records = [&env.a, &env.b].map(|side| FailPoint::on(side, &["update", "insert"]));
    let refused = |code: i32| doc! { "errorCode": code, "namespace": "__tandem.conflicts" };
    let by = async |id: i32| {
        let found = env.orders_a().find_one(doc! { "_id": id }).await.unwrap();
        found.unwrap().get_str("by").unwrap().to_owned()
    };

    for side in &records {
        side.fail_always(refused(OUT_OF_DISK_SPACE)).await;
    }
    race(&env, &tandem, 1, "").await;
    let says = |status: &Value| status.to_string().contains("14031");
    tandem.wait_status("it says why it waits", SOON, says).await;
    assert_eq!(by(1).await, "eu");
    for side in &records {
        side.off().await;
    }
    assert_converged(&env, SOON).await;
    assert_eq!(by(1).await, "us");
    assert_eq!(tandem.all_conflicts(&env).await.len(), 1);

    for side in &records {
        side.fail_always(refused(UNAUTHORIZED)).await;
    }
    race(&env, &tandem, 2, "").await;
    assert_eq!(tandem.wait_exit(SOON).await, 4);
    assert_eq!(by(2).await, "eu");
    for side in &records {
        side.off().await;
    }
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged(&env, SOON).await;
    assert_eq!(by(2).await, "us");
    let losers = tandem.all_conflicts(&env).await;
    assert_eq!(losers.len(), 2);
    assert!(
        losers
            .iter()
            .all(|one| one["losing"]["document"]["by"] == "eu")
    );
    tandem.stop().await;
}
