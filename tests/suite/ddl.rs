//! Changes of collections: what they touch is passed over and on record, everything else goes on.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;

use crate::support::env::{LinkConfig, TestEnv, raw_by_id};
use crate::support::mongod::Mongod;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(15);

/// A link that replicates no DDL.
fn passing_over(env: &TestEnv) -> LinkConfig {
    env.link().extra("[ddl]\nreplicate = false")
}

fn of(cluster: &Mongod, name: &str) -> Collection<Document> {
    cluster.client().database("shop").collection(name)
}

async fn arrives(collection: &Collection<Document>, id: i32) {
    let what = format!("{id} arrives in {}", collection.name());
    wait_for(&what, SOON, || raw_by_id(collection, id)).await;
}

/// Writes to `shop.orders` on both sides and sees them arrive: every lane of it works.
async fn everything_else_goes_on(env: &TestEnv, from: i32) {
    const WRITES: i32 = 40;
    for id in from..from + WRITES {
        env.orders_a().insert_one(doc! { "_id": id }).await.unwrap();
        let other = doc! { "_id": -id };
        env.orders_b().insert_one(other).await.unwrap();
    }
    for id in from..from + WRITES {
        arrives(&env.orders_b(), id).await;
        arrives(&env.orders_a(), -id).await;
    }
}

async fn wait_unpaired(tandem: &Tandem, name: &str) {
    let full = format!("shop.{name}");
    tandem
        .wait_status(&format!("{full} is unpaired"), SOON, |status| {
            let names = status["unpaired_namespaces"].as_array();
            names.is_some_and(|names| names.iter().any(|found| *found == *full))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_collection_is_passed_over_and_takes_nothing_along() {
    let env = TestEnv::start().await;
    for name in ["orders", "dropped", "reborn", "renamed"] {
        env.create_on_both("shop", name).await;
    }
    let mut tandem = env.streaming(&passing_over(&env)).await;
    for name in ["dropped", "reborn", "renamed"] {
        let (a, b) = (of(&env.a, name), of(&env.b, name));
        a.insert_one(doc! { "_id": 1 }).await.unwrap();
        arrives(&b, 1).await;
    }

    tandem.sigstop();
    for name in ["dropped", "reborn", "renamed"] {
        let from_b = doc! { "_id": 2 };
        of(&env.b, name).insert_one(from_b).await.unwrap();
    }
    of(&env.a, "dropped").drop().await.unwrap();
    of(&env.a, "reborn").drop().await.unwrap();
    let reborn = doc! { "_id": 3 };
    of(&env.a, "reborn").insert_one(reborn).await.unwrap();
    let rename = doc! { "renameCollection": "shop.renamed", "to": "shop.elsewhere" };
    env.a.admin(rename).await;
    tandem.sigcont();

    for name in ["dropped", "reborn", "renamed", "elsewhere"] {
        wait_unpaired(&tandem, name).await;
    }
    everything_else_goes_on(&env, 100).await;
    tandem.kill9();
    tandem.start();
    tandem.wait_until_streaming().await;
    wait_unpaired(&tandem, "dropped").await;
    everything_else_goes_on(&env, 200).await;

    for name in ["dropped", "reborn", "renamed"] {
        let b = of(&env.b, name);
        assert_eq!(b.count_documents(doc! {}).await.unwrap(), 2, "{name} on b");
        assert_eq!(raw_by_id(&b, 3).await, None, "{name} on b");
    }
    let dropped = of(&env.a, "dropped");
    assert_eq!(dropped.count_documents(doc! {}).await.unwrap(), 0);
    let records = tandem.conflicts(&["--kind", "ddl"]);
    let reasons: Vec<_> = records
        .iter()
        .filter_map(|r| r["reason"].as_str())
        .collect();
    assert_eq!(reasons, ["drop", "drop", "rename"]);
    tandem.stop().await;
}

/// A dead letter is tried again at every start, which must not stop its lane for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_a_dropped_collection_does_not_stop_its_lane() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    env.create_on_both("shop", "items").await;
    let mut tandem = env.streaming(&passing_over(&env)).await;
    let (a, b) = (of(&env.a, "items"), of(&env.b, "items"));
    let unique = mongodb::options::IndexOptions::builder()
        .unique(true)
        .build();
    let index = mongodb::IndexModel::builder()
        .keys(doc! { "sku": 1 })
        .options(unique)
        .build();
    b.create_index(index).await.unwrap();
    b.insert_one(doc! { "_id": 1, "sku": 1 }).await.unwrap();
    arrives(&a, 1).await;
    a.insert_one(doc! { "_id": 2, "sku": 1 }).await.unwrap();
    tandem
        .wait_status("a dead letter", SOON, |status| {
            status["pipelines"][0]["dead_letters_total"] == 1
        })
        .await;

    a.drop().await.unwrap();
    wait_unpaired(&tandem, "items").await;
    tandem.kill9();
    tandem.start();
    tandem.wait_until_streaming().await;
    everything_else_goes_on(&env, 100).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_written_in_a_transaction_is_unpaired_on_either_side() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&passing_over(&env)).await;
    let shop = env.b.client().database("shop");
    for command in [
        doc! { "create": "view", "viewOn": "orders", "pipeline": [] },
        doc! { "create": "series", "timeseries": { "timeField": "at" } },
        doc! { "create": "ring", "capped": true, "size": 4096 },
        doc! { "create": "words", "collation": { "locale": "en", "strength": 2 } },
    ] {
        shop.run_command(command).await.unwrap();
    }
    for name in ["view", "series", "ring", "words"] {
        of(&env.a, name)
            .insert_one(doc! { "_id": 1 })
            .await
            .unwrap();
        wait_unpaired(&tandem, name).await;
    }
    everything_else_goes_on(&env, 100).await;
    tandem.stop().await;
}
