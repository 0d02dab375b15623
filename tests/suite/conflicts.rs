//! Who wins a race, what the record of the loser says, and how a loser is brought back.

use std::time::Duration;

use bson::{DateTime, Document, RawDocumentBuf, doc, rawdoc};
use mongodb::Collection;
use serde_json::Value;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv, raw_by_id};
use crate::support::mongod::MongodOptions;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

/// A race of two writes that tandem sees at once: it sleeps while they are made.
struct Race {
    env: TestEnv,
    tandem: Tandem,
}

impl Race {
    async fn over(link: impl Fn(LinkConfig) -> LinkConfig) -> Self {
        Self::between(TestEnv::start().await, link).await
    }

    async fn between(env: TestEnv, link: impl Fn(LinkConfig) -> LinkConfig) -> Self {
        env.create_on_both("shop", "orders").await;
        let tandem = env.streaming(&link(env.link())).await;
        Self { env, tandem }
    }

    /// Puts a document on both sides first.
    async fn given(&self, document: Document) {
        let id = document.get("_id").cloned().expect("an _id");
        self.env.orders_a().insert_one(document).await.unwrap();
        wait_for("the document arrives", SOON, || {
            raw_by_id(&self.env.orders_b(), id.clone())
        })
        .await;
        assert_converged(&self.env, SOON).await;
    }

    /// Runs `writes` with tandem stopped in its tracks, then waits until all has settled.
    async fn run(&self, writes: impl Future<Output = ()>) -> Vec<Value> {
        self.tandem.sigstop();
        writes.await;
        self.tandem.sigcont();
        assert_converged(&self.env, SOON).await;
        self.tandem.all_conflicts(&self.env).await
    }

    async fn on_a(&self) -> Option<RawDocumentBuf> {
        raw_by_id(&self.env.orders_a(), 1).await
    }
}

/// Lets the server's wall clock move on, so that the next write is later for certain.
async fn next_millisecond() {
    let start = DateTime::now().timestamp_millis();
    wait_for("the clock moves on", SOON, || async {
        (DateTime::now().timestamp_millis() > start + 2).then_some(())
    })
    .await;
}

async fn set(orders: Collection<Document>, fields: Document) {
    let update = orders.update_one(doc! { "_id": 1 }, doc! { "$set": fields });
    assert_eq!(update.await.unwrap().matched_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_later_write_wins_on_both_sides_and_the_loser_is_kept_whole() {
    let race = Race::over(|link| link).await;
    race.given(doc! { "_id": 1, "x": 0 }).await;
    let (a, b) = (race.env.orders_a(), race.env.orders_b());
    let records = race
        .run(async {
            set(a, doc! { "x": 1, "by": "a" }).await;
            next_millisecond().await;
            set(b, doc! { "x": 2 }).await;
        })
        .await;
    assert_eq!(race.on_a().await, Some(rawdoc! { "_id": 1, "x": 2 }));
    assert_eq!(records.len(), 1, "{records:#?}");
    let record = &records[0];
    for (field, expected) in [
        ("kind", "update_origin_differs"),
        ("winner", "us"),
        ("winner_cluster", "b"),
        ("reason", "later"),
        ("pipeline", "a-to-b"),
        ("namespace", "shop.orders"),
        ("policy", "last-write-wins"),
        ("status", "logged"),
    ] {
        assert_eq!(record[field], expected, "{field}");
    }
    assert_eq!(record["losing"]["operation"], "update");
    assert_eq!(record["losing"]["document"]["by"], "a");
    assert_eq!(record["winning"]["document"]["x"]["$numberInt"], "2");
}

/// The kind on record after `one` on a and, later, `other` on b.
async fn kind_of(given: bool, one: &str, other: &str) -> String {
    let race = Race::over(|link| link).await;
    if given {
        race.given(doc! { "_id": 1, "x": 0 }).await;
    }
    let (a, b) = (race.env.orders_a(), race.env.orders_b());
    let records = race
        .run(async {
            act(a, one, 1).await;
            next_millisecond().await;
            act(b, other, 2).await;
        })
        .await;
    assert_eq!(records.len(), 1, "{records:#?}");
    records[0]["kind"].as_str().unwrap_or_default().to_owned()
}

async fn act(orders: Collection<Document>, what: &str, x: i32) {
    match what {
        "insert" => drop(orders.insert_one(doc! { "_id": 1, "x": x }).await.unwrap()),
        "delete" => drop(orders.delete_one(doc! { "_id": 1 }).await.unwrap()),
        _ => set(orders, doc! { "x": x }).await,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pair_of_operations_has_its_kind() {
    for (given, one, other, kind) in [
        (false, "insert", "insert", "insert_exists"),
        (true, "update", "update", "update_origin_differs"),
        (true, "update", "delete", "update_deleted"),
        (true, "delete", "update", "delete_origin_differs"),
    ] {
        assert_eq!(kind_of(given, one, other).await, kind, "{one} then {other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_with_equal_results_are_no_conflict() {
    let race = Race::over(|link| link).await;
    let (a, b) = (race.env.orders_a(), race.env.orders_b());
    let records = race
        .run(async {
            act(a, "insert", 1).await;
            next_millisecond().await;
            act(b, "insert", 1).await;
        })
        .await;
    assert!(records.is_empty(), "{records:#?}");
    race.tandem
        .wait_status("the equal pair is counted", SOON, |status| {
            let pipelines = status["pipelines"].as_array();
            pipelines
                .into_iter()
                .flatten()
                .any(|p| p["identical_total"].as_u64() > Some(0))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ties_go_to_the_configured_cluster_and_all_else_to_the_later_write() {
    let race = Race::over(|link| link.extra("[conflicts]\ntie = \"b\"")).await;
    let (a, b) = (race.env.orders_a(), race.env.orders_b());
    let records = race
        .run(async {
            for id in 0..100 {
                let (one, other) = (doc! { "_id": id, "x": 1 }, doc! { "_id": id, "x": 2 });
                let (one, other) = tokio::join!(a.insert_one(one), b.insert_one(other));
                one.unwrap();
                other.unwrap();
            }
        })
        .await;
    assert_eq!(records.len(), 100);
    let wall = |side: &Value| {
        let text = side["wall_time"].as_str().expect("a time");
        let time = bson::DateTime::parse_rfc3339_str(text).expect("RFC 3339");
        time.timestamp_millis()
    };
    let mut ties = 0;
    for record in &records {
        let (won, lost) = (wall(&record["winning"]), wall(&record["losing"]));
        assert!(won >= lost, "{record:#}");
        if won == lost {
            ties += 1;
            assert_eq!(record["winner_cluster"], "b", "{record:#}");
            assert_eq!(record["reason"], "tie", "{record:#}");
        }
    }
    println!("{ties} ties");
    assert!(ties > 0, "nobody wrote at the same time");
}

/// The `by` that both sides end with after an earlier write on a and a later one on b.
async fn winner(conflicts: &str, a_fields: Document, b_fields: Document) -> String {
    let race = Race::over(|link| link.extra(&format!("[conflicts]\n{conflicts}"))).await;
    race.given(doc! { "_id": 1, "x": 0 }).await;
    let (a, b) = (race.env.orders_a(), race.env.orders_b());
    let records = race
        .run(async {
            set(a, a_fields).await;
            next_millisecond().await;
            set(b, b_fields).await;
        })
        .await;
    assert_eq!(records.len(), 1, "{records:#?}");
    let found = race.on_a().await.expect("the document");
    found.get_str("by").expect("by").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preferred_cluster_wins_whenever_it_wrote() {
    let (a, b) = (doc! { "by": "a" }, doc! { "by": "b" });
    assert_eq!(
        winner("policy = \"prefer-a\"", a.clone(), b.clone()).await,
        "a"
    );
    assert_eq!(winner("policy = \"prefer-b\"", a, b).await, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_field_decides_before_the_wall_time() {
    let version = |ms: i64| DateTime::from_millis(1_700_000_000_000 + ms);
    let a = doc! { "by": "a", "version": version(2) };
    let b = doc! { "by": "b", "version": version(1) };
    let field = "version_field = \"version\"";
    assert_eq!(winner(field, a.clone(), b).await, "a");
    // Without the field an event is as late as its wall time, which is long after these.
    assert_eq!(winner(field, a, doc! { "by": "b" }).await, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_loser_is_written_again_and_arrives_on_both_sides() {
    let race = Race::over(|link| link).await;
    race.given(doc! { "_id": 1, "x": 0 }).await;
    let (a, b) = (race.env.orders_a(), race.env.orders_b());
    let records = race
        .run(async {
            set(a, doc! { "x": 1 }).await;
            next_millisecond().await;
            set(b, doc! { "x": 2 }).await;
        })
        .await;
    let id = records[0]["id"].as_str().or(records[0]["_id"].as_str());
    let output = race
        .tandem
        .run(&["conflict", "restore", "--yes", id.expect("an id")]);
    assert_eq!(output.status.code(), Some(0));
    for orders in [race.env.orders_a(), race.env.orders_b()] {
        wait_for("the loser is back", SOON, || async {
            (raw_by_id(&orders, 1).await == Some(rawdoc! { "_id": 1, "x": 1 })).then_some(())
        })
        .await;
    }
    assert_eq!(race.tandem.conflicts(&[])[0]["status"], "restored");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_is_the_same_while_tandem_runs_and_when_it_does_not() {
    let mut race = Race::over(|link| link).await;
    let (a, b) = (race.env.orders_a(), race.env.orders_b());
    let running = race
        .run(async {
            act(a, "insert", 1).await;
            next_millisecond().await;
            act(b, "insert", 2).await;
        })
        .await;
    race.tandem.stop().await;
    assert_eq!(race.tandem.conflicts(&[]), running);
    assert!(race.tandem.conflicts(&["--winner", "eu"]).is_empty());
    assert_eq!(race.tandem.conflicts(&["--winner", "us"]), running);
    let lines = race.tandem.run(&["conflict-report", "--format", "ndjson"]);
    assert_eq!(String::from_utf8_lossy(&lines.stdout).lines().count(), 1);
    let csv = race.tandem.run(&["conflict-report", "--format", "csv"]);
    assert_eq!(String::from_utf8_lossy(&csv.stdout).lines().count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loser_too_large_for_one_record_comes_back_byte_for_byte_from_the_clusters_alone() {
    const BYTES: usize = 16 * 1024 * 1024 - 100;
    const LATE: Duration = Duration::from_secs(60);
    let env = TestEnv::start_with(
        MongodOptions::named("eu-set").with_large_cache(),
        MongodOptions::named("us-set").with_large_cache(),
    )
    .await;
    let slow = |link: LinkConfig| link.extra("transaction_time_max = \"20s\"");
    let mut race = Race::between(env, slow).await;
    let of = |text: &str| doc! { "_id": 1, "text": text.repeat(BYTES) };
    race.tandem.sigstop();
    race.env.orders_a().insert_one(of("a")).await.unwrap();
    next_millisecond().await;
    race.env.orders_b().insert_one(of("b")).await.unwrap();
    let lost = RawDocumentBuf::try_from(&of("a")).unwrap();
    race.tandem.sigcont();
    assert_converged(&race.env, LATE).await;
    assert_ne!(race.on_a().await, Some(lost.clone()));

    race.tandem.stop().await;
    std::fs::remove_dir_all(race.env.path("tandem-state")).unwrap();
    race.tandem.start();
    race.tandem.wait_until_streaming().await;
    let records = race.tandem.conflicts(&[]);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["kind"], "insert_exists");
    for side in ["losing", "winning"] {
        let text = records[0][side]["document"]["text"].as_str();
        assert_eq!(text.map(str::len), Some(BYTES), "{side}");
    }
    let id = records[0]["id"].as_str().or(records[0]["_id"].as_str());
    let output = race
        .tandem
        .run(&["conflict", "restore", "--yes", id.expect("an id")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(race.on_a().await, Some(lost));
    assert_converged(&race.env, LATE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_removed_everywhere_once_they_are_old() {
    let race = Race::over(|link| link.extra("[conflicts]\nretention = \"3s\"")).await;
    let (a, b) = (race.env.orders_a(), race.env.orders_b());
    let records = race
        .run(async {
            act(a, "insert", 1).await;
            next_millisecond().await;
            act(b, "insert", 2).await;
        })
        .await;
    assert_eq!(records.len(), 1);
    wait_for("the record is gone", SOON, || async {
        race.tandem.conflicts(&[]).is_empty().then_some(())
    })
    .await;
    for server in [&race.env.a, &race.env.b] {
        let conflicts = server.client().database("__tandem");
        let conflicts = conflicts.collection::<Document>("conflicts");
        assert_eq!(conflicts.count_documents(doc! {}).await.unwrap(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_too_far_in_the_future_stops_the_link() {
    let version = "[conflicts]\nversion_field = \"version\"\nfuture_max = \"1h\"";
    let mut race = Race::over(|link| link.extra(version)).await;
    let ahead = |hours: i64| {
        let ms = DateTime::now().timestamp_millis() + hours * 3_600_000;
        DateTime::from_millis(ms)
    };
    let row = doc! { "_id": 1, "version": ahead(0) };
    race.given(row).await;
    set(race.env.orders_a(), doc! { "version": ahead(2) }).await;
    // Nobody reads a any more, and the lanes into it must not wait for their echo.
    let soon = Duration::from_secs(10);
    assert_eq!(race.tandem.wait_exit(soon).await, 4);
    assert!(race.tandem.log().contains("future"));
}

/// Many large documents at once are more than one command holds.
#[tokio::test(flavor = "multi_thread")]
async fn many_large_documents_in_conflict_converge() {
    const DOCUMENTS: i32 = 24;
    let race = Race::over(|link| link.lanes(1)).await;
    let (a, b) = (race.env.orders_a(), race.env.orders_b());
    for id in 1..=DOCUMENTS {
        let row = doc! { "_id": id, "text": "x".repeat(1_000_000) };
        a.insert_one(row).await.unwrap();
    }
    assert_converged(&race.env, SOON).await;
    let records = race
        .run(async {
            let set = |by: &str| doc! { "$set": { "by": by } };
            a.update_many(doc! {}, set("a")).await.unwrap();
            b.update_many(doc! {}, set("b")).await.unwrap();
        })
        .await;
    assert_eq!(records.len(), DOCUMENTS as usize);
}
