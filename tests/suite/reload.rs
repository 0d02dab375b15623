//! The configuration is read again while the link runs.

use std::time::Duration;

use bson::doc;
use serde_json::Value;

use crate::support::compare::assert_converged_by;
use crate::support::env::TestEnv;

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
    let nobody = outside.run(&["reload"]);
    assert_eq!(nobody.status.code(), Some(2));
}
