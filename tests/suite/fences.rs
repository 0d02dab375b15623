//! Nothing unseen is overwritten. Each scenario runs as it is, and once more with the check that it
//! is about switched off: then it must find something.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::{ClientSession, Collection};

use crate::support::compare::{contents, converge};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::operators::id_of;
use crate::support::oracle::{History, Side, Write};
use crate::support::random::{Random, scaled, seed};
use crate::support::tandem::Tandem;
use crate::support::workload::{Workload, documents_of};

/// Time from the last write to equal clusters, at most; how long it takes is `two_way`'s matter.
const CONVERGE_TIME_MAX: Duration = Duration::from_secs(60);
/// The same where they are not expected to become equal.
const DIVERGE_TIME_MAX: Duration = Duration::from_secs(3);
/// A race may need several tries.
const ROUNDS_MAX: usize = 6;

/// Which check is missing.
#[derive(Clone, Copy)]
enum Check {
    None,
    Missing(&'static str),
}

impl Check {
    async fn streaming(self, env: &TestEnv, link: &LinkConfig) -> Tandem {
        let mut tandem = env.tandem(link);
        if let Check::Missing(fault) = self {
            tandem.env("TANDEM_FAULT", fault);
        }
        tandem.start();
        tandem.wait_until_streaming().await;
        tandem
    }

    fn patience(self) -> Duration {
        match self {
            Check::None => CONVERGE_TIME_MAX,
            Check::Missing(_) => DIVERGE_TIME_MAX,
        }
    }

    /// Everything that is wrong once the load is over.
    async fn violations(self, env: &TestEnv, tandem: &Tandem, history: &History) -> Vec<String> {
        if let Err(differences) = converge(env, self.patience()).await {
            return vec![differences];
        }
        let documents = documents_of(&contents(env.a.client()).await);
        history.check(&documents, &tandem.all_conflicts(env).await)
    }
}

fn assert_none(violations: &[String]) {
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

/// Runs a scenario without its check until it finds something.
async fn assert_noticed<F>(scenario: impl Fn() -> F)
where
    F: Future<Output = Vec<String>>,
{
    for round in 1..=ROUNDS_MAX {
        let found = scenario().await;
        if let Some(first) = found.first() {
            println!("round {round}: {} violations, {first}", found.len());
            return;
        }
    }
    panic!("nobody noticed in {ROUNDS_MAX} rounds");
}

/// One document, so that every commit races an application's write.
async fn race_every_commit(check: Check) -> Vec<String> {
    const RACES: usize = 5000;
    /// One in ten.
    const REFUSED: usize = 500;
    /// About as long as a transaction of tandem, so that a write falls into many of them, and some
    /// are left alone: waits after refusals grow.
    const PAUSE: Duration = Duration::from_millis(6);
    let env = TestEnv::start().await;
    let mut load = Workload::new(seed("races"), scaled(RACES))
        .keys(1)
        .namespaces(&["shop.orders"])
        .pause(PAUSE);
    load.writers_per_side = 1;
    let tandem = check.streaming(&env, &env.link()).await;
    let history = load.run(env.a.client(), env.b.client()).await;
    let violations = check.violations(&env, &tandem, &history).await;
    let refused = tandem.total("fence_conflicts_total");
    println!("{refused} refused transactions");
    if matches!(check, Check::None) {
        // A short run is at the mercy of the machine.
        let least = if scaled(RACES) < RACES {
            scaled(REFUSED) / 2
        } else {
            REFUSED
        };
        assert!(
            refused >= least as u64,
            "only {refused} refused transactions"
        );
    }
    violations
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_races_every_commit_loses_no_write_unseen() {
    assert_none(&race_every_commit(Check::None).await);
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn without_the_fence_a_write_is_overwritten_unseen() {
    assert_noticed(|| race_every_commit(Check::Missing("no_fence"))).await;
}

/// Both sides delete a document, and one inserts it again while the other one's delete, which
/// changes nothing any more, is on its way. Nothing writes to it later and hides what happened.
async fn delete_what_is_gone(check: Check) -> Vec<String> {
    const KEYS: usize = 8000;
    const WRITERS: usize = 16;
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let _tandem = check.streaming(&env, &env.link()).await;
    let keys = scaled(KEYS) as i32;
    let rows = (0..keys).map(|id| doc! { "_id": id });
    env.orders_a().insert_many(rows).await.expect("inserted");
    converge(&env, CONVERGE_TIME_MAX).await.expect("equal");
    let mut random = Random::new(seed("deletes"));
    let mut writers = Vec::new();
    for first in 0..WRITERS {
        let (a, b) = (env.orders_a(), env.orders_b());
        let mut random = random.fork(first as u64);
        writers.push(tokio::spawn(async move {
            for id in (first as i32..keys).step_by(WRITERS) {
                let pause = Duration::from_micros(random.below(12_000));
                tokio::join!(delete(&a, id), delete_and_insert(&b, id, pause));
            }
        }));
    }
    for writer in writers {
        writer.await.expect("a writer ends well");
    }
    let equal = converge(&env, check.patience()).await;
    equal.err().into_iter().collect()
}

async fn delete(orders: &Collection<Document>, id: i32) {
    let delete = orders.delete_one(doc! { "_id": id });
    delete.await.expect("deleted");
}

async fn delete_and_insert(orders: &Collection<Document>, id: i32, pause: Duration) {
    delete(orders, id).await;
    tokio::time::sleep(pause).await;
    let insert = orders.insert_one(doc! { "_id": id, "x": 1 });
    insert.await.expect("inserted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_changes_nothing_hides_no_unseen_insert() {
    assert_none(&delete_what_is_gone(Check::None).await);
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn without_the_touch_a_write_that_changes_nothing_hides_an_unseen_one() {
    assert_noticed(|| delete_what_is_gone(Check::Missing("no_touch"))).await;
}

/// Few states, so that many of tandem's writes change nothing at their fence.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_change_nothing_at_the_fence_do_not_hide_unseen_ones() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let seed = seed("no_ops");
    let one_side = |side: u64, orders: Collection<Document>| async move {
        let mut random = Random::new(seed).fork(side);
        for _ in 0..scaled(10_000) {
            let (id, x) = (random.below(4) as i32, random.below(2) as i32);
            let filter = doc! { "_id": id };
            let result = match random.below(4) {
                0 => orders.delete_one(filter).await.map(|_| ()),
                1 => orders
                    .replace_one(filter, doc! { "x": x })
                    .upsert(true)
                    .await
                    .map(|_| ()),
                _ => {
                    let set = doc! { "$set": { "x": x } };
                    orders.update_one(filter, set).await.map(|_| ())
                }
            };
            // Two upserts of one key may collide: nothing was written then.
            drop(result);
        }
    };
    tokio::join!(one_side(0, env.orders_a()), one_side(1, env.orders_b()));
    converge(&env, CONVERGE_TIME_MAX).await.expect("equal");
    tandem.stop().await;
}

/// All events of a transaction share one time, so a fence can fall between them.
#[tokio::test(flavor = "multi_thread")]
async fn a_fence_between_the_events_of_one_transaction_overwrites_nothing() {
    let env = TestEnv::start().await;
    let load = Workload::new(seed("transactions"), scaled(10_000))
        .keys(30)
        .transactions(100);
    let tandem = Check::None.streaming(&env, &env.link()).await;
    let history = load.run(env.a.client(), env.b.client()).await;
    assert_none(&Check::None.violations(&env, &tandem, &history).await);
}

/// Each is more than half of what a cursor's batch holds.
const LARGE: std::ops::Range<u32> = 0..2;
const CONTESTED: std::ops::Range<u32> = 2..34;

/// The contested documents are the last ones of b's transactions, behind more than a cursor's batch
/// holds: there is a moment in which their first events are known and the last ones are not. Around
/// then a writes to each of them.
async fn split_transactions(check: Check) -> Vec<String> {
    const TRANSACTIONS: usize = 60;
    const SPREAD_MS: u64 = 250;
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let tandem = check.streaming(&env, &env.link().lanes(32)).await;
    for key in LARGE.chain(CONTESTED) {
        let row = doc! { "_id": id_of(key), "seen": [] };
        env.orders_a().insert_one(row).await.expect("inserted");
    }
    let mut random = Random::new(seed("split"));
    let mut history = History::default();
    let mut session = env.b.client().start_session().await.expect("a session");
    for number in 0..scaled(TRANSACTIONS) {
        if converge(&env, check.patience()).await.is_err() {
            break;
        }
        // tandem may still be settling what came before, and the server's cache is a small one.
        while let Err(error) = commit_large(&mut session, &env.orders_b(), number).await {
            println!("trying again: {error}");
            session.abort_transaction().await.ok();
        }
        let writes = CONTESTED.map(|key| {
            let (orders, pause) = (env.orders_a(), random.below(SPREAD_MS));
            async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let push = push(&id(Side::A, number, key));
                let update = orders.update_one(doc! { "_id": id_of(key) }, push);
                update.await.expect("updated");
            }
        });
        futures_util::future::join_all(writes).await;
        for side in [Side::A, Side::B] {
            let writes = CONTESTED.map(|key| write(side, number, key));
            history.writes.extend(writes);
        }
    }
    check.violations(&env, &tandem, &history).await
}

async fn commit_large(
    session: &mut ClientSession,
    orders: &Collection<Document>,
    number: usize,
) -> mongodb::error::Result<()> {
    let letter = char::from(b'a' + (number % 26) as u8).to_string();
    session.start_transaction().await?;
    for key in LARGE {
        let set = doc! { "$set": { "title": letter.repeat(9_000_000) } };
        let update = orders.update_one(doc! { "_id": id_of(key) }, set);
        update.session(&mut *session).await?;
    }
    for key in CONTESTED {
        let push = push(&id(Side::B, number, key));
        let update = orders.update_one(doc! { "_id": id_of(key) }, push);
        update.session(&mut *session).await?;
    }
    session.commit_transaction().await
}

fn id(side: Side, number: usize, key: u32) -> String {
    format!("{}-{number}-{key}", side.prefix())
}

fn push(id: &str) -> Document {
    doc! { "$push": { "seen": id } }
}

fn write(side: Side, number: usize, key: u32) -> Write {
    Write {
        id: id(side, number, key),
        side,
        place: ("shop.orders".to_owned(), key),
        time: ((0, 0), (0, 0)),
        removed: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_larger_than_a_batch_of_the_cursor_is_known_whole_or_not_at_all() {
    assert_none(&split_transactions(Check::None).await);
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn without_complete_times_the_rest_of_a_transaction_is_overwritten_unseen() {
    assert_noticed(|| split_transactions(Check::Missing("early_complete"))).await;
}
