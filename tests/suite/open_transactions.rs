//! Transactions of applications that are open while something else happens.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::{ClientSession, Collection};

use crate::support::compare::assert_converged_by;
use crate::support::env::{TestEnv, raw_by_id};
use crate::support::mongod::Mongod;
use crate::support::random::scaled;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

async fn begin(server: &Mongod) -> ClientSession {
    let mut session = server.client().start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    session
}

async fn insert(session: &mut ClientSession, into: &Collection<Document>, id: &str) {
    let row = doc! { "_id": id };
    into.insert_one(row).session(session).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_back_its_own_lane_only_and_is_asked_seldom() {
    const DOCUMENTS: i32 = 200;
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    let rows = (0..DOCUMENTS).map(|id| doc! { "_id": id });
    a.insert_many(rows).await.unwrap();
    assert_converged_by(&tandem, &env, SOON).await;
    let mut session = begin(&env.b).await;
    let by = |by: &str| doc! { "$set": { "by": by } };
    let one = doc! { "_id": 7 };
    b.update_one(one.clone(), by("b"))
        .session(&mut session)
        .await
        .unwrap();
    let before = tandem.total("fence_conflicts_total");
    a.update_many(doc! {}, by("a")).await.unwrap();
    // Those of three lanes of four.
    wait_for("most of the others arrive", SOON, || async {
        let arrived = b.count_documents(doc! { "by": "a" }).await.unwrap();
        (arrived > DOCUMENTS as u64 / 2).then_some(())
    })
    .await;
    let held = Duration::from_secs(scaled(30) as u64);
    tokio::time::sleep(held).await;
    let refused = tandem.total("fence_conflicts_total") - before;
    println!("{refused} refusals in {held:?}");
    assert!(refused < 60, "{refused} refusals: it spins");
    session.commit_transaction().await.unwrap();
    assert_converged_by(&tandem, &env, SOON).await;
    let records = tandem.all_conflicts(&env).await;
    assert_eq!(records.len(), 1, "{records:#?}");
    // It is later: a server dates it by its commit.
    assert_eq!(records[0]["winner_cluster"], "b");
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_are_open_amid_a_start_a_copy_or_a_stop_arrive_whole_or_not_at_all() {
    let env = TestEnv::start().await;
    let orders = env.orders_a();
    let beside = env.a.client().database("elsewhere").collection("beside");
    orders
        .insert_many((0..500).map(|id| doc! { "_id": id }))
        .await
        .unwrap();
    beside.insert_one(doc! { "_id": 1 }).await.unwrap();
    let (mut early, mut never) = (begin(&env.a).await, begin(&env.a).await);
    insert(&mut early, &orders, "early").await;
    insert(&mut early, &beside, "early").await;
    insert(&mut never, &orders, "never").await;
    let link = env.link().extra("[initial_sync]\nmode = \"copy\"");
    let mut tandem = env.streaming(&link).await;
    let is_done = |status: &serde_json::Value| status["initial_sync"]["state"] == "done";
    tandem.wait_status("the copy is done", SOON, is_done).await;
    early.commit_transaction().await.unwrap();
    never.abort_transaction().await.unwrap();
    let arrives = async |id: &'static str| {
        wait_for("it arrives", SOON, || raw_by_id(&env.orders_b(), id)).await;
    };
    arrives("early").await;

    let mut late = begin(&env.a).await;
    insert(&mut late, &orders, "late").await;
    insert(&mut late, &beside, "late").await;
    tandem.stop().await;
    late.commit_transaction().await.unwrap();
    tandem.start();
    tandem.wait_until_streaming().await;
    arrives("late").await;

    let databases = env.b.client().list_database_names().await.unwrap();
    assert!(
        !databases.contains(&"elsewhere".to_owned()),
        "{databases:?}"
    );
    beside.drop().await.unwrap();
    assert_converged_by(&tandem, &env, SOON).await;
    assert_eq!(raw_by_id(&env.orders_b(), "never").await, None);
    assert_eq!(tandem.total("conflicts_total"), 0);
    tandem.stop().await;
}
