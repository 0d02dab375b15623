//! Unique secondary indexes: values that move between documents, and true collisions.

use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::options::IndexOptions;
use mongodb::{Collection, IndexModel};
use serde_json::Value;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::random::{Random, scaled, seed};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);

async fn unique_on_both(env: &TestEnv) {
    for orders in [env.orders_a(), env.orders_b()] {
        let options = IndexOptions::builder()
            .unique(true)
            .name("sku_1".to_owned())
            .build();
        let index = IndexModel::builder()
            .keys(doc! { "sku": 1 })
            .options(options)
            .build();
        orders.create_index(index).await.unwrap();
    }
}

async fn set_sku(orders: &Collection<Document>, id: i32, sku: &str) {
    let set = doc! { "$set": { "sku": sku } };
    orders.update_one(doc! { "_id": id }, set).await.unwrap();
}

/// A value that is free is moved around a ring of documents, one step after the other.
#[tokio::test(flavor = "multi_thread")]
async fn unique_values_that_move_between_documents_arrive_without_a_dead_letter() {
    const DOCUMENTS: u64 = 10;
    let env = TestEnv::start().await;
    unique_on_both(&env).await;
    let mut tandem = env.streaming(&env.link()).await;
    let orders = env.orders_a();
    for id in 0..DOCUMENTS as i32 {
        let row = doc! { "_id": id, "sku": format!("s{id}") };
        orders.insert_one(row).await.unwrap();
    }
    let mut random = Random::new(seed("unique"));
    for step in 0..scaled(5000) {
        let (one, other) = (
            random.below(DOCUMENTS) as i32,
            random.below(DOCUMENTS) as i32,
        );
        if one == other {
            continue;
        }
        let sku = |row: Option<Document>| row.unwrap().get_str("sku").unwrap().to_owned();
        let first = sku(orders.find_one(doc! { "_id": one }).await.unwrap());
        let second = sku(orders.find_one(doc! { "_id": other }).await.unwrap());
        set_sku(&orders, one, &format!("free{step}")).await;
        if random.percent(50) {
            set_sku(&orders, other, &first).await;
            set_sku(&orders, one, &second).await;
        } else {
            orders.delete_one(doc! { "_id": other }).await.unwrap();
            set_sku(&orders, one, &second).await;
            let back = doc! { "_id": other, "sku": &first };
            orders.insert_one(back).await.unwrap();
        }
    }
    assert_converged(&env, SOON).await;
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
}

/// In how many transactions each lane into b had a part, by lane.
pub async fn transactions_on_b(env: &TestEnv) -> Vec<i64> {
    let own = env.b.client().database("__tandem");
    let checkpoints = own.collection::<Document>("checkpoints");
    let found = checkpoints.find(doc! { "pipeline": "a-to-b" });
    let found = found.sort(doc! { "_id": 1 }).await;
    let found: Vec<Document> = found.unwrap().try_collect().await.unwrap();
    let sequences = found.iter().map(|one| one.get_i64("sequence").unwrap());
    sequences.collect()
}

/// What the index refuses is written again in the order of the source, not event by event.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_values_that_were_swapped_arrives_in_few_transactions() {
    const SWAPS: i64 = 200;
    let env = TestEnv::start().await;
    unique_on_both(&env).await;
    let orders = env.orders_a();
    let mut tandem = env.streaming(&env.link()).await;
    for (id, sku) in [(0, "one"), (1, "other")] {
        let row = doc! { "_id": id, "sku": sku };
        orders.insert_one(row).await.unwrap();
    }
    assert_converged(&env, SOON).await;
    tandem.stop().await;
    let before = transactions_on_b(&env).await.iter().sum::<i64>();
    for swap in 0..SWAPS {
        let (first, second) = match swap % 2 {
            0 => ("other", "one"),
            _ => ("one", "other"),
        };
        set_sku(&orders, 0, "free").await;
        set_sku(&orders, 1, second).await;
        set_sku(&orders, 0, first).await;
    }
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged(&env, SOON).await;
    let used = transactions_on_b(&env).await.iter().sum::<i64>() - before;
    assert!(used < SWAPS / 10, "{used} transactions for {SWAPS} swaps");
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_true_collision_is_a_dead_letter_until_its_cause_is_gone() {
    let env = TestEnv::start().await;
    unique_on_both(&env).await;
    let mut tandem = env.streaming(&env.link()).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    tandem.sigstop();
    a.insert_one(doc! { "_id": 1, "sku": "same" })
        .await
        .unwrap();
    b.insert_one(doc! { "_id": 2, "sku": "same" })
        .await
        .unwrap();
    a.insert_one(doc! { "_id": 3, "sku": "other" })
        .await
        .unwrap();
    tandem.sigcont();
    tandem
        .wait_status("both writes are dead letters", SOON, |status| {
            let pipelines = status["pipelines"].as_array();
            let counts = pipelines.into_iter().flatten();
            counts
                .filter_map(|p| p["dead_letters_total"].as_u64())
                .sum::<u64>()
                >= 2
        })
        .await;
    let letters = tandem.conflicts(&["--kind", "dead_letter"]);
    let of_a = letters.iter().find(|letter| letter["pipeline"] == "a-to-b");
    let of_a = of_a.expect("a dead letter of a");
    assert_eq!(of_a["index"], "sku_1");
    assert_eq!(of_a["document_key"]["_id"]["$numberInt"], "1");
    assert!(of_a["other_key"].to_string().contains("\"2\""), "{of_a:#}");
    // The stream went on, and the next event of either document resolves both.
    set_sku(&b, 2, "moved").await;
    assert_converged(&env, SOON).await;
    let letters = tandem.conflicts(&["--kind", "dead_letter"]);
    assert!(
        letters.iter().all(|letter| letter["status"] == "resolved"),
        "{letters:#?}"
    );
    tandem.stop().await;
}

async fn letters_of(tandem: &Tandem, status: &str) -> Vec<Value> {
    let mut letters = tandem.conflicts(&["--kind", "dead_letter"]);
    letters.retain(|letter| letter["status"] == status);
    letters
}

async fn one_letter(tandem: &Tandem, status: &str) -> Value {
    wait_for("a dead letter", SOON, || async {
        let mut letters = letters_of(tandem, status).await;
        (letters.len() == 1).then(|| letters.remove(0))
    })
    .await
}

/// The cause is gone while a write of the other side is under way, which must not be overwritten.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_meets_a_write_under_way_is_tried_again_once_that_has_arrived() {
    let env = TestEnv::start().await;
    unique_on_both(&env).await;
    let mut tandem = env.streaming(&env.link()).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    let row = doc! { "_id": 1, "sku": "mine" };
    a.insert_one(row).await.unwrap();
    assert_converged(&env, SOON).await;
    assert!(tandem.run(&["pause", "b-to-a"]).status.success());
    b.insert_one(doc! { "_id": 2, "sku": "same" })
        .await
        .unwrap();
    set_sku(&a, 1, "same").await;
    one_letter(&tandem, "logged").await;
    let by_b = doc! { "$set": { "by": "b" } };
    b.update_one(doc! { "_id": 1 }, by_b).await.unwrap();
    set_sku(&b, 2, "moved").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let there = b.find_one(doc! { "_id": 1 }).await.unwrap();
    let expected = doc! { "_id": 1, "sku": "mine", "by": "b" };
    assert_eq!(there, Some(expected));
    assert!(tandem.run(&["resume", "b-to-a"]).status.success());
    wait_for("both writes are on b", SOON, || async {
        let both = doc! { "_id": 1, "sku": "same", "by": "b" };
        b.find_one(both).await.unwrap()
    })
    .await;
    assert_converged(&env, SOON).await;
    one_letter(&tandem, "resolved").await;
    tandem.stop().await;
}

/// In one direction the write of b stays where it is until it loses.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_of_a_one_way_link_replaces_a_local_write_or_is_discarded_for_good() {
    let env = TestEnv::start().await;
    unique_on_both(&env).await;
    let mut tandem = env.streaming(&env.link().one_way()).await;
    for (id, sku) in [(1, "mine"), (2, "same")] {
        let row = doc! { "_id": id, "sku": sku };
        env.orders_b().insert_one(row).await.unwrap();
    }
    let row = doc! { "_id": 1, "sku": "same" };
    env.orders_a().insert_one(row).await.unwrap();
    one_letter(&tandem, "logged").await;
    env.orders_b().delete_one(doc! { "_id": 2 }).await.unwrap();
    assert_converged(&env, SOON).await;
    one_letter(&tandem, "resolved").await;
    let [lost] = &tandem.conflicts(&["--kind", "insert_exists"])[..] else {
        panic!("b's write is on record once");
    };
    assert_eq!(lost["losing"]["document"]["sku"], "mine");

    // Its mark lies under the name that the collection had at first.
    let rename = doc! { "renameCollection": "shop.orders", "to": "shop.archive" };
    env.a.admin(rename).await;
    let (a, b) = (env.a.client(), env.b.client());
    let [a, b] = [a, b].map(|client| client.database("shop").collection::<Document>("archive"));
    wait_for("the name on b", SOON, || async {
        b.find_one(doc! { "_id": 1 }).await.unwrap()
    })
    .await;
    b.insert_one(doc! { "_id": 3, "sku": "held" })
        .await
        .unwrap();
    a.insert_one(doc! { "_id": 4, "sku": "held" })
        .await
        .unwrap();
    let letter = one_letter(&tandem, "logged").await;
    let id = letter["id"].as_str().unwrap();
    let said = tandem.run(&["dead-letter", "discard", id]);
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    tandem.kill9();
    b.delete_one(doc! { "_id": 3 }).await.unwrap();
    tandem.start();
    tandem.wait_until_streaming().await;
    let later = doc! { "_id": 5, "sku": "later" };
    a.insert_one(later).await.unwrap();
    wait_for("the later one", SOON, || async {
        b.find_one(doc! { "_id": 5 }).await.unwrap()
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let discarded = b.find_one(doc! { "_id": 4 }).await.unwrap();
    assert_eq!(discarded, None, "it was given up");
    tandem.stop().await;
}
