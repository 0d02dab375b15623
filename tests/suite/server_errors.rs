//! Errors of a server that pass are waited for and double nothing; others end the link with a reason.

use std::time::Duration;

use bson::{Document, doc};

use crate::support::compare::{assert_converged, assert_converged_by};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::fail_points::{FailPoint, kill_streams};
use crate::support::load::Load;
use crate::support::mongod::Mongod;
use crate::support::oracle::Side;
use crate::support::random::seed;
use crate::support::schema::assert_same_schema;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);

/// What a driver resumes a change stream after, but for StaleConfig (13388): a fail point cannot
/// make it up, and only shards send it. Last what drivers give up after and the next attempt does not
/// meet: CappedPositionLost, CursorKilled, Interrupted.
const RESUMABLE: [i32; 20] = [
    6, 7, 43, 63, 89, 91, 133, 150, 189, 234, 262, 9001, 10107, 11600, 11602, 13435, 13436, 136,
    237, 11601,
];

/// NotWritablePrimary, WriteConcernTimeout, MaxTimeMSExpired, Interrupted, LockTimeout,
/// WriteConflict, ExceededTimeLimit, NoSuchTransaction.
const OF_WRITES: [i32; 8] = [10107, 64, 50, 11601, 24, 112, 262, 251];

const WRITES: [&str; 3] = ["insert", "update", "delete"];
const OUT_OF_DISK_SPACE: i32 = 14031;

fn impatient(env: &TestEnv) -> LinkConfig {
    env.link()
        .extra("[timeouts]\nconnect = \"5s\"\noperation = \"1s\"")
}

/// The error twice: once for the stream that is open, and once when it is opened again.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_stream_goes_on_after_every_code_that_a_driver_resumes_after() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let stream = ["getMore", "aggregate"];
    let (a, b) = (
        FailPoint::on(&env.a, &stream),
        FailPoint::on(&env.b, &stream),
    );
    // The last thing on b is tandem's own, which the stream leaves out.
    for id in [-1, -2] {
        env.orders_a().insert_one(doc! { "_id": id }).await.unwrap();
        assert_converged(&env, SOON).await;
        b.fail(2, doc! { "errorCode": RESUMABLE[0] }).await;
    }
    for orders in [env.orders_a(), env.orders_b()] {
        orders
            .delete_one(doc! { "_id": { "$lt": 0 } })
            .await
            .unwrap();
    }
    assert_converged(&env, SOON).await;
    let load = Load::start(&env, Load::steady(seed("resumable")));
    for code in RESUMABLE {
        let error = doc! { "errorCode": code };
        tokio::join!(a.fail(2, error.clone()), b.fail(2, error));
        assert!(tandem.is_running(), "after {code}");
        let runs = |status: &serde_json::Value| status["state"] == "running";
        tandem
            .wait_status("both streams work again", SOON, runs)
            .await;
    }
    load.settle(&env, &tandem, SOON).await;
    tandem.stop().await;
}

/// The error, the exit code, and what the reason says.
fn endings() -> Vec<Ending> {
    const UNKNOWN: i32 = 5050;
    let label = ["NonResumableChangeStreamError"];
    let code = |code: i32| doc! { "errorCode": code };
    vec![
        (code(286), 5, "tandem resync"),
        (code(280), 5, "tandem resync"),
        // BSONObjectTooLarge: an event that the server cannot show.
        (code(10334), 5, "tandem resync"),
        (
            doc! { "errorCode": UNKNOWN, "errorLabels": label },
            5,
            "tandem resync",
        ),
        (code(13), 4, "grant the missing privilege"),
        (code(UNKNOWN), 1, "5050"),
        (code(7777), 1, "7777"),
    ]
}

/// A stream that is open, and one that has to be opened again.
const PLACES: [(Side, &str); 4] = [
    (Side::A, "getMore"),
    (Side::B, "aggregate"),
    (Side::B, "getMore"),
    (Side::A, "aggregate"),
];

type Ending = (Document, i32, &'static str);

async fn link_ends(env: &TestEnv, tandem: &mut Tandem, place: (Side, &'static str), by: Ending) {
    let ((side, command), (error, exit, reason)) = (place, by);
    let (mongod, other, name) = match side {
        Side::A => (&env.a, env.orders_b(), "eu"),
        Side::B => (&env.b, env.orders_a(), "us"),
    };
    let stream = FailPoint::on(mongod, &[command]);
    tandem.start();
    tandem.wait_until_streaming().await;
    let row = doc! { "code": error.get_i32("errorCode").unwrap() };
    other.insert_one(row).await.unwrap();
    stream.fail_always(error.clone()).await;
    if command == "aggregate" {
        kill_streams(mongod).await;
    }
    // Nobody reads there any more, and the lanes into it must not wait for their echo.
    let code = tandem.wait_exit(Duration::from_secs(10)).await;
    let said = tandem.tail();
    assert_eq!(code, exit, "{error} of {command} on {name}\n{said}");
    let said = said.rsplit("error: ").next().unwrap_or_default();
    assert!(said.contains(reason), "{said}");
    assert!(said.contains(&format!("change stream of {name}")), "{said}");
    stream.off().await;
}

/// Each time, and the next start goes on.
async fn link_ends_at(all: impl Iterator<Item = ((Side, &'static str), Ending)>) {
    let env = TestEnv::start().await;
    let mut tandem = env.tandem(&env.link());
    for (place, ending) in all {
        link_ends(&env, &mut tandem, place, ending).await;
    }
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_stream_that_cannot_go_on_ends_the_link_with_the_reason() {
    link_ends_at(PLACES.into_iter().cycle().zip(endings())).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: takes a minute"]
async fn long_every_code_ends_the_link_wherever_a_change_stream_meets_it() {
    let at = |place| endings().into_iter().map(move |ending| (place, ending));
    link_ends_at(PLACES.into_iter().flat_map(at)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: takes minutes"]
async fn long_errors_of_a_transaction_and_of_its_commit_pass_and_double_nothing() {
    /// A server that refuses all the time is asked again this often by eight lanes and the lease.
    const TRIES_MAX: i64 = 400;
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let load = Load::start(&env, Load::steady(seed("of_writes")));
    for commands in [WRITES.as_slice(), &["find"], &["commitTransaction"]] {
        let (a, b) = (
            FailPoint::on(&env.a, commands),
            FailPoint::on(&env.b, commands),
        );
        for code in OF_WRITES {
            let error = doc! { "errorCode": code };
            tokio::join!(a.fail(4, error.clone()), b.fail(4, error));
            assert!(tandem.is_running(), "after {code} on {commands:?}");
        }
        let time = Duration::from_secs(2);
        let error = doc! { "errorCode": 112 };
        let (a, b) = tokio::join!(a.fail_for(time, error.clone()), b.fail_for(time, error));
        println!("{a} and {b} tries of {commands:?} in {time:?}");
        assert!(a < TRIES_MAX && b < TRIES_MAX, "{a} and {b} tries");
    }
    load.settle(&env, &tandem, SOON).await;
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
}

/// Writes on a, while b refuses.
async fn insert_some(env: &TestEnv, from: i32) {
    for id in from..from + 50 {
        env.orders_a().insert_one(doc! { "_id": id }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_full_locked_or_takes_no_writes_is_waited_for() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&impatient(&env)).await;
    let time = Duration::from_secs(2);
    for (round, commands) in (1..).zip([WRITES.as_slice(), &["commitTransaction"]]) {
        let full = FailPoint::on(&env.b, commands);
        let error = doc! { "errorCode": OUT_OF_DISK_SPACE };
        full.fail_always(error).await;
        insert_some(&env, round * 100).await;
        let says = |status: &serde_json::Value| status.to_string().contains("14031");
        tandem.wait_status("it says why it waits", SOON, says).await;
        full.off().await;
        assert_converged_by(&tandem, &env, SOON).await;
    }

    let block = |on: bool| doc! { "setUserWriteBlockMode": 1, "global": on };
    env.b.admin(block(true)).await;
    insert_some(&env, 1000).await;
    tokio::time::sleep(time).await;
    env.b.admin(block(false)).await;
    assert_converged_by(&tandem, &env, SOON).await;

    env.b.admin(doc! { "fsync": 1, "lock": true }).await;
    insert_some(&env, 2000).await;
    tokio::time::sleep(time).await;
    env.b.admin(doc! { "fsyncUnlock": 1 }).await;
    assert_converged_by(&tandem, &env, SOON).await;
    assert!(tandem.is_running());
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
}

async fn lease_has_run_out(mongod: &Mongod) -> bool {
    let links = mongod.client().database("__tandem");
    let links = links.collection::<Document>("links");
    let over = doc! { "$expr": { "$lt": ["$lease_until", "$$NOW"] } };
    links.find_one(over).await.expect("links").is_some()
}

/// The collection of the lease takes no writes then either.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_takes_no_writes_for_longer_than_the_lease_ends_nothing_and_loses_nothing() {
    const BLOCKED: Duration = Duration::from_secs(4);
    let env = TestEnv::start().await;
    // A call may take longer than the lease, as it may unless told.
    let timeouts = "[timeouts]\nconnect = \"5s\"\noperation = \"5s\"";
    let mut link = env.link().extra(timeouts);
    link.lease_duration = "2s".to_owned();
    let mut tandem = env.streaming(&link).await;
    let load = Load::start(&env, Load::steady(seed("blocked")).by_majority());
    let block = |on: bool| doc! { "setUserWriteBlockMode": 1, "global": on };
    let blocks = [
        (block(true), block(false)),
        (doc! { "fsync": 1, "lock": true }, doc! { "fsyncUnlock": 1 }),
    ];
    for (mongod, other) in [(&env.a, &env.b), (&env.b, &env.a)] {
        for (on, off) in &blocks {
            mongod.admin(on.clone()).await;
            tokio::time::sleep(BLOCKED).await;
            assert!(lease_has_run_out(mongod).await, "{on}");
            assert!(!lease_has_run_out(other).await, "{on} on the other side");
            mongod.admin(off.clone()).await;
            assert!(tandem.is_running(), "{on}\n{}", tandem.tail());
            let is_renewed = || async { (!lease_has_run_out(mongod).await).then_some(()) };
            wait_for("the lease is renewed", SOON, is_renewed).await;
        }
    }
    load.settle(&env, &tandem, SOON).await;
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
}

/// A server renames nothing that an index is being built for (12587).
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_waits_for_an_index_that_is_being_built_on_the_target() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    let hold = async |mode: &str| {
        let hold = doc! { "configureFailPoint": "hangAfterStartingIndexBuild", "mode": mode };
        env.b.admin(hold).await;
    };
    hold("alwaysOn").await;
    let shop = env.b.client().database("shop");
    let index = doc! { "createIndexes": "orders", "indexes": [{ "key": { "v": 1 }, "name": "v" }] };
    let build = tokio::spawn(async move { shop.run_command(index).await });
    wait_for("the build", SOON, || async {
        let asked = doc! { "currentOp": 1, "command.createIndexes": "orders" };
        let found = env.b.admin(asked).await;
        let is_there = !found.get_array("inprog").expect("operations").is_empty();
        is_there.then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let rename = doc! { "renameCollection": "shop.orders", "to": "shop.renamed" };
    env.a.admin(rename).await;
    wait_for("it waits", SOON, || async {
        let waits = "BackgroundOperationInProgressForNamespace";
        tandem.log().contains(waits).then_some(())
    })
    .await;
    assert!(tandem.is_running());
    hold("off").await;
    build.await.unwrap().unwrap();
    assert_converged(&env, SOON).await;
    assert_same_schema(&env, SOON).await;
    tandem.stop().await;
}
