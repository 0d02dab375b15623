//! Thousands of collections.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::{StreamExt, stream};
use mongodb::Client;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::random::scaled;

const SOON: Duration = Duration::from_secs(120);
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
