//! Several lanes with little to do have one transaction together.

use std::time::Duration;

use bson::doc;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::fail_points::FailPoint;
use crate::support::mongod::Mongod;
use crate::unique_values::transactions_on_b;

const SOON: Duration = Duration::from_secs(30);
const LANES: u32 = 4;

async fn committed(server: &Mongod) -> i64 {
    let status = server.admin(doc! { "serverStatus": 1 }).await;
    let transactions = status.get_document("transactions").expect("transactions");
    transactions.get_i64("totalCommitted").expect("a number")
}

/// What comes while a transaction is under way, for all lanes, waits for its end and arrives with one
/// commit, which moves the checkpoint of each lane. A process that is killed then applies nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_little_waits_in_several_lanes_arrives_in_one_transaction_and_once() {
    const WRITES: i32 = 40;
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link().lanes(LANES);
    let mut tandem = env
        .streaming(&link.extra("batch_fill_time_max = \"5s\""))
        .await;
    env.orders_a().insert_one(doc! { "_id": -1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    let (commits, before) = (committed(&env.b).await, transactions_on_b(&env).await);
    assert_eq!(before.len(), LANES as usize);
    let held = doc! { "blockConnection": true, "blockTimeMS": 1000 };
    let commit = FailPoint::on(&env.b, &["commitTransaction"]);
    let first = async { env.orders_a().insert_one(doc! { "_id": -2 }).await.unwrap() };
    tokio::join!(commit.fail(1, held), first);
    let rows = (0..WRITES).map(|id| doc! { "_id": id, "n": 1 });
    env.orders_a().insert_many(rows).await.unwrap();
    let more = doc! { "$inc": { "n": 1 } };
    env.orders_a().update_many(doc! {}, more).await.unwrap();
    assert_converged(&env, SOON).await;
    assert_eq!(committed(&env.b).await - commits, 2);
    let moved: Vec<i64> = transactions_on_b(&env).await;
    let moved = moved
        .iter()
        .zip(before)
        .map(|(after, before)| after - before);
    let mut moved: Vec<i64> = moved.collect();
    moved.sort_unstable();
    assert_eq!(moved, [1, 1, 1, 2]);
    tandem.kill9();
    tandem.start();
    tandem.wait_until_streaming().await;
    let more = doc! { "$inc": { "n": 1 } };
    env.orders_a().update_many(doc! {}, more).await.unwrap();
    assert_converged(&env, SOON).await;
    let thrice = env.orders_b().count_documents(doc! { "n": 3 }).await;
    assert_eq!(thrice.unwrap(), WRITES as u64);
    tandem.stop().await;
}
