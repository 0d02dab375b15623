//! What was there before: copied, merged, compared and repaired under the names of each side.

use bson::{Document, doc};
use serde_json::Value;

use super::*;

fn is_done(status: &Value) -> bool {
    status["initial_sync"]["state"] == "done"
}

async fn fill(collection: &Collection<Document>, ids: std::ops::Range<i32>, by: &str) {
    let documents = ids.map(|id| doc! { "_id": id, "by": by, "card": "secret" });
    collection.insert_many(documents).await.unwrap();
}

async fn given(env: &TestEnv) {
    plant_strangers(env).await;
    fill(&of(env.a.client(), "shop.orders"), 0..1500, "a").await;
    fill(&of(env.a.client(), "bank.log"), 0..10, "a").await;
    fill(&of(env.a.client(), "left.x"), 0..10, "left").await;
    fill(&of(env.a.client(), "right.x"), 5..15, "right").await;
    fill(&of(env.b.client(), "shop_eu.orders"), 9000..9001, "b").await;
    let index = doc! { "key": { "by": 1 }, "name": "by" };
    for command in [
        doc! { "createIndexes": "orders", "indexes": [index] },
        doc! { "create": "ring", "capped": true, "size": 4096 },
        doc! { "create": "view", "viewOn": "orders", "pipeline": [] },
    ] {
        run(&env.a, "shop", command).await;
    }
    fill(&of(env.a.client(), "shop.ring"), 0..3, "a").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_fills_what_b_calls_otherwise_and_the_link_can_be_turned_round() {
    let env = TestEnv::start().await;
    given(&env).await;
    let copying = renaming(&env)
        .one_way()
        .extra("[initial_sync]\nmode = \"copy\"");
    let told = said(&env.tandem(&copying), &["run"], 3);
    assert!(told.contains("holds data in shop_eu.orders"), "{told}");
    let dry = ["run", "--dry-run", "--drop-target"];
    let plan = said(&env.tandem(&copying), &dry, 0);
    assert!(plan.contains("shop.orders -> shop_eu.orders"), "{plan}");
    let mut slow = copying.clone();
    slow.extra = format!("operations_per_second_max = 1000\n{}", copying.extra);
    let mut tandem = env.tandem(&slow);
    tandem.run_with(&["--drop-target"]).start();
    let begun = |status: &Value| status["initial_sync"]["documents_done"].as_u64() > Some(200);
    tandem.wait_status("it copies", SOON, begun).await;
    tandem.kill9();
    let mut tandem = env.tandem(&copying);
    tandem.start();
    // A process that found nothing left to copy says nothing of it.
    let is_over = |status: &Value| is_done(status) || status["initial_sync"].is_null();
    tandem.wait_until_streaming().await;
    tandem.wait_status("the copy is done", SOON, is_over).await;
    assert_same(&env, &tandem).await;
    assert_strangers_untouched(&env).await;
    let there = of(env.b.client(), "shop_eu.orders")
        .list_index_names()
        .await;
    assert!(there.unwrap().contains(&"by".to_owned()));
    let view = of(env.b.client(), "shop_eu.view");
    assert_eq!(view.count_documents(doc! {}).await.unwrap(), 1500);

    said(&tandem, &["cutover", "--reverse", "--yes"], 0);
    insert(&env.b, "audit.bank_log", 4000).await;
    must_arrive(&env.a, "bank.log", 4000).await;
    assert_strangers_untouched(&env).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_go_by_the_name_on_a_and_hold_under_the_other_one_on_b() {
    let env = TestEnv::start().await;
    fill(&of(env.a.client(), "shop.orders"), 0..50, "a").await;
    let filter = "[[filters]]\nnamespace = \"shop.orders\"\nfilter = { by = \"a\" }\n\
                  exclude_fields = [\"card\"]\n[initial_sync]\nmode = \"copy\"";
    let mut tandem = env.streaming(&renaming(&env).one_way().extra(filter)).await;
    fill(&of(env.a.client(), "shop.orders"), 100..150, "x").await;
    fill(&of(env.a.client(), "shop.orders"), 200..250, "a").await;
    let orders = of(env.b.client(), "shop_eu.orders");
    wait_for("what is in the filter is there", SOON, || async {
        let found = orders.count_documents(doc! { "by": "a" }).await.unwrap();
        (found == 100).then_some(())
    })
    .await;
    let beside = doc! { "$or": [{ "by": "x" }, { "card": { "$exists": true } }] };
    assert_eq!(orders.count_documents(beside).await.unwrap(), 0);
    said(&tandem, &["verify"], 0);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_a_repair_a_resync_and_more_namespaces_meet_the_counterparts() {
    let env = TestEnv::start().await;
    plant_strangers(&env).await;
    fill(&of(env.a.client(), "shop.orders"), 0..1000, "a").await;
    fill(&of(env.b.client(), "shop_eu.orders"), 900..1100, "b").await;
    let mut link = renaming(&env);
    let include = ["shop.*", "bank.accounts", "left.*", "right.*"];
    link.include = include.map(str::to_owned).to_vec();
    // The first two of them: the third one is about nothing that is included.
    let renames = RENAMES.replace("bank.log", "shop.log").replace(
        "a = \"shop.*\"\nb = \"shop_eu.*\"",
        "a = \"shop.o*\"\nb = \"shop_eu.o*\"",
    );
    link.extra = format!("{renames}[initial_sync]\nmode = \"merge\"");
    let mut tandem = env.tandem(&link);
    let plan = said(&tandem, &["run", "--dry-run"], 0);
    assert!(plan.contains("shop.orders -> shop_eu.orders"), "{plan}");
    tandem.start();
    tandem.wait_status("the merge is done", SOON, is_done).await;
    let orders = of(env.b.client(), "shop_eu.orders");
    assert_eq!(orders.count_documents(doc! {}).await.unwrap(), 1100);
    let on_a = of(env.a.client(), "shop.orders");
    assert_eq!(on_a.count_documents(doc! {}).await.unwrap(), 1100);
    let lost = tandem.conflicts(&["--namespace", "shop.orders"]);
    assert_eq!(lost.len(), 100);
    tandem.stop().await;

    // With nobody watching, and included only then.
    fill(&of(env.a.client(), "bank.other"), 0..5, "a").await;
    fill(&of(env.b.client(), "bank.other"), 3..8, "b").await;
    link.include.push("bank.other".to_owned());
    let mut tandem = env.tandem(&link);
    tandem.start();
    let resynced = |status: &Value| status["initial_sync"]["mode"] == "resync" && is_done(status);
    tandem
        .wait_status("both are brought together", SOON, resynced)
        .await;
    for id in 0..8 {
        must_arrive(&env.a, "bank.other", id).await;
        must_arrive(&env.b, "bank.other", id).await;
    }

    // What differs counts as a difference once the link has passed it, which takes writes.
    let writes = tokio::spawn(write_on(env.a.client().clone(), env.b.client().clone()));
    differ_unseen(&env).await;
    let told = said(&tandem, &["verify", "--repair", "--from", "a"], 0);
    assert!(told.contains("shop.orders"), "{told}");
    assert!(told.contains("removed 0 from a and 1 from b"), "{told}");
    assert!(told.contains("0 left"), "{told}");
    writes.abort();
    differ_unseen(&env).await;
    let only = ["resync", "--namespace", "shop.orders", "--from", "a"];
    said(&tandem, &only, 0);
    said(&tandem, &["verify"], 0);
    let unseen = orders.find_one(doc! { "_id": "unseen" }).await.unwrap();
    assert_eq!(unseen, None, "a has it not");
    assert_strangers_untouched(&env).await;
    tandem.stop().await;
}

async fn write_on(a: Client, b: Client) {
    for id in 0.. {
        for (client, side) in [(&a, "a"), (&b, "b")] {
            let items = of(client, "shop.items");
            let _ = items
                .insert_one(doc! { "_id": format!("{side}{id}") })
                .await;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// An atomic `applyOps` reaches no change stream.
async fn differ_unseen(env: &TestEnv) {
    let unseen = doc! { "op": "i", "ns": "shop_eu.orders", "o": { "_id": "unseen" } };
    env.b.admin(doc! { "applyOps": [unseen] }).await;
}
