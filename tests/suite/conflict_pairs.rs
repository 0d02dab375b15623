//! Every pair of operations on one document, whoever is first, with tandem up or down meanwhile;
//! and conflicts in numbers and in transactions.

use std::time::Duration;

use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use mongodb::{Client, Collection};
use serde_json::Value;

use crate::support::compare::{assert_converged, assert_converged_by};
use crate::support::env::{TestEnv, raw_by_id};
use crate::support::mongod::MongodOptions;
use crate::support::random::scaled;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

/// What an application does to a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Insert,
    Upsert,
    SetSame,
    SetOwn,
    Replace,
    Delete,
    Recreate,
}

/// Where there is no document, and where there is one.
const ON_NOTHING: [Act; 2] = [Act::Insert, Act::Upsert];
const ON_DOCUMENT: [Act; 5] = [
    Act::SetSame,
    Act::SetOwn,
    Act::Replace,
    Act::Delete,
    Act::Recreate,
];

impl Act {
    /// `by` is whoever does it.
    async fn on(self, orders: &Collection<Document>, id: &str, by: &str) {
        let (filter, row) = (doc! { "_id": id }, doc! { "_id": id, "by": by });
        let set = match self {
            Act::SetOwn => doc! { "$set": { by: 1 } },
            _ => doc! { "$set": { "by": by } },
        };
        match self {
            Act::Insert => drop(orders.insert_one(row).await.unwrap()),
            Act::Upsert => drop(orders.update_one(filter, set).upsert(true).await.unwrap()),
            Act::SetSame | Act::SetOwn => drop(orders.update_one(filter, set).await.unwrap()),
            Act::Replace => drop(orders.replace_one(filter, row).await.unwrap()),
            Act::Delete => drop(orders.delete_one(filter).await.unwrap()),
            Act::Recreate => {
                orders.delete_one(filter).await.unwrap();
                orders.insert_one(row).await.unwrap();
            }
        }
    }

    fn events(self) -> usize {
        match self {
            Act::Recreate => 2,
            Act::Insert | Act::Upsert | Act::SetSame | Act::SetOwn | Act::Replace | Act::Delete => {
                1
            }
        }
    }
}

/// One document that both sides write.
struct Pair {
    id: String,
    first: Act,
    second: Act,
    /// The cluster that writes first.
    first_on: usize,
}

fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for acts in [&ON_NOTHING[..], &ON_DOCUMENT[..]] {
        for first in acts {
            for second in acts {
                for first_on in 0..2 {
                    pairs.push(Pair {
                        id: format!("{first:?} {second:?} {first_on}"),
                        first: *first,
                        second: *second,
                        first_on,
                    });
                }
            }
        }
    }
    pairs
}

/// As a report shows a document.
fn extended_json(document: &RawDocumentBuf) -> Value {
    let document = Document::try_from(document.as_ref()).expect("a document");
    Bson::Document(document).into_canonical_extjson()
}

async fn next_millisecond() {
    let start = DateTime::now().timestamp_millis();
    wait_for("the clock moves on", SOON, || async {
        (DateTime::now().timestamp_millis() > start + 2).then_some(())
    })
    .await;
}

/// Plays every pair while `pause` keeps tandem from seeing it, until `go_on`.
async fn play(
    env: &TestEnv,
    tandem: &mut Tandem,
    pause: impl AsyncFn(&mut Tandem),
    go_on: impl AsyncFn(&mut Tandem),
) {
    let orders = [env.orders_a(), env.orders_b()];
    let pairs = pairs();
    let given = pairs
        .iter()
        .filter(|pair| ON_DOCUMENT.contains(&pair.first));
    let given = given.map(|pair| doc! { "_id": &pair.id, "by": "nobody", "n": 1 });
    orders[0].insert_many(given).await.unwrap();
    assert_converged(env, SOON).await;
    let before = tandem.conflicts(&[]).len();

    pause(tandem).await;
    for pair in &pairs {
        pair.first
            .on(&orders[pair.first_on], &pair.id, "first")
            .await;
    }
    next_millisecond().await;
    let mut expected: Vec<[Option<RawDocumentBuf>; 2]> = Vec::new();
    for pair in &pairs {
        let later = &orders[1 - pair.first_on];
        pair.second.on(later, &pair.id, "second").await;
        let lost = raw_by_id(&orders[pair.first_on], pair.id.as_str()).await;
        expected.push([lost, raw_by_id(later, pair.id.as_str()).await]);
    }
    go_on(tandem).await;
    assert_converged_by(tandem, env, SOON).await;
    let records = tandem.all_conflicts(env).await;
    let mut total = 0;
    for (pair, [lost, won]) in pairs.iter().zip(&expected) {
        let there = raw_by_id(&orders[0], pair.id.as_str()).await;
        assert_eq!(&there, won, "{}", pair.id);
        let of_it: Vec<&Value> = records
            .iter()
            .filter(|one| one["document_key"]["_id"] == pair.id.as_str())
            .collect();
        let losers = if lost == won { 0 } else { pair.first.events() };
        assert_eq!(of_it.len(), losers, "{}: {of_it:#?}", pair.id);
        total += losers;
        for record in of_it {
            let winner = ["b", "a"][pair.first_on];
            assert_eq!(record["winner_cluster"], winner, "{}", pair.id);
            let kept = &record["losing"]["document"];
            let whole = lost.as_ref().map_or(Value::Null, extended_json);
            assert_eq!(kept, &whole, "{}: every field of the loser", pair.id);
        }
    }
    assert_eq!(records.len(), before + total, "nothing else is on record");
    for orders in &orders {
        orders.delete_many(doc! {}).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_operations_ends_with_the_later_one_whoever_is_first() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let sleep = async |tandem: &mut Tandem| tandem.sigstop();
    let wake = async |tandem: &mut Tandem| tandem.sigcont();
    play(&env, &mut tandem, sleep, wake).await;
    assert_converged(&env, SOON).await;
    tandem.stop().await;
    tandem.run(&["reset", "--clusters", "--yes"]);
    tandem.start();
    tandem.wait_until_streaming().await;
    let stop = async |tandem: &mut Tandem| tandem.stop().await;
    let start = async |tandem: &mut Tandem| {
        tandem.start();
        tandem.wait_until_streaming().await;
    };
    play(&env, &mut tandem, stop, start).await;
    assert_eq!(tandem.total("dead_letters_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_in_numbers_and_in_transactions_are_settled_one_by_one() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    let (a, b) = (env.orders_a(), env.orders_b());

    // A document that comes and goes on both sides, again and again.
    for round in 0..100 {
        let orders = [&a, &b][round % 2];
        let _ = orders
            .insert_one(doc! { "_id": "p", "n": round as i32 })
            .await;
        orders.delete_one(doc! { "_id": "p" }).await.unwrap();
        let _ = orders
            .insert_one(doc! { "_id": "p", "n": round as i32 })
            .await;
    }
    assert_converged_by(&tandem, &env, SOON).await;
    let before = tandem.all_conflicts(&env).await.len();

    // One of three documents of a transaction loses; the others stay.
    let rows = (1..=3).map(|id| doc! { "_id": id, "x": 0 });
    a.insert_many(rows).await.unwrap();
    assert_converged_by(&tandem, &env, SOON).await;
    tandem.sigstop();
    in_transaction(env.a.client(), &a).await;
    next_millisecond().await;
    let set = doc! { "$set": { "x": 2 } };
    b.update_one(doc! { "_id": 2 }, set).await.unwrap();
    tandem.sigcont();
    assert_converged_by(&tandem, &env, SOON).await;
    for (id, x) in [(1, 1), (2, 2), (3, 1)] {
        let found = raw_by_id(&b, id).await.expect("the document");
        assert_eq!(found.get_i32("x").unwrap(), x, "{id}");
    }
    let records = tandem.all_conflicts(&env).await;
    assert_eq!(records.len(), before + 1, "{records:#?}");

    // Thousands at once, and the older write of each is settled once: a restart changes nothing.
    let keys = i32::try_from(scaled(5000)).expect("few");
    tandem.stop().await;
    for (orders, by) in [(&b, "b"), (&a, "a")] {
        let rows = (0..keys).map(|n| doc! { "_id": format!("k{n}"), "by": by });
        orders.insert_many(rows).await.unwrap();
        next_millisecond().await;
    }
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged_by(&tandem, &env, SOON).await;
    tandem.all_conflicts(&env).await;
    tandem.kill9();
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged_by(&tandem, &env, SOON).await;
    let by_b = doc! { "by": "b" };
    assert_eq!(a.count_documents(by_b).await.unwrap(), 0, "the later one");
    let records = tandem.all_conflicts(&env).await.len();
    assert_eq!(records, before + 1 + keys as usize);
}

async fn in_transaction(client: &Client, orders: &Collection<Document>) {
    let mut session = client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    for id in 1..=3 {
        let set = doc! { "$set": { "x": 1 } };
        let update = orders.update_one(doc! { "_id": id }, set);
        update.session(&mut session).await.unwrap();
    }
    session.commit_transaction().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_collides_on_two_unique_indexes_stops_nothing_and_heals() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    for client in [env.a.client(), env.b.client()] {
        let indexes = ["u", "v"].map(
            |field| doc! { "key": { field: 1 }, "name": field, "unique": true, "sparse": true },
        );
        let create = doc! { "createIndexes": "orders", "indexes": indexes.to_vec() };
        client.database("shop").run_command(create).await.unwrap();
    }
    let tandem = env.streaming(&env.link()).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    tandem.sigstop();
    a.insert_one(doc! { "_id": 1, "u": 1, "v": 9 })
        .await
        .unwrap();
    b.insert_one(doc! { "_id": 2, "u": 1 }).await.unwrap();
    b.insert_one(doc! { "_id": 3, "v": 9 }).await.unwrap();
    tandem.sigcont();
    wait_for("all three are dead letters", SOON, async || {
        (tandem.total("dead_letters_total") == 3).then_some(())
    })
    .await;
    a.insert_one(doc! { "_id": 4, "u": 4 }).await.unwrap();
    wait_for("others go on", SOON, || raw_by_id(&b, 4)).await;
    let letters = tandem.conflicts(&["--kind", "dead_letter"]);
    assert_eq!(letters.len(), 3);
    assert!(
        letters
            .iter()
            .all(|one| one["index"] == "u" || one["index"] == "v")
    );
    a.delete_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged_by(&tandem, &env, SOON).await;
    assert!(raw_by_id(&a, 2).await.is_some() && raw_by_id(&a, 3).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_pair_on_the_same_clusters_by_mistake_is_refused() {
    let env = TestEnv::start().await;
    let link = env.link();
    let mut tandem = env.streaming(&link).await;
    let mut other = link.clone();
    (other.uri_a, other.uri_b) = (env.b.uri(), env.a.uri());
    (other.name, other.state_dir) = ("us-eu".to_owned(), "other-state".to_owned());
    let output = env.tandem_named("other.toml", &other).run(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("eu-us"), "{said}");
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_both_servers_delete_by_themselves_is_no_conflict() {
    let quick = |name: &str| {
        let mut options = MongodOptions::named(name);
        let often = ["--setParameter", "ttlMonitorSleepSecs=1"];
        options.args.extend(often.map(str::to_owned));
        options
    };
    let env = TestEnv::start_with(quick("eu-set"), quick("us-set")).await;
    env.create_on_both("shop", "orders").await;
    for server in [&env.a, &env.b] {
        let index = doc! { "key": { "at": 1 }, "name": "at", "expireAfterSeconds": 0 };
        let create = doc! { "createIndexes": "orders", "indexes": [index] };
        let shop = server.client().database("shop");
        shop.run_command(create).await.unwrap();
    }
    let tandem = env.streaming(&env.link()).await;
    let soon = DateTime::from_millis(DateTime::now().timestamp_millis() + 1500);
    let rows = (0..1000).map(|id| doc! { "_id": id, "at": soon });
    env.orders_a().insert_many(rows).await.unwrap();
    wait_for("they arrive", SOON, async || {
        let count = env.orders_b().count_documents(doc! {}).await.unwrap();
        (count == 1000).then_some(())
    })
    .await;
    for orders in [env.orders_a(), env.orders_b()] {
        wait_for("they are gone", SOON, async || {
            let left = orders.count_documents(doc! {}).await.unwrap();
            (left == 0).then_some(())
        })
        .await;
    }
    env.orders_a()
        .insert_one(doc! { "_id": "last" })
        .await
        .unwrap();
    assert_converged_by(&tandem, &env, SOON).await;
    assert_eq!(tandem.all_conflicts(&env).await, Vec::<Value>::new());
    assert_eq!(tandem.total("dead_letters_total"), 0);
}
