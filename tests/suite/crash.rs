//! Killed at any moment, or cut off from an answer, it loses nothing and applies nothing twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::StreamExt;
use mongodb::Collection;
use mongodb::change_stream::ChangeStream;
use mongodb::change_stream::event::ChangeStreamEvent;

use crate::support::compare::{assert_converged, assert_converged_by, contents};
use crate::support::env::TestEnv;
use crate::support::mongod::{Mongod, MongodOptions};
use crate::support::proxy::{Cut, Proxy};
use crate::support::random::{Random, seed};
use crate::support::wait::wait_for;
use crate::support::workload::{Workload, documents_of};

const KILLS: usize = 20;
const SOON: Duration = Duration::from_secs(30);
/// An application's write right after a restart.
const UNBLOCKED_TIME_MAX: Duration = Duration::from_secs(1);

/// Writes to few documents until told to stop.
fn steady_load(seed: u64, stop: &Arc<AtomicBool>) -> Workload {
    Workload::new(seed, 1)
        .keys(300)
        .pause(Duration::from_millis(5))
        .until(stop.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_two_writers_still_agree() {
    let env = TestEnv::start().await;
    let seed = seed("kills");
    let mut random = Random::new(seed).fork(99);
    let stop = Arc::new(AtomicBool::new(false));
    let load = steady_load(seed, &stop);
    let (a, b) = (env.a.client().clone(), env.b.client().clone());
    let mut tandem = env.streaming(&env.link()).await;
    let writers = tokio::spawn(async move { load.run(&a, &b).await });
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        tandem.kill9();
        tandem.start();
        tandem.wait_until_streaming().await;
        for orders in [env.orders_a(), env.orders_b()] {
            assert_unblocked(&orders).await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    let history = writers.await.expect("the writers end well");
    assert_converged(&env, SOON).await;
    let documents = documents_of(&contents(env.a.client()).await);
    history.assert_accounted(&documents, &tandem.all_conflicts(&env).await);
    tandem.stop().await;
    // `included` goes at the first start after every lane has put its progress on record.
    const STARTS: usize = 3;
    for start in 1..=STARTS {
        tandem.start();
        tandem.wait_until_streaming().await;
        let left = leftovers(&env).await;
        tandem.stop().await;
        println!("{left} notes left after start {start}");
        if left == 0 {
            return;
        }
    }
    panic!("notes are left after {STARTS} starts");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_lanes_loses_nothing_though_killed_on_the_way() {
    let env = TestEnv::start().await;
    let seed = seed("lanes");
    let mut random = Random::new(seed).fork(98);
    let stop = Arc::new(AtomicBool::new(false));
    let load = steady_load(seed, &stop);
    let (a, b) = (env.a.client().clone(), env.b.client().clone());
    let mut tandem = env.streaming(&env.link()).await;
    let writers = tokio::spawn(async move { load.run(&a, &b).await });
    let cores = std::thread::available_parallelism().unwrap().get() as u64;
    let of_the_machine = (2 * cores).clamp(4, 16);
    for (link, lanes) in [
        (env.link().lanes(1), 1),
        (env.link().lanes(7), 7),
        (env.link().lanes(3), 3),
        (env.link().lanes_of_the_machine(), of_the_machine),
    ] {
        tokio::time::sleep(Duration::from_millis(500)).await;
        tandem.kill9();
        env.tandem(&link);
        for _ in 0..3 {
            tandem.start();
            tokio::time::sleep(Duration::from_millis(random.below(1500))).await;
            tandem.kill9();
        }
        tandem.start();
        for client in [env.a.client(), env.b.client()] {
            let database = client.database("__tandem");
            let checkpoints = database.collection::<Document>("checkpoints");
            wait_for("as many checkpoints as lanes", SOON, || async {
                let count = checkpoints.count_documents(doc! {}).await.unwrap();
                (count == lanes).then_some(())
            })
            .await;
        }
    }
    stop.store(true, Ordering::SeqCst);
    let history = writers.await.expect("the writers end well");
    assert_converged_by(&tandem, &env, SOON).await;
    let documents = documents_of(&contents(env.a.client()).await);
    history.assert_accounted(&documents, &tandem.all_conflicts(&env).await);
    tandem.stop().await;
}

/// Notes about conflicts that are no debts: full state that nothing has asked for yet.
async fn leftovers(env: &TestEnv) -> u64 {
    let mut left = 0;
    for server in [&env.a, &env.b] {
        let keys = server.client().database("__tandem");
        let keys = keys.collection::<Document>("keys");
        let all = keys.count_documents(doc! {}).await.expect("counted");
        let debts = doc! {
            "owed": { "$exists": true },
            "paid": { "$exists": false },
            "included": { "$exists": false },
        };
        left += all - keys.count_documents(debts).await.expect("counted");
    }
    left
}

/// Writes to some documents that may be in an open batch; the account leaves such writes out.
async fn assert_unblocked(orders: &Collection<Document>) {
    let set = doc! { "$set": { "version": bson::DateTime::now() } };
    let write = orders.update_many(doc! { "_id": { "$lt": 60 } }, set);
    let ended = tokio::time::timeout(UNBLOCKED_TIME_MAX, write).await;
    ended
        .expect("an application's write is blocked")
        .expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_on_the_target_never_go_back_and_no_version_appears_twice() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let (orders, there) = (env.orders_a(), env.orders_b());
    let here = orders.watch().await.expect("a change stream");
    let there = there.watch().await.expect("a change stream");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        let mut count = 0;
        while !stopped.load(Ordering::SeqCst) {
            let inc = doc! { "$inc": { "n": 1 } };
            orders
                .update_one(doc! { "_id": 1 }, inc)
                .upsert(true)
                .await
                .unwrap();
            count += 1;
        }
        count
    });
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tandem.kill9();
        tandem.start();
        tandem.wait_until_streaming().await;
    }
    stop.store(true, Ordering::SeqCst);
    let count: i32 = writer.await.unwrap();
    assert_converged(&env, SOON).await;
    // On a nobody but the application has counted, so nothing has come back.
    assert_eq!(counted(here, count).await, count);
    println!("{} steps of {count} on b", counted(there, count).await);
    tandem.stop().await;
}

/// Follows a counter until it has come to `last`, and never goes back; gives the number of steps.
async fn counted(mut events: ChangeStream<ChangeStreamEvent<Document>>, last: i32) -> i32 {
    let (mut before, mut steps) = (0, 0);
    while before < last {
        let event = tokio::time::timeout(SOON, events.next()).await;
        let event = event
            .expect("an event")
            .expect("the stream goes on")
            .unwrap();
        let whole = event.full_document;
        let updated = event.update_description.map(|update| update.updated_fields);
        let Some(n) = whole
            .or(updated)
            .and_then(|fields| fields.get_i32("n").ok())
        else {
            continue;
        };
        assert!(n > before, "{n} after {before}");
        (before, steps) = (n, steps + 1);
    }
    steps
}

/// The process dies while the server holds its commit, and with it the document.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_a_kill_has_left_open_holds_up_nobody_after_the_restart() {
    const HELD: Duration = Duration::from_secs(20);
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let (a, b, one) = (env.orders_a(), env.orders_b(), doc! { "_id": 1 });
    a.insert_one(&one).await.unwrap();
    assert_converged(&env, SOON).await;
    let commit = doc! {
        "failCommands": ["commitTransaction"], "appName": "tandem",
        "blockConnection": true, "blockTimeMS": HELD.as_millis() as i64,
    };
    env.b.fail_command(doc! { "times": 1 }, commit).await;
    let by = |by: &str| doc! { "$set": { "by": by } };
    a.update_one(one.clone(), by("a")).await.unwrap();
    wait_for("a commit is held", SOON, async || {
        let asked = doc! { "currentOp": 1, "command.commitTransaction": 1 };
        let held = env.b.admin(asked).await;
        (!held.get_array("inprog").unwrap().is_empty()).then_some(())
    })
    .await;
    tandem.kill9();
    let blocked = doc! { "update": "orders", "maxTimeMS": 200, "updates": [{ "q": one.clone(), "u": by("b") }] };
    let shop = b.client().database("shop");
    shop.run_command(blocked).await.expect_err("it is held");
    let started = Instant::now();
    tandem.start();
    // Long before the server comes to the commit. The start itself is a part of that time.
    let write = b.update_one(one, by("b"));
    let ended = tokio::time::timeout(HELD / 2, write).await;
    ended.expect("it is blocked").expect("written");
    println!("unblocked {:?} after the start", started.elapsed());
    tandem.wait_until_streaming().await;
    assert_converged_by(&tandem, &env, SOON).await;
    tandem.stop().await;
}

/// Many batches, of several of which some are there already.
#[tokio::test(flavor = "multi_thread")]
async fn large_transactions_that_are_killed_on_their_way_arrive_whole() {
    const DOCUMENTS: i32 = 2000;
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let link = env.link().extra("batch_operations_max = 50");
    let mut tandem = env.streaming(&link).await;
    let mut random = Random::new(seed("large_transactions")).fork(96);
    let orders = env.orders_a();
    let rows = (0..DOCUMENTS).map(|id| doc! { "_id": id, "rounds": [] });
    orders.insert_many(rows).await.unwrap();
    for round in 0..4 {
        let mut session = env.a.client().start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        let push = doc! { "$push": { "rounds": round } };
        let update = orders.update_many(doc! {}, push).session(&mut session);
        update.await.unwrap();
        session.commit_transaction().await.unwrap();
        tokio::time::sleep(Duration::from_millis(random.below(400))).await;
        tandem.kill9();
        tandem.start();
    }
    tandem.wait_until_streaming().await;
    assert_converged_by(&tandem, &env, SOON).await;
    let whole = doc! { "rounds": [0, 1, 2, 3] };
    let arrived = env.orders_b().count_documents(whole).await.unwrap();
    assert_eq!(arrived, DOCUMENTS as u64);
    assert_eq!(tandem.total("conflicts_total"), 0);
    assert_eq!(tandem.total("dead_letters_total"), 0);
    tandem.stop().await;
}

#[derive(Clone, Copy)]
enum Fault {
    /// The commit runs long after tandem has given up waiting.
    Late,
    ReplyLost,
    WriteConcernError,
}

async fn applied_once_in_spite_of(fault: Fault) {
    let (proxy_a, proxy_b) = (Proxy::start().await, Proxy::start().await);
    let (a, b) = tokio::join!(
        Mongod::start_behind(MongodOptions::named("eu-set"), &proxy_a),
        Mongod::start_behind(MongodOptions::named("us-set"), &proxy_b),
    );
    let env = TestEnv::of(a, b);
    let link = env.link().extra("[timeouts]\noperation = \"1s\"");
    let mut tandem = env.streaming(&link).await;
    let orders = env.orders_a();
    for round in 0..5 {
        let commit = ["commitTransaction"];
        match fault {
            Fault::Late => {
                let block =
                    doc! { "failCommands": commit, "blockConnection": true, "blockTimeMS": 2500 };
                env.b.fail_command(doc! { "times": 1 }, block).await;
            }
            Fault::ReplyLost => proxy_b.cut(Cut::NextReplyTo("commitTransaction")),
            Fault::WriteConcernError => {
                let error = doc! { "code": 64, "errmsg": "waiting for replication timed out" };
                let data = doc! { "failCommands": commit, "writeConcernError": error };
                env.b.fail_command(doc! { "times": 1 }, data).await;
            }
        }
        for id in 0..20 {
            let inc = doc! { "$inc": { "n": 1 }, "$push": { "rounds": round } };
            let update = orders.update_one(doc! { "_id": id }, inc).upsert(true);
            update.await.unwrap();
        }
        assert_converged(&env, SOON).await;
    }
    if matches!(fault, Fault::ReplyLost) {
        assert!(proxy_b.cuts() >= 4, "{} replies were lost", proxy_b.cuts());
    }
    assert!(tandem.is_running());
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_lands_late_is_applied_once() {
    applied_once_in_spite_of(Fault::Late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_lost_is_applied_once() {
    applied_once_in_spite_of(Fault::ReplyLost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_with_a_write_concern_error_is_applied_once() {
    applied_once_in_spite_of(Fault::WriteConcernError).await;
}
