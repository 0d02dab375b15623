//! A collection that is no longer replicated can be taken up again.

use std::time::Duration;

use bson::doc;
use serde_json::{Value, json};

use crate::support::compare::assert_converged;
use crate::support::env::{TestEnv, raw_by_id};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

fn resynced(tandem: &Tandem, namespace: &str) -> String {
    let output = tandem.run(&["resync", "--namespace", namespace]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{namespace}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_takes_up_again_what_a_drop_had_ended() {
    let env = TestEnv::start().await;
    let (shop_a, shop_b) = (
        env.a.client().database("shop"),
        env.b.client().database("shop"),
    );
    let mut tandem = env.streaming(&env.link()).await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    let gone = shop_a.collection("gone");
    gone.insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    env.orders_a().drop().await.unwrap();
    gone.drop().await.unwrap();
    let both =
        |status: &Value| status["unpaired_namespaces"] == json!(["shop.gone", "shop.orders"]);
    tandem.wait_status("both are named", SOON, both).await;
    env.orders_a().insert_one(doc! { "_id": 2 }).await.unwrap();
    let on_b = shop_b.collection::<bson::Document>("gone");
    on_b.drop().await.unwrap();

    let said = resynced(&tandem, "shop.orders");
    assert!(said.contains("with the link stopped"), "{said}");
    tandem.stop().await;
    let said = resynced(&tandem, "shop.orders");
    assert!(said.contains("resynced 1 namespaces"), "{said}");
    let left = &tandem.status()["unpaired_namespaces"];
    assert_eq!(left, &json!(["shop.gone"]), "only what was named");
    resynced(&tandem, "shop.gone");
    assert_eq!(tandem.status()["unpaired_namespaces"], json!([]));
    assert_converged(&env, SOON).await;
    assert!(raw_by_id(&env.orders_a(), 1).await.is_some());
    assert!(raw_by_id(&env.orders_b(), 2).await.is_some());

    tandem.start();
    tandem.wait_until_streaming().await;
    env.orders_b().insert_one(doc! { "_id": 3 }).await.unwrap();
    on_b.insert_one(doc! { "_id": 4 }).await.unwrap();
    wait_for("it is replicated again", SOON, || {
        raw_by_id(&env.orders_a(), 3)
    })
    .await;
    wait_for("and that one", SOON, || raw_by_id(&gone, 4)).await;
    tandem.stop().await;
}
