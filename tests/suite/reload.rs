//! The configuration is read again while the link runs.

use std::time::Duration;

use bson::{Document, doc};
use serde_json::Value;

use crate::support::compare::assert_converged_by;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(20);

/// Longer than the whole test may take at this rate.
const DOCUMENTS: i32 = 3000;

const REFUSED_LINE: &str = "this key is not reloaded";

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_what_may_change_refuses_the_rest_by_name_and_a_broken_file_changes_nothing()
{
    let env = TestEnv::start().await;
    let throttled = |rate: u32| {
        let mut link = env.link().lanes(2);
        link.extra = format!("operations_per_second_max = {rate}\n");
        link
    };
    let mut tandem = env.streaming(&throttled(20)).await;
    // With a file of its own: the one of the process will be broken.
    let outside = env.tandem_named("outside.toml", &env.link());
    let documents = (0..DOCUMENTS).map(|id| doc! { "_id": id });
    env.orders_a().insert_many(documents).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let arrived = env.orders_b().count_documents(doc! {}).await.unwrap();
    assert!(arrived < 120, "{arrived} of 20 a second after some 2 s");

    env.tandem(&throttled(100_000));
    tandem.sighup();
    assert_converged_by(&outside, &env, SOON).await;
    let last = outside.status()["last_reload"].clone();
    assert_eq!(
        last["taken"][0], "apply.operations_per_second_max",
        "{last}"
    );
    assert_eq!(last["refused"], serde_json::json!([]));

    let more = "[log]\nlevel = \"error\"\n[conflicts]\nretention = \"1d\"\ntie = \"b\"";
    env.tandem(&throttled(100_000).lanes(3).extra(more));
    let output = tandem.run(&["reload"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    for told in [
        "taken: conflicts.retention, log.level",
        "apply.lanes: it takes effect at the next start",
        "conflicts.tie: it cannot be changed later",
    ] {
        assert!(stderr.contains(told), "{told}: {stderr}");
    }
    let lines = tandem.log().matches(REFUSED_LINE).count();
    tandem.sighup();
    let again = |status: &Value| status["last_reload"]["taken"] == serde_json::json!([]);
    outside.wait_status("reloaded again", SOON, again).await;
    // Warnings are below the level that was taken.
    assert_eq!(tandem.log().matches(REFUSED_LINE).count(), lines);

    env.tandem(&throttled(5).extra("[nonsense]"));
    tandem.sighup();
    let failed = |status: &Value| {
        let error = status["last_reload"]["error"].as_str();
        error.is_some_and(|error| error.contains("nonsense: unknown key"))
    };
    outside
        .wait_status("the file is refused", SOON, failed)
        .await;
    let output = outside.run(&["status"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains("nonsense"), "{shown}");
    let documents = (0..DOCUMENTS).map(|id| doc! { "_id": DOCUMENTS + id });
    env.orders_b().insert_many(documents).await.unwrap();
    assert_converged_by(&outside, &env, SOON).await;
    tandem.stop().await;
    assert_what_was_reloaded_outlives_another_number_of_lanes(&env, throttled).await;
    let nobody = outside.run(&["reload"]);
    assert_eq!(nobody.status.code(), Some(2));
}

/// The link is taken over once more by the process itself, once everything from before has arrived.
async fn assert_what_was_reloaded_outlives_another_number_of_lanes(
    env: &TestEnv,
    throttled: impl Fn(u32) -> LinkConfig,
) {
    let backlog = (0..300).map(|id| doc! { "_id": format!("backlog {id}") });
    env.orders_a().insert_many(backlog).await.unwrap();
    let mut tandem = env.tandem(&throttled(20).lanes(3));
    tandem.start();
    let drains = |status: &Value| status["state"] == "running";
    tandem.wait_status("it drains", SOON, drains).await;
    env.tandem(&throttled(100_000).lanes(3));
    tandem.sighup();
    wait_for("there are three lanes", SOON, || async {
        let checkpoints = env.b.client().database("__tandem");
        let checkpoints = checkpoints.collection::<Document>("checkpoints");
        let three = checkpoints.find_one(doc! { "lane": 2 }).await.unwrap();
        three.map(|_| ())
    })
    .await;
    let more = (0..DOCUMENTS).map(|id| doc! { "_id": format!("more {id}") });
    env.orders_a().insert_many(more).await.unwrap();
    assert_converged_by(&tandem, env, SOON).await;
    let last = tandem.status()["last_reload"].clone();
    assert_eq!(
        last["taken"][0], "apply.operations_per_second_max",
        "{last}"
    );
    tandem.stop().await;
}
