//! Thousands of collections.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::{StreamExt, stream};
use mongodb::Client;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::random::scaled;
use crate::support::schema::assert_same_schema;

const SOON: Duration = Duration::from_secs(120);
const COPY_TIME_MAX: Duration = Duration::from_secs(3600);
const AT_ONCE: usize = 8;
/// Of a build without optimisation.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// Collections with one document each.
async fn make(client: &Client, collections: usize) {
    let database = client.database("shop");
    let one = |number: usize| {
        let collection = database.collection::<Document>(&format!("many_{number}"));
        async move {
            let row = doc! { "_id": 1, "number": number as i64 };
            collection.insert_one(row).await.expect("a document");
        }
    };
    let all = stream::iter((0..collections).map(one));
    all.for_each_concurrent(AT_ONCE, |made| made).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: five thousand collections on both sides, at scale 1"]
async fn long_a_start_over_five_thousand_collections_takes_seconds() {
    let env = TestEnv::start().await;
    let collections = scaled(5000);
    let (a, b) = (env.a.client(), env.b.client());
    tokio::join!(make(a, collections), make(b, collections));
    let mut tandem = env.tandem(&env.link());
    for start in ["first start", "restart"] {
        let started = Instant::now();
        tandem.start();
        tandem.wait_until_streaming().await;
        let took = started.elapsed();
        println!("{start} over {collections} collections: {took:?}");
        assert!(took < START_TIME_MAX, "{took:?}");
        let set = doc! { "$set": { "by": start } };
        let last = a.database("shop").collection::<Document>("many_0");
        last.update_one(doc! {}, set).await.unwrap();
        assert_converged(&env, SOON).await;
        tandem.stop().await;
    }
}

/// Ten of one collection.
fn indexes() -> Vec<Document> {
    let mut keys = vec![doc! { "text": "text" }, doc! { "h": "hashed" }];
    for (one, other) in [("a", "b"), ("b", "c"), ("c", "a"), ("d", "e")] {
        keys.push(doc! { one: 1 });
        keys.push(doc! { one: 1, other: -1 });
    }
    let named = keys.into_iter().enumerate();
    let all = named.map(|(number, key)| doc! { "key": key, "name": format!("index {number}") });
    all.collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a thousand collections with ten indexes each, at scale 1"]
async fn long_a_copy_of_a_thousand_collections_with_ten_indexes_each_is_complete() {
    let env = TestEnv::start().await;
    let collections = scaled(1000);
    make(env.a.client(), collections).await;
    let shop = env.a.client().database("shop");
    for number in 0..collections {
        let many = format!("many_{number}");
        let create = doc! { "createIndexes": many, "indexes": indexes() };
        shop.run_command(create).await.expect("ten indexes");
    }
    let link = env.link().extra("[initial_sync]\nmode = \"copy\"");
    let mut tandem = env.tandem(&link);
    let started = Instant::now();
    tandem.start();
    let is_done = |status: &serde_json::Value| status["initial_sync"]["state"] == "done";
    tandem
        .wait_status("the copy is done", COPY_TIME_MAX, is_done)
        .await;
    println!("{collections} collections: {:?}", started.elapsed());
    assert_converged(&env, SOON).await;
    assert_same_schema(&env, SOON).await;
    tandem.stop().await;
}
