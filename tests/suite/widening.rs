//! More namespaces on a link that exists: what is new is brought together first.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;

use crate::support::compare::assert_converged_by;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::Mongod;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

fn accounts(cluster: &Mongod) -> Collection<Document> {
    cluster.client().database("bank").collection("accounts")
}

async fn fill(cluster: &Mongod, ids: std::ops::Range<i32>, from: &str) {
    let documents = ids.map(|id| doc! { "_id": id, "from": from });
    accounts(cluster).insert_many(documents).await.unwrap();
}

fn including(env: &TestEnv, patterns: &[&str]) -> LinkConfig {
    let mut link = env.link();
    link.include = patterns.iter().map(|pattern| pattern.to_string()).collect();
    link
}

fn is_done(status: &Value) -> bool {
    status["initial_sync"]["mode"] == "resync" && status["initial_sync"]["state"] == "done"
}

#[tokio::test(flavor = "multi_thread")]
async fn newly_included_namespaces_are_brought_together_first_though_killed_on_the_way() {
    let env = TestEnv::start().await;
    fill(&env.a, 0..3000, "a").await;
    let shop_alone = including(&env, &[r"/^shop\./"]);
    env.streaming(&shop_alone).await.stop().await;
    // What is written while nobody looks belongs to it, too.
    fill(&env.b, 2900..3200, "b").await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();

    let both = including(&env, &[r"/^shop\./", "bank.*"]);
    let mut tandem = env.tandem(&both.clone().extra("operations_per_second_max = 2000"));
    tandem.start();
    let begun = |status: &Value| status["initial_sync"]["documents_done"].as_u64() > Some(500);
    tandem.wait_status("it is compared", SOON, begun).await;
    tandem.kill9();
    let mut tandem = env.tandem(&both);
    tandem.start();
    tandem.wait_status("it goes on", SOON, is_done).await;
    assert_converged_by(&tandem, &env, SOON).await;
    assert_eq!(
        accounts(&env.a).count_documents(doc! {}).await.unwrap(),
        3200
    );
    let lost = tandem.conflicts(&["--namespace", "bank.accounts"]);
    assert_eq!(
        lost.len(),
        100,
        "each document that did not stay is on record"
    );
    assert!(tandem.log().contains("newly included"));
    fill(&env.a, 5000..5001, "a").await;
    assert_converged_by(&tandem, &env, SOON).await;
    tandem.stop().await;

    // Fewer are accepted as they are, and coming back is widening again, on another host too.
    env.streaming(&including(&env, &["bank.*"]))
        .await
        .stop()
        .await;
    env.orders_a().insert_one(doc! { "_id": 2 }).await.unwrap();
    env.streaming(&including(&env, &["bank.*"]))
        .await
        .stop()
        .await;
    let mut link = both.clone();
    link.state_dir = "other-state".to_owned();
    let mut other = env.tandem_named("other.toml", &link);
    other.start();
    wait_for("what was missed arrives", SOON, || async {
        let found = env.orders_b().find_one(doc! { "_id": 2 }).await.unwrap();
        found.map(|_| ())
    })
    .await;
    other.wait_status("it is done", SOON, is_done).await;
    other.stop().await;
    // Nothing is new any more.
    let mut other = env.tandem_named("other.toml", &link);
    other.start();
    other.wait_until_streaming().await;
    assert_eq!(other.status()["initial_sync"], Value::Null);
    other.stop().await;
    assert_what_is_added_need_not_be_there_yet(&env, link).await;
}

async fn assert_what_is_added_need_not_be_there_yet(env: &TestEnv, mut link: LinkConfig) {
    link.include.push(r"/^depot\.[a-z]/".to_owned());
    let mut other = env.tandem_named("other.toml", &link);
    other.start();
    other.wait_status("it is done", SOON, is_done).await;
    let depot = env.a.client().database("depot").collection("parts");
    depot.insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged_by(&other, env, SOON).await;
    let parts = env
        .b
        .client()
        .database("depot")
        .collection::<Document>("parts");
    assert_eq!(parts.count_documents(doc! {}).await.unwrap(), 1);
    other.stop().await;
}
