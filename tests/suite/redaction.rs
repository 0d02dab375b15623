//! Redacted values are nowhere: not on the clusters, not on this host, in no report and no log.

use std::path::Path;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;

use crate::audit::{stderr, stdout};
use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(10);
/// What must be found in the documents of applications alone.
const SECRET: &str = "4111-1111-9999";

/// Bytes of everything that tandem keeps on a cluster.
async fn own_state(client: &mongodb::Client) -> Vec<u8> {
    let database = client.database("__tandem");
    let mut bytes = Vec::new();
    for name in database.list_collection_names().await.unwrap() {
        let cursor = database
            .collection::<RawDocumentBuf>(&name)
            .find(doc! {})
            .await;
        let found: Vec<RawDocumentBuf> = cursor.unwrap().try_collect().await.unwrap();
        bytes.extend(found.iter().flat_map(|one| one.as_bytes().to_vec()));
    }
    bytes
}

fn files_of(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => bytes.extend(files_of(&path)),
            // A socket is no file to be read.
            false => bytes.extend(std::fs::read(&path).unwrap_or_default()),
        }
    }
    bytes
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// An update of eu that loses against one of us, and an insert on eu that us refuses.
async fn losers(env: &TestEnv, tandem: &Tandem) {
    let (a, b) = (env.orders_a(), env.orders_b());
    a.insert_one(doc! { "_id": 1, "u": 1, "people": [{ "ssn": SECRET, "n": 1 }] })
        .await
        .unwrap();
    assert_converged(env, SOON).await;
    tandem.sigstop();
    let lost = doc! { "$set": { "card": SECRET, "people.0.ssn": SECRET, "by": "eu" } };
    a.update_one(doc! { "_id": 1 }, lost).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    let won = doc! { "$set": { "card": format!("{SECRET}-us"), "by": "us" } };
    b.update_one(doc! { "_id": 1 }, won).await.unwrap();
    tandem.sigcont();
    assert_converged(env, SOON).await;
    a.insert_one(doc! { "_id": 2, "u": 1, "card": SECRET })
        .await
        .unwrap();
    wait_for("both are on record", SOON, || async {
        (tandem.conflicts(&[]).len() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redacted_value_is_nowhere_but_in_the_documents_themselves() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let unique = IndexOptions::builder().unique(true).build();
    let index = IndexModel::builder()
        .keys(doc! { "u": 1 })
        .options(unique)
        .build();
    env.orders_b().create_index(index).await.unwrap();
    let link = env
        .link()
        .extra("[conflicts]\nredact = [\"card\", \"*.ssn\"]");
    let mut tandem = env.streaming(&link).await;
    losers(&env, &tandem).await;

    let json = stdout(&tandem.run(&["conflict-report", "--format", "json"]));
    let html = stdout(&tandem.run(&["conflict-report", "--format", "html"]));
    assert!(json.contains("__redacted") && html.contains("__redacted"));
    assert!(
        holds(json.as_bytes(), "\"by\":\"eu\""),
        "the rest is there: {json}"
    );
    let lost = &tandem.conflicts(&["--kind", "update_origin_differs"])[0];
    assert_eq!(lost["losing"]["document"]["card"]["__redacted"], "string");
    assert_eq!(
        lost["redacted"][0],
        serde_json::json!({ "path": "card", "differs": true })
    );
    let id = lost["id"].as_str().unwrap();
    let shown = stdout(&tandem.run(&["conflict", "show", id]));
    assert!(shown.contains('≠'), "{shown}");
    let now = stdout(&tandem.run(&["conflict", "show", id, "--now"]));
    assert!(now.contains("cannot tell"), "{now}");
    let refused = tandem.run(&["conflict", "restore", "--yes", id]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("card"), "{}", stderr(&refused));
    let letters = tandem.run(&["dead-letter", "list", "--json"]);

    tandem.stop().await;
    let kept = [
        ("the report", json.into_bytes()),
        ("the page", html.into_bytes()),
        ("one conflict", shown.into_bytes()),
        ("dead letters", letters.stdout),
        ("the log", tandem.log().into_bytes()),
        ("the state directory", files_of(&env.path("tandem-state"))),
        ("eu", own_state(env.a.client()).await),
        ("us", own_state(env.b.client()).await),
    ];
    for (place, bytes) in kept {
        assert!(!bytes.is_empty(), "{place} was read at all");
        assert!(!holds(&bytes, SECRET), "{place} holds it");
    }
    let document: Option<Document> = env.orders_a().find_one(doc! { "_id": 2 }).await.unwrap();
    assert_eq!(document.unwrap().get_str("card").unwrap(), SECRET);
}
