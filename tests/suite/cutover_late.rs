//! What a killed cutover leaves to the next one, and what it has sent and arrives too late.

use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt;

use crate::cutover::{must_arrive, must_succeed};
use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::mongod::Mongod;
use crate::support::wait::{wait_for, wait_for_step};

const SOON: Duration = Duration::from_secs(60);
/// Longer than the next cutover takes.
const HELD: Duration = Duration::from_secs(15);

/// Whether the one write that decides a cutover stands still inside the server.
async fn is_held(target: &Mongod) -> bool {
    let all = vec![doc! { "$currentOp": { "allUsers": true } }];
    let operations = target.client().database("admin").aggregate(all).await;
    let found: Vec<Document> = operations
        .expect("operations")
        .try_collect()
        .await
        .expect("operations");
    found.iter().any(|one| decides(one).is_some())
}

fn decides(operation: &Document) -> Option<&Document> {
    let updates = operation.get_document("command").ok()?.get_array("updates");
    let update = updates.ok()?.first()?.as_document()?.get_document("u");
    let set = update.ok()?.get_document("$set").ok()?;
    set.get_document("standing").ok()
}

/// Returns once the decision is held, or not any more.
pub async fn wait_held(target: &Mongod, is_there: bool) {
    wait_for("the decision", SOON, || async {
        (is_held(target).await == is_there).then_some(())
    })
    .await;
}

/// It once began the cutover anew after its end, with the positions of before.
#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_killed_while_it_decides_is_taken_up_again_and_decides_nothing_later() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut link = env.link().one_way();
    // Nothing else writes to `links` meanwhile.
    link.lease_duration = "1h".to_owned();
    let (a, b) = (env.a.client(), env.b.client());
    let mut tandem = env.streaming(&link).await;
    must_arrive(a, b, "before").await;
    let mut killed = env.tandem(&link);
    killed.start_command(&["cutover", "--reverse", "--yes"]);
    wait_for_step(b, "last_drain").await;
    let held = doc! {
        "failCommands": ["update"], "namespace": "__tandem.links", "appName": "tandem",
        "blockConnection": true, "blockTimeMS": HELD.as_millis() as i64,
    };
    env.b.fail_command(doc! { "times": 1 }, held).await;
    wait_held(&env.b, true).await;
    killed.kill9();
    must_succeed(&tandem, &["--reverse", "--skip-verify"]);
    let standing = standings(&env).await;
    println!(
        "the decision was held for long enough: {}",
        is_held(&env.b).await
    );
    wait_held(&env.b, false).await;
    assert_eq!(standings(&env).await, standing);
    tandem.kill9();
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_eq!(tandem.status()["direction"], "b-to-a");
    must_arrive(b, a, "on us").await;
    let shown = must_succeed(&tandem, &["--reverse", "--skip-verify"]);
    assert_eq!(shown["from"], "us");
    must_arrive(a, b, "on eu").await;
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

/// It once waited for ever for the target's writes to arrive on a source that it had blocked itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_two_way_cutover_killed_behind_its_block_goes_on_though_the_target_is_written_to() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link();
    let mut tandem = env.streaming(&link).await;
    let mut killed = env.tandem(&link);
    for step in ["drain", "last_drain"] {
        killed.start_command(&["cutover", "--reverse", "--yes"]);
        wait_for_step(env.b.client(), step).await;
        killed.kill9();
        let row = doc! { "_id": step };
        env.orders_b().insert_one(row).await.expect("written");
    }
    must_succeed(&tandem, &["--reverse"]);
    must_arrive(env.b.client(), env.a.client(), "on us").await;
    must_arrive(env.a.client(), env.b.client(), "on eu").await;
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

/// What each cluster says of the direction, and of a cutover that is under way.
async fn standings(env: &TestEnv) -> Vec<(Option<Document>, Option<Document>)> {
    let mut found = Vec::new();
    for client in [env.a.client(), env.b.client()] {
        let links = client.database("__tandem").collection::<Document>("links");
        let link = links.find_one(doc! {}).await.unwrap().expect("the link");
        let part = |name| link.get_document(name).ok().cloned();
        found.push((part("standing"), part("cutover")));
    }
    found
}
