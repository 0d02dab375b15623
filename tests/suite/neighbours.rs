//! Links that share a cluster with a third one.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;

use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::{Mongod, MongodOptions};
use crate::support::pool::replica_set;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

fn link(env: &TestEnv, name: &str, a: &Mongod, b: &Mongod) -> LinkConfig {
    let mut link = env.link();
    (link.uri_a, link.uri_b) = (a.uri(), b.uri());
    link.name = name.to_owned();
    link.state_dir = format!("state-{name}");
    link
}

fn tandem(env: &TestEnv, link: &LinkConfig) -> Tandem {
    env.tandem_named(&format!("{}.toml", link.name), link)
}

/// What one run says in the end.
fn run(tandem: &Tandem, code: i32) -> String {
    let output = tandem.run(&["run", "--until-caught-up", "--timeout", "30s"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    said
}

/// The verdict and the finding of the line about other links.
fn checked(tandem: &Tandem) -> (String, String) {
    let output = tandem.run(&["check", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let about = "no other link over the same collections";
    let mut lines = shown["lines"].as_array().expect("lines").iter();
    let line = lines.find(|line| line["requirement"] == about);
    let line = line.unwrap_or_else(|| panic!("{shown}"));
    let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    (text("verdict"), text("found"))
}

async fn found(client: &Client, id: &str) -> Option<Document> {
    let orders = client.database("shop").collection::<Document>("orders");
    orders.find_one(doc! { "_id": id }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_closes_a_ring_of_three_is_refused_and_a_chain_is_named_and_works() {
    let env = TestEnv::start().await;
    let third = replica_set(MongodOptions::named("ap-set")).await;
    let first = tandem(&env, &link(&env, "eu-us", &env.a, &env.b));
    run(&first, 0);
    let chain = tandem(&env, &link(&env, "us-ap", &env.b, &third));
    let said = run(&chain, 0);
    let warning = "another link has the same collections";
    assert!(said.contains(warning) && said.contains("eu-us"), "{said}");
    let (verdict, what) = checked(&chain);
    assert_eq!(verdict, "WARN", "{what}");
    assert!(what.contains("eu-us") && what.contains("shop.*"), "{what}");

    // Along the chain and back.
    let orders = |client: &Client| client.database("shop").collection::<Document>("orders");
    let row = doc! { "_id": "from one end" };
    orders(env.a.client()).insert_one(row).await.unwrap();
    let row = doc! { "_id": "from the other" };
    orders(third.client()).insert_one(row).await.unwrap();
    run(&first, 0);
    run(&chain, 0);
    run(&first, 0);
    for (end, id) in [(&third, "from one end"), (&env.a, "from the other")] {
        wait_for("it has come along", SOON, || found(end.client(), id)).await;
    }

    let ring = link(&env, "ap-eu", &third, &env.a);
    let closing = tandem(&env, &ring);
    let said = run(&closing, 3);
    assert!(said.contains("closes a ring"), "{said}");
    assert!(said.contains("eu-us") && said.contains("us-ap"), "{said}");
    let (verdict, what) = checked(&closing);
    assert_eq!(verdict, "FAIL", "{what}");
    let links = env.a.client().database("__tandem");
    let links = links.collection::<Document>("links");
    let written = links
        .count_documents(doc! { "_id": "ap-eu" })
        .await
        .unwrap();
    assert_eq!(written, 0);
    let mut other = ring;
    other.include = vec!["elsewhere.*".to_owned()];
    run(&tandem(&env, &other), 0);
}
