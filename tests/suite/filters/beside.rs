//! What the target has beside what is in the filter, and what must never get there.

use bson::{Document, doc};
use mongodb::options::IndexOptions;
use mongodb::{Collection, IndexModel};
use serde_json::Value;

use super::{FILTERS, SOON, code, log, order};
use crate::support::env::TestEnv;
use crate::support::mongod::Mongod;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

/// One lane applies in the order of the source: whatever was before has arrived with it.
async fn pass(env: &TestEnv, number: i32) {
    let marker = doc! { "_id": format!("marker {number}"), "region": "EU" };
    log(&env.a).insert_one(&marker).await.unwrap();
    wait_for("the marker arrives", SOON, || async {
        let found = log(&env.b).find_one(marker.clone()).await.unwrap();
        found.map(|_| ())
    })
    .await;
}

async fn set(orders: &Collection<Document>, id: i32, fields: Document) {
    let set = doc! { "$set": fields };
    orders.update_one(doc! { "_id": id }, set).await.unwrap();
}

async fn on_b(env: &TestEnv, id: i32) -> Option<Document> {
    env.orders_b().find_one(doc! { "_id": id }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_the_filter_is_left_alone_and_what_is_left_out_never_arrives() {
    let env = TestEnv::start().await;
    let (a, b) = (env.orders_a(), env.orders_b());
    let foreign = |id: i32| doc! { "_id": id, "region": "US", "own": "b" };
    a.insert_one(order(1, "US", 1)).await.unwrap();
    b.insert_one(foreign(1)).await.unwrap();
    let link = env.link().one_way().lanes(1).extra(FILTERS);
    let mut tandem = env.streaming(&link).await;

    // Not in the filter on either side, older than the link: it is nobody's business.
    set(&a, 1, doc! { "total": 2 }).await;
    a.insert_one(order(2, "US", 1)).await.unwrap();
    b.insert_one(foreign(2)).await.unwrap();
    a.delete_one(doc! { "_id": 2 }).await.unwrap();
    // Written on both sides at once.
    set(&b, 1, doc! { "more": 1 }).await;
    set(&a, 1, doc! { "total": 3 }).await;
    pass(&env, 1).await;
    let expected = doc! { "_id": 1, "region": "US", "own": "b", "more": 1 };
    assert_eq!(on_b(&env, 1).await, Some(expected.clone()));
    assert_eq!(on_b(&env, 2).await, Some(foreign(2)));
    assert_eq!(tandem.all_conflicts(&env).await.len(), 0);

    // It comes into the filter, and the target's write loses.
    set(&a, 1, doc! { "region": "EU" }).await;
    pass(&env, 2).await;
    let mut wanted = order(1, "EU", 3);
    wanted.remove("card");
    wanted.insert("customer", doc! { "name": "n", "city": "c" });
    assert_eq!(on_b(&env, 1).await, Some(wanted.clone()));
    // A write to what is left out loses once the source writes, be it a whole document.
    set(&b, 1, doc! { "card": "own" }).await;
    set(&a, 1, doc! { "card": "other-secret" }).await;
    pass(&env, 3).await;
    assert_eq!(on_b(&env, 1).await, Some(wanted.clone()));
    let whole = order(1, "EU", 3);
    a.replace_one(doc! { "_id": 1 }, whole).await.unwrap();
    pass(&env, 4).await;
    assert_eq!(on_b(&env, 1).await, Some(wanted));
    let records = tandem.all_conflicts(&env).await;
    assert_eq!(records.len(), 2, "{records:?}");
    let shown = serde_json::to_string(&records).unwrap();
    assert!(
        !shown.contains("secret") && shown.contains("\"own\""),
        "{shown}"
    );
    // Nor does what cannot be applied tell of it.
    let unique = IndexOptions::builder().unique(true).build();
    let unique = IndexModel::builder()
        .keys(doc! { "total": 1 })
        .options(unique);
    b.create_index(unique.build()).await.unwrap();
    a.insert_one(order(9, "EU", 3)).await.unwrap();
    pass(&env, 10).await;
    let records = tandem.all_conflicts(&env).await;
    let shown = serde_json::to_string(&records).unwrap();
    assert!(
        shown.contains("dead_letter") && !shown.contains("secret"),
        "{shown}"
    );
    b.drop_index("total_1").await.unwrap();
    // It leaves the filter, and is gone.
    set(&a, 1, doc! { "region": "US" }).await;
    pass(&env, 5).await;
    assert_eq!(on_b(&env, 1).await, None);

    assert_archived(&env, &tandem).await;
    assert_another_name_is_not_followed(&env, &tandem).await;
    tandem.stop().await;
}

/// The last state before a deletion is kept, over a comparison and over a resync.
async fn assert_archived(env: &TestEnv, tandem: &Tandem) {
    let entries = log(&env.a);
    let one = |v: i32| doc! { "_id": 1, "v": v };
    entries.insert_one(one(1)).await.unwrap();
    pass(env, 6).await;
    entries.delete_one(doc! { "_id": 1 }).await.unwrap();
    entries.insert_one(one(2)).await.unwrap();
    entries.delete_one(doc! { "_id": 1 }).await.unwrap();
    pass(env, 7).await;
    for command in [
        &["verify", "--repair"][..],
        &["resync", "--from", "a", "--namespace", "/^shop\\.log$/"],
    ] {
        let (ended, said) = code(tandem, command);
        assert_eq!(ended, Some(0), "{command:?}: {said}");
        let kept = log(&env.b).find_one(doc! { "_id": 1 }).await.unwrap();
        assert_eq!(kept, Some(one(2)), "{command:?}");
    }
}

/// What is left out under one name would be sent under the other.
async fn assert_another_name_is_not_followed(env: &TestEnv, tandem: &Tandem) {
    let admin = env.a.client().database("admin");
    env.orders_a().insert_one(order(7, "EU", 1)).await.unwrap();
    let rename = doc! { "renameCollection": "shop.orders", "to": "shop.sold" };
    admin.run_command(rename).await.unwrap();
    let sold = |cluster: &Mongod| -> Collection<Document> {
        cluster.client().database("shop").collection("sold")
    };
    sold(&env.a).insert_one(order(8, "EU", 1)).await.unwrap();
    let unpaired = |status: &Value| {
        status["unpaired_namespaces"]
            .to_string()
            .contains("shop.orders")
    };
    tandem.wait_status("it is named", SOON, unpaired).await;
    pass(env, 8).await;
    assert_eq!(sold(&env.b).count_documents(doc! {}).await.unwrap(), 0);
    let secret = doc! { "card": { "$exists": true } };
    assert_eq!(env.orders_b().count_documents(secret).await.unwrap(), 0);
}

const DIVIDES: &str = r#"
[[filters]]
namespace = "shop.orders"
filter = { "$expr" = { "$gt" = [{ "$divide" = [10, "$n"] }, 1] } }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_fails_on_a_document_stops_the_link_until_that_is_corrected() {
    let env = TestEnv::start().await;
    let orders = env.orders_a();
    let link = env.link().one_way().lanes(1).extra(DIVIDES);
    let mut tandem = env.streaming(&link).await;
    let nothing = doc! { "_id": 2, "n": 0 };
    orders.insert_one(nothing).await.unwrap();
    assert_eq!(tandem.wait_exit(SOON).await, 1);
    let last = tandem.status()["last_error"].to_string();
    assert!(last.contains("can't $divide by zero"), "{last}");
    assert!(last.contains("correct the document"), "{last}");
    set(&orders, 2, doc! { "n": 2 }).await;
    let mut tandem = env.streaming(&link).await;
    pass(&env, 2).await;
    assert_eq!(on_b(&env, 2).await, Some(doc! { "_id": 2, "n": 2 }));
    tandem.stop().await;
}
