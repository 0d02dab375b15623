//! Documents at the limits of what a server takes: its nesting, its size, its change stream.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, cstr, doc, rawdoc};
use mongodb::Collection;

use crate::support::compare::{assert_converged, assert_converged_by};
use crate::support::env::{LinkConfig, TestEnv, raw_by_id};
use crate::support::mongod::MongodOptions;
use crate::support::tandem::Tandem;

const SOON: Duration = Duration::from_secs(30);
/// Documents of 16 MB are written, read and compared on a busy machine.
const LATE: Duration = Duration::from_secs(60);
/// A document of one level more is refused.
const DEEPEST: usize = 180;
/// The largest document that a server stores for somebody.
const LARGEST: usize = 16 * 1024 * 1024;

/// Of so many levels, lists among them.
fn nested(levels: usize, innermost: Document) -> Document {
    let mut left = levels - 1;
    let mut whole = innermost;
    while left > 0 {
        let in_list = left % 3 == 2;
        left -= 1 + usize::from(in_list);
        whole = match in_list {
            true => doc! { "l": [whole] },
            false => doc! { "d": whole },
        };
    }
    whole
}

fn deep(id: i32, levels: usize, bottom: &str) -> Document {
    let mut document = doc! { "_id": id };
    document.extend(nested(levels, doc! { "bottom": bottom }));
    document
}

/// Of so many bytes.
fn full(id: impl Into<bson::Bson>, bytes: usize, text: &str) -> Document {
    let mut document = doc! { "_id": id.into(), "x": "" };
    let around = RawDocumentBuf::try_from(&document).unwrap();
    document.insert("x", text.repeat(bytes - around.as_bytes().len()));
    document
}

/// Both sides write while tandem stands still, `b` last.
async fn race(tandem: &Tandem, on_a: impl Future<Output = ()>, on_b: impl Future<Output = ()>) {
    tandem.sigstop();
    on_a.await;
    tokio::time::sleep(Duration::from_millis(3)).await;
    on_b.await;
    tandem.sigcont();
}

fn report(tandem: &Tandem, arguments: &[&str]) -> String {
    let output = tandem.run(arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_as_deep_as_a_server_takes_converge_with_one_record_each() {
    /// The deepest one, and some that fit into a record, or into it and not into its event.
    const RACES: i32 = 6;
    const SECRET: &str = "4111-1111";
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link().extra("[conflicts]\nredact = [\"*.secret\"]");
    let mut tandem = env.streaming(&link).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    let too_deep = a.insert_one(deep(0, DEEPEST + 1, "x")).await;
    assert!(too_deep.is_err(), "a server takes more than it did");
    let insert = async |orders: &Collection<Document>, by: &str| {
        for id in 1..=RACES {
            let levels = DEEPEST + 1 - id as usize;
            orders.insert_one(deep(id, levels, by)).await.unwrap();
        }
        let key = nested(DEEPEST - 1, doc! { "key": 1 });
        let secret = nested(DEEPEST - 1, doc! { "secret": SECRET, "by": by });
        let row = doc! { "_id": key, "x": secret };
        orders.insert_one(row).await.unwrap();
    };
    race(&tandem, insert(&a, "a"), insert(&b, "b")).await;
    assert_converged_by(&tandem, &env, SOON).await;
    assert_eq!(tandem.total("dead_letters_total"), 0);

    let all = |format: &'static str| ["conflict-report", "--format", format];
    let count = |text: &str, what: &str| text.matches(what).count();
    let json = report(&tandem, &all("ndjson"));
    let records = RACES as usize + 1;
    assert_eq!(count(&json, "\"insert_exists\""), records);
    // Both versions and the event.
    let lost = r#""bottom":"a""#;
    assert_eq!(count(&json, lost), 2 * RACES as usize, "{json:.200}");
    for format in ["json", "csv", "html", "table"] {
        let text = report(&tandem, &all(format));
        assert!(count(&text, "insert_exists") >= records, "{format}");
        assert_eq!(count(&text, SECRET), 0, "{format}");
    }
    // The lost state directory comes back whole from the clusters.
    tandem.stop().await;
    std::fs::remove_dir_all(env.path("tandem-state")).unwrap();
    tandem.start();
    tandem.wait_until_streaming().await;
    let again = report(&tandem, &all("ndjson"));
    assert_eq!(again.len(), json.len());
    assert_eq!(count(&again, lost), 2 * RACES as usize);
    assert_eq!(count(&again, SECRET), 0);
    let newest = raw_by_id(&a, 1).await.unwrap();
    let id = |record: &str| record.split('"').nth(3).unwrap().to_owned();
    let of_first = json
        .lines()
        .find(|line| line.contains(r#""document_key":{"_id":{"$numberInt":"1"}}"#));
    let restored = [
        "conflict",
        "restore",
        "--yes",
        &id(of_first.expect("a record")),
    ];
    report(&tandem, &restored);
    assert_converged(&env, SOON).await;
    let lost = RawDocumentBuf::try_from(&deep(1, DEEPEST, "a")).unwrap();
    assert_ne!(newest, lost);
    assert_eq!(raw_by_id(&a, 1).await, Some(lost));
    tandem.stop().await;
}

/// At the top, in a document and in a list below.
fn with_names_twice(id: i32, by: &str) -> RawDocumentBuf {
    let twice = |mut document: RawDocumentBuf, more: RawDocumentBuf| {
        document.append(cstr!("by"), by);
        document.append(cstr!("in"), more);
        document.append(cstr!("by"), format!("{by} again"));
        document
    };
    let inner = || twice(rawdoc! { "n": 1 }, rawdoc! { "n": 2 });
    let list = rawdoc! { "list": [inner(), 5] };
    twice(
        rawdoc! { "_id": id, "first": inner() },
        twice(list, inner()),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_stand_twice_are_kept_in_a_conflict_and_in_what_is_restored() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    let raw = |orders: &Collection<Document>| orders.clone_with_type::<RawDocumentBuf>();
    let (raw_a, raw_b) = (raw(&a), raw(&b));
    let (by_a, by_b) = (with_names_twice(1, "a"), with_names_twice(1, "b"));
    // What no plain replacement stores.
    let dollar = |by: &str| {
        let mut document = with_names_twice(2, by);
        document.append(cstr!("$d"), 1);
        document
    };
    race(
        &tandem,
        async { drop(raw_a.insert_many([&by_a, &dollar("a")]).await.unwrap()) },
        async { drop(raw_b.insert_many([&by_b, &dollar("b")]).await.unwrap()) },
    )
    .await;
    assert_converged_by(&tandem, &env, SOON).await;
    assert_eq!(raw_by_id(&a, 1).await, Some(by_b.clone()));
    assert_eq!(raw_by_id(&a, 2).await, Some(dollar("b")));
    let json = report(&tandem, &["conflict-report", "--format", "ndjson"]);
    for again in [r#""by":"a again""#, r#""by":"b again""#] {
        assert!(json.matches(again).count() >= 4, "{json}");
    }

    // From the clusters alone, as a replacement, and as the base of a delta.
    tandem.stop().await;
    std::fs::remove_dir_all(env.path("tandem-state")).unwrap();
    tandem.start();
    tandem.wait_until_streaming().await;
    let records = tandem.conflicts(&[]);
    let first = |record: &&serde_json::Value| record["document_key"]["_id"]["$numberInt"] == "1";
    let of_first = records.iter().find(first).expect("a record");
    let id = of_first["id"].as_str().unwrap().to_owned();
    report(&tandem, &["conflict", "restore", "--yes", &id]);
    assert_converged_by(&tandem, &env, SOON).await;
    assert_eq!(raw_by_id(&a, 1).await, Some(by_a.clone()));
    let set = |by: &'static str| doc! { "$set": { "by": by, "in.n": 7 } };
    race(
        &tandem,
        async { drop(a.update_one(doc! { "_id": 1 }, set("x")).await.unwrap()) },
        async { drop(b.update_one(doc! { "_id": 1 }, set("y")).await.unwrap()) },
    )
    .await;
    assert_converged_by(&tandem, &env, SOON).await;
    let now = raw_by_id(&a, 1).await.unwrap();
    let names: Vec<_> = now
        .iter_elements()
        .map(|field| field.unwrap().key().to_string())
        .collect();
    assert_eq!(names, ["_id", "first", "by", "in", "by"]);
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
}

/// Such a document cannot take the field of a touch.
#[tokio::test(flavor = "multi_thread")]
async fn documents_of_the_largest_size_converge_whether_they_are_the_same_or_not() {
    let env = TestEnv::start_with(
        MongodOptions::named("eu-set").with_large_cache(),
        MongodOptions::named("us-set").with_large_cache(),
    )
    .await;
    env.create_on_both("shop", "orders").await;
    let slow = env.link().extra("transaction_time_max = \"20s\"");
    let mut tandem = env.streaming(&slow).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    race(
        &tandem,
        async {
            a.insert_one(full(1, LARGEST, "s")).await.unwrap();
            a.insert_one(full(2, LARGEST, "a")).await.unwrap();
            a.insert_one(full(3, LARGEST - 16, "s")).await.unwrap();
        },
        async {
            b.insert_one(full(1, LARGEST, "s")).await.unwrap();
            b.insert_one(full(2, LARGEST, "b")).await.unwrap();
            b.insert_one(full(3, LARGEST - 16, "s")).await.unwrap();
        },
    )
    .await;
    assert_converged_by(&tandem, &env, LATE).await;
    let records = tandem.all_conflicts(&env).await;
    assert_eq!(records.len(), 1, "{}", tandem.tail());
    assert_eq!(records[0]["document_key"]["_id"]["$numberInt"], "2");
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
    let run = ["run", "--until-caught-up", "--timeout", "60s"];
    report(&tandem, &run);
}

/// An event holds the key twice, and so does the token, each half as long as the key again.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_no_stream_delivers_ends_the_link_and_a_resync_goes_past_it() {
    const MB: usize = 1024 * 1024;
    let env = TestEnv::start_with(
        MongodOptions::named("eu-set").with_large_cache(),
        MongodOptions::named("us-set").with_large_cache(),
    )
    .await;
    env.create_on_both("shop", "orders").await;
    let link: LinkConfig = env.link().extra("transaction_time_max = \"20s\"");
    let mut tandem = env.streaming(&link).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    for number in 0..4 {
        let id = format!("{number}{}", "k".repeat(5 * MB / 2));
        a.insert_one(doc! { "_id": id }).await.unwrap();
    }
    assert_converged_by(&tandem, &env, LATE).await;
    // Two of these fit into an answer, and with the token of the last one they do not.
    tandem.sigstop();
    a.delete_many(doc! {}).await.unwrap();
    tandem.sigcont();
    assert_converged_by(&tandem, &env, LATE).await;
    assert!(tandem.log().contains("one by one"), "{}", tandem.tail());
    // One that its own token makes too large, at the end of the oplog.
    let long = "l".repeat(7 * MB / 2);
    a.insert_one(doc! { "_id": long }).await.unwrap();
    assert_converged_by(&tandem, &env, LATE).await;
    a.delete_many(doc! {}).await.unwrap();
    assert_converged_by(&tandem, &env, LATE).await;

    // Its event is too large whatever ends the answer: were it the token alone, one that ends with
    // another, behind what the stream does not show, would deliver it.
    let key = "k".repeat(5400);
    for (what, document) in [
        (
            "a full document with a long key",
            full(key.as_str(), LARGEST, "x"),
        ),
        ("a long key alone", doc! { "_id": "l".repeat(6 * MB) }),
    ] {
        a.insert_one(document).await.unwrap();
        for again in [false, true] {
            if again {
                std::fs::remove_file(tandem.log_path()).unwrap();
                tandem.start();
            }
            let code = tandem.wait_exit(LATE).await;
            assert_eq!(code, 5, "{what}: {}", tandem.tail());
        }
        let said = tandem.tail();
        for part in ["change stream of eu", "16 MB", "tandem resync"] {
            assert!(said.contains(part), "{what}: {said}");
        }
        b.insert_one(doc! { "while": what }).await.unwrap();
        report(&tandem, &["resync"]);
        tandem.start();
        tandem.wait_until_streaming().await;
        assert_converged_by(&tandem, &env, LATE).await;
    }
    tandem.stop().await;
}
