//! Documents, fields and operations that are not replicated.

mod beside;
mod pushed;

use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;
use serde_json::Value;

use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::Mongod;
use crate::support::random::{Random, seed};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);
const DOCUMENTS: i32 = 600;
const REGIONS: [&str; 3] = ["EU", "US", "ASIA"];

const COPY: &str = "[initial_sync]\nmode = \"copy\"\n";
const FILTERS: &str = r#"
[[filters]]
namespace = "shop.orders"
filter = { region = "EU" }
exclude_fields = ["card", "customer.ssn"]
[[filters]]
namespace = "shop.log"
ignore = ["delete"]
"#;

fn order(id: i32, region: &str, total: i32) -> Document {
    doc! {
        "_id": id, "region": region, "card": "4711-secret",
        "customer": { "name": "n", "ssn": "0815-secret", "city": "c" }, "total": total,
    }
}

fn log(cluster: &Mongod) -> Collection<Document> {
    cluster.client().database("shop").collection("log")
}

async fn all(of: &Collection<Document>, filter: Document, without: Document) -> Vec<Document> {
    let found = of.find(filter).projection(without).sort(doc! { "_id": 1 });
    found.await.unwrap().try_collect().await.unwrap()
}

/// What the target must hold: the filtered documents without their fields, in the same order.
async fn wanted(env: &TestEnv) -> Vec<Document> {
    let without = doc! { "card": 0, "customer.ssn": 0 };
    all(&env.orders_a(), doc! { "region": "EU" }, without).await
}

async fn assert_filtered(env: &TestEnv) {
    wait_for("the target holds what is in the filter", SOON, || async {
        let there = all(&env.orders_b(), doc! {}, doc! {}).await;
        (there == wanted(env).await).then_some(())
    })
    .await;
}

fn filtered(env: &TestEnv) -> LinkConfig {
    env.link().one_way().extra(&format!("{COPY}{FILTERS}"))
}

fn code(tandem: &Tandem, arguments: &[&str]) -> (Option<i32>, String) {
    let output = tandem.run(arguments);
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Moves documents in and out of the filter, changes what is left out, deletes and makes anew.
async fn write(env: &TestEnv, random: &mut Random, writes: usize) {
    let orders = env.orders_a();
    for _ in 0..writes {
        let id = random.below(DOCUMENTS as u64 + 50) as i32;
        let region = *random.pick(&REGIONS);
        let total = random.below(1000) as i32;
        let only = doc! { "_id": id };
        match random.below(6) {
            0 => drop(orders.delete_one(only).await.unwrap()),
            1 => {
                let whole = orders.replace_one(only, order(id, region, total));
                drop(whole.upsert(true).await.unwrap());
            }
            2 => {
                let secret = doc! { "$set": { "card": format!("{total}-secret") } };
                drop(orders.update_one(only, secret).await.unwrap());
            }
            3 => {
                let moved = doc! { "$set": { "region": region } };
                drop(orders.update_one(only, moved).await.unwrap());
            }
            4 => {
                let nested = doc! { "$set": { "customer.ssn": "9-secret", "customer.city": "d" } };
                drop(orders.update_one(only, nested).await.unwrap());
            }
            _ => {
                let more = doc! { "$inc": { "total": 1 } };
                drop(orders.update_one(only, more).await.unwrap());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_way_link_holds_what_its_filters_say_through_moves_in_and_out_and_kills() {
    let env = TestEnv::start().await;
    let mut random = Random::new(seed("filters"));
    let documents = (0..DOCUMENTS).map(|id| order(id, REGIONS[id as usize % 3], id));
    env.orders_a().insert_many(documents).await.unwrap();
    log(&env.a)
        .insert_one(doc! { "_id": 1, "v": 1 })
        .await
        .unwrap();
    let link = filtered(&env);
    let mut tandem = env.tandem(&link);
    tandem.start();
    write(&env, &mut random, 100).await;
    let done = |status: &Value| status["initial_sync"]["state"] == "done";
    tandem.wait_status("the copy is done", SOON, done).await;
    assert_filtered(&env).await;
    for _ in 0..3 {
        write(&env, &mut random, 150).await;
        tandem.kill9();
        write(&env, &mut random, 50).await;
        tandem.start();
    }
    assert_filtered(&env).await;
    tandem.wait_until_streaming().await;

    assert_deleted_ones_stay(&env).await;
    let (ended, said) = code(&tandem, &["verify"]);
    assert_eq!(ended, Some(0), "a healthy filtered link is equal: {said}");
    assert_loser_on_record_without_secrets(&env, &tandem).await;
    tandem.stop().await;
    assert_another_filter_is_synced(&env, &link).await;
}

async fn assert_deleted_ones_stay(env: &TestEnv) {
    // What is made anew counts, and what is gone stays.
    log(&env.a)
        .insert_one(doc! { "_id": 2, "v": 1 })
        .await
        .unwrap();
    log(&env.a).delete_many(doc! {}).await.unwrap();
    log(&env.a)
        .insert_one(doc! { "_id": 2, "v": 2 })
        .await
        .unwrap();
    let one = doc! { "_id": 3, "v": 1 };
    log(&env.a).insert_one(one).await.unwrap();
    let update = doc! { "$set": { "v": 3 } };
    log(&env.a)
        .update_one(doc! { "_id": 3 }, update)
        .await
        .unwrap();
    log(&env.a).delete_one(doc! { "_id": 3 }).await.unwrap();
    // As the server sees it, the last one: whatever was before has arrived with it.
    log(&env.a).insert_one(doc! { "_id": 4 }).await.unwrap();
    wait_for("the last one arrives", SOON, || async {
        let last = log(&env.b).find_one(doc! { "_id": 4 }).await.unwrap();
        last.map(|_| ())
    })
    .await;
    wait_for("the kept ones are there", SOON, || async {
        let kept = all(&log(&env.b), doc! {}, doc! {}).await;
        let expected = [
            doc! { "_id": 1, "v": 1 },
            doc! { "_id": 2, "v": 2 },
            doc! { "_id": 3, "v": 3 },
            doc! { "_id": 4 },
        ];
        (kept == expected).then_some(())
    })
    .await;
}

/// A local write on the target loses once the source touches the document.
async fn assert_loser_on_record_without_secrets(env: &TestEnv, tandem: &Tandem) {
    let orders = env.orders_b();
    orders
        .insert_one(doc! { "_id": 5000, "from": "b" })
        .await
        .unwrap();
    env.orders_a()
        .insert_one(order(5000, "EU", 1))
        .await
        .unwrap();
    assert_filtered(env).await;
    let records = tandem.all_conflicts(env).await;
    assert_eq!(records.len(), 1, "{records:?}");
    let shown = serde_json::to_string(&records).unwrap();
    assert!(!shown.contains("secret"), "{shown}");
}

/// Another filter is a resync of what it is about.
async fn assert_another_filter_is_synced(env: &TestEnv, link: &LinkConfig) {
    let mut other = link.clone();
    other.extra = format!("{COPY}{FILTERS}").replace("\"EU\"", "\"US\"");
    let mut tandem = env.tandem(&other);
    tandem.start();
    let resynced = |status: &Value| {
        status["initial_sync"]["mode"] == "resync" && status["initial_sync"]["state"] == "done"
    };
    tandem
        .wait_status("the new filter is synced", SOON, resynced)
        .await;
    let us = doc! { "region": "US" };
    let without = doc! { "card": 0, "customer.ssn": 0 };
    wait_for("the other region is there", SOON, || async {
        let there = all(&env.orders_b(), us.clone(), doc! {}).await;
        (there == all(&env.orders_a(), us.clone(), without.clone()).await).then_some(())
    })
    .await;
    let (ended, said) = code(&tandem, &["verify"]);
    assert_eq!(ended, Some(0), "{said}");
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_cannot_hold_are_refused_with_the_reason() {
    let env = TestEnv::start().await;
    let two_way = env.tandem(&env.link().extra(FILTERS));
    for command in [["check"], ["run"]] {
        let (ended, said) = code(&two_way, &command);
        assert_eq!(ended, Some(3), "{said}");
        for told in [
            "filters[0].filter: one-way only",
            "filters[0].exclude_fields: one-way only",
            "filters[1].ignore: one-way only",
        ] {
            assert!(said.contains(told), "{told}: {said}");
        }
    }
    let unknown = "[[filters]]\nnamespace = \"shop.*\"\nfilter = { v = { \"$larger\" = 1 } }";
    let (ended, said) = code(&env.tandem(&env.link().one_way().extra(unknown)), &["run"]);
    assert_eq!(ended, Some(3), "{said}");
    assert!(said.contains("filters[0]: eu does not take it"), "{said}");
    assert!(said.contains("$larger"), "{said}");
    let mut tandem = env
        .streaming(
            &env.link()
                .one_way()
                .extra("[[filters]]\nnamespace = \"shop.*\"\nignore = [\"delete\"]"),
        )
        .await;
    let (ended, said) = code(&tandem, &["cutover", "--yes"]);
    assert_eq!(ended, Some(3), "{said}");
    assert!(said.contains("does not hold everything"), "{said}");
    let (ended, said) = code(&tandem, &["check"]);
    assert_eq!(ended, Some(0), "{said}");
    assert!(said.contains("1 filters, 1 ignore deletes"), "{said}");
    tandem.stop().await;
    let mistyped = "[[filters]]\nnamespace = \"shop.ordres\"\nexclude_fields = [\"card\"]";
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    let mistyped = env.tandem(&env.link().one_way().extra(mistyped));
    let (ended, said) = code(&mistyped, &["check"]);
    assert_eq!(ended, Some(0), "{said}");
    assert!(
        said.contains("shop.ordres names none of the included ones; did you mean shop.orders?"),
        "{said}"
    );
}
