//! Collections that b calls otherwise than a does.

mod changes;
mod refused;
mod sync;

use std::time::{Duration, Instant};

use bson::{Bson, Document, doc};
use mongodb::{Client, Collection};
use serde_json::Value;

use crate::support::compare::{Contents, contents, differences};
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::Mongod;
use crate::support::oracle::Side;
use crate::support::random::{Random, seed};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(40);
const POLL: Duration = Duration::from_millis(50);
const RENAMES: &str = r#"
[[renames]]
a = "shop.*"
b = "shop_eu.*"
[[renames]]
a = "bank.log"
b = "audit.bank_log"
[[renames]]
a = "bank.accounts"
b = "bank.accounts_eu"
[[renames]]
a = "left.*"
b = "right.*"
[[renames]]
a = "right.*"
b = "left.*"
"#;

/// What is included by its name on a, and by that on b.
const NAMES: [(&str, &str); 5] = [
    ("left.", "right."),
    ("right.", "left."),
    ("shop.", "shop_eu."),
    ("bank.log", "audit.bank_log"),
    ("bank.accounts", "bank.accounts_eu"),
];

const NAMES_WRITTEN: [&str; 6] = [
    "shop.orders",
    "shop.items",
    "bank.accounts",
    "bank.other",
    "left.x",
    "right.x",
];

fn renaming(env: &TestEnv) -> LinkConfig {
    let mut link = env.link();
    let include = ["shop.*", "/^bank\\.[a-z]+$/", "left.*", "right.*"];
    link.include = include.map(str::to_owned).to_vec();
    link.extra(RENAMES)
}

fn of(client: &Client, name: &str) -> Collection<Document> {
    let (database, collection) = name.split_once('.').expect("a namespace");
    client.database(database).collection(collection)
}

fn on_b(name: &str) -> String {
    let renamed = NAMES.iter().find_map(|(a, b)| {
        let rest = name.strip_prefix(a)?;
        (a.ends_with('.') || rest.is_empty()).then(|| format!("{b}{rest}"))
    });
    renamed.unwrap_or_else(|| name.to_owned())
}

/// The collection under its own name on each side.
fn there(cluster: &Mongod, side: Side, name: &str) -> Collection<Document> {
    match side {
        Side::A => of(cluster.client(), name),
        Side::B => of(cluster.client(), &on_b(name)),
    }
}

/// Documents that are no part of the link, under the names that the other side uses.
async fn plant_strangers(env: &TestEnv) {
    let stranger = || doc! { "_id": "stranger", "v": 1 };
    for name in ["shop.orders", "bank.log", "bank.accounts"] {
        of(env.b.client(), name)
            .insert_one(stranger())
            .await
            .unwrap();
        let on_a = of(env.a.client(), &on_b(name));
        on_a.insert_one(stranger()).await.unwrap();
    }
}

/// They are as they were, and nothing else has come to them.
async fn assert_strangers_untouched(env: &TestEnv) {
    for name in ["shop.orders", "bank.log", "bank.accounts"] {
        for stranger in [of(env.b.client(), name), of(env.a.client(), &on_b(name))] {
            let found = stranger.find_one(doc! {}).await.unwrap();
            let count = stranger.count_documents(doc! {}).await.unwrap();
            let expected = doc! { "_id": "stranger", "v": 1 };
            assert_eq!((found, count), (Some(expected), 1), "{name}");
        }
    }
}

/// What each side holds of the link, by the names on a.
async fn linked(env: &TestEnv) -> (Contents, Contents) {
    let (a, b) = tokio::join!(contents(env.a.client()), contents(env.b.client()));
    let databases = ["shop.", "bank.", "left.", "right."];
    let is_linked = |name: &str| databases.iter().any(|database| name.starts_with(database));
    let names: Vec<String> = a.keys().filter(|name| is_linked(name)).cloned().collect();
    let mut of_b = Contents::new();
    for (name, documents) in b {
        let on_a = NAMES.iter().find_map(|(on_a, on_b)| {
            let rest = name.strip_prefix(on_b)?;
            Some(format!("{on_a}{rest}"))
        });
        match on_a {
            Some(on_a) => drop(of_b.insert(on_a, documents)),
            None if on_b(&name) == name && is_linked(&name) => drop(of_b.insert(name, documents)),
            None => {}
        }
    }
    let of_a = a.into_iter().filter(|(name, _)| names.contains(name));
    let mut of_a: Contents = of_a.collect();
    of_a.remove("bank.accounts_eu");
    (of_a, of_b)
}

async fn assert_same(env: &TestEnv, tandem: &Tandem) {
    let started = Instant::now();
    loop {
        let (a, b) = linked(env).await;
        let found = differences(&a, &b);
        if found.is_empty() {
            return;
        }
        if started.elapsed() > SOON {
            let (status, log) = (tandem.status(), tandem.tail());
            panic!("{}\n{status:#}\n{log}", found.join("\n"));
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn insert(cluster: &Mongod, name: &str, id: i32) {
    let collection = of(cluster.client(), name);
    collection.insert_one(doc! { "_id": id }).await.unwrap();
}

async fn holds(cluster: &Mongod, name: &str, id: i32) -> bool {
    let found = of(cluster.client(), name);
    found.find_one(doc! { "_id": id }).await.unwrap().is_some()
}

async fn must_arrive(cluster: &Mongod, name: &str, id: i32) {
    wait_for("it arrives", SOON, || async {
        holds(cluster, name, id).await.then_some(())
    })
    .await;
}

async fn run(cluster: &Mongod, database: &str, command: Document) {
    let shown = command.to_string();
    let database = cluster.client().database(database);
    let ran = database.run_command(command).await;
    ran.unwrap_or_else(|error| panic!("{shown}: {error}"));
}

fn said(tandem: &Tandem, arguments: &[&str], code: i32) -> String {
    let output = tandem.run(arguments);
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    text
}

/// Inserts, updates, replaces and deletes, now and then a transaction over two collections.
async fn write(env: &TestEnv, side: Side, random: &mut Random, writes: usize) {
    let cluster = side_of(env, side);
    for number in 0..writes {
        let id = random.below(60) as i32;
        let only = doc! { "_id": id };
        let v = format!("{side:?}{number}");
        let name = *random.pick(&NAMES_WRITTEN);
        let collection = there(cluster, side, name);
        match random.below(8) {
            0 => drop(collection.delete_one(only).await),
            1 | 2 => {
                let whole = doc! { "_id": id, "v": v, "n": 1 };
                drop(collection.replace_one(only, whole).upsert(true).await);
            }
            3 => {
                let mut session = cluster.client().start_session().await.unwrap();
                session.start_transaction().await.unwrap();
                let log = there(cluster, side, "bank.log");
                let entry = doc! { "_id": format!("{v}/{}", random.below(1 << 30)), "of": id };
                let change = doc! { "$set": { "logged": &v } };
                let logged = log.insert_one(entry).session(&mut session).await;
                let done = collection
                    .update_one(only, change)
                    .session(&mut session)
                    .await;
                // A write of tandem's own may have come first.
                match logged.is_ok() && done.is_ok() {
                    true => drop(session.commit_transaction().await),
                    false => drop(session.abort_transaction().await),
                }
            }
            _ => {
                let change = doc! { "$set": { "v": v }, "$inc": { "n": 1 } };
                drop(collection.update_one(only, change).upsert(true).await);
            }
        }
    }
}

async fn write_on_both(env: &TestEnv, random: &mut Random, writes: usize) {
    let (mut one, mut other) = (random.fork(1), random.fork(2));
    tokio::join!(
        write(env, Side::A, &mut one, writes),
        write(env, Side::B, &mut other, writes)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_are_kept_in_step_under_their_own_names_through_conflicts_and_kills() {
    let env = TestEnv::start().await;
    let mut random = Random::new(seed("renames"));
    plant_strangers(&env).await;
    let unique = mongodb::IndexModel::builder().keys(doc! { "code": 1 });
    let unique = unique.options(
        mongodb::options::IndexOptions::builder()
            .unique(true)
            .sparse(true)
            .build(),
    );
    let orders = there(&env.b, Side::B, "shop.orders");
    orders.create_index(unique.build()).await.unwrap();
    let link = renaming(&env);
    let mut tandem = env.streaming(&link).await;
    let on_a = there(&env.a, Side::A, "shop.orders")
        .list_index_names()
        .await;
    assert!(on_a.unwrap().contains(&"code_1".to_owned()), "made on a");
    write_on_both(&env, &mut random, 150).await;
    for _ in 0..2 {
        write_on_both(&env, &mut random, 100).await;
        tandem.kill9();
        // At once: a transaction that it has left open holds writers up until the next start.
        tandem.start();
        write_on_both(&env, &mut random, 50).await;
    }
    tandem.wait_until_streaming().await;
    assert_same(&env, &tandem).await;
    assert_strangers_untouched(&env).await;
    assert_restored(&env, &tandem).await;
    assert_dead_letter_is_tried_again(&env, &tandem).await;
    let told = said(&tandem, &["verify"], 0);
    assert!(told.contains("shop.orders"), "{told}");
    assert_strangers_untouched(&env).await;
    tandem.stop().await;
}

/// A loser of each side is on record under the name on a, and is brought back under its own.
async fn assert_restored(env: &TestEnv, tandem: &Tandem) {
    for (name, loser, winner) in [
        ("shop.orders", Side::A, Side::B),
        ("shop.orders", Side::B, Side::A),
        ("left.x", Side::B, Side::A),
    ] {
        let id = format!("lost on {loser:?}");
        tandem.sigstop();
        for side in [loser, winner] {
            let document = doc! { "_id": &id, "by": format!("{side:?}") };
            let collection = there(side_of(env, side), side, name);
            collection.insert_one(document).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tandem.sigcont();
        let record = wait_for("it is on record", SOON, || async {
            let records = tandem.conflicts(&["--namespace", name]);
            let of_it = |record: &Value| record["document_key"]["_id"] == id;
            records.into_iter().find(of_it)
        })
        .await;
        assert_same(env, tandem).await;
        let record = record["id"].as_str().expect("an id").to_owned();
        said(tandem, &["conflict", "show", &record, "--now"], 0);
        let told = said(tandem, &["conflict", "restore", &record, "--yes"], 0);
        assert!(told.contains("is restored"), "{told}");
        let by = Bson::String(format!("{loser:?}"));
        for side in [Side::A, Side::B] {
            let collection = there(side_of(env, side), side, name);
            wait_for("the loser is back", SOON, || async {
                let found = collection.find_one(doc! { "_id": &id }).await.unwrap()?;
                (found.get("by") == Some(&by)).then_some(())
            })
            .await;
        }
    }
}

fn side_of(env: &TestEnv, side: Side) -> &Mongod {
    match side {
        Side::A => &env.a,
        Side::B => &env.b,
    }
}

/// Two documents of one unique value, one on each side: neither can be applied to the other one.
async fn assert_dead_letter_is_tried_again(env: &TestEnv, tandem: &Tandem) {
    tandem.sigstop();
    let one = doc! { "_id": "one", "code": 7 };
    let other = doc! { "_id": "other", "code": 7 };
    let on_a = there(&env.a, Side::A, "shop.orders");
    let on_b = there(&env.b, Side::B, "shop.orders");
    on_a.insert_one(one).await.unwrap();
    on_b.insert_one(other).await.unwrap();
    tandem.sigcont();
    let letters = wait_for("both are dead letters", SOON, || async {
        let found = tandem.conflicts(&["--kind", "dead_letter"]);
        (found.len() == 2).then_some(found)
    })
    .await;
    for letter in &letters {
        assert_eq!(letter["namespace"], "shop.orders", "{letter}");
    }
    on_b.delete_one(doc! { "_id": "other" }).await.unwrap();
    let of_one = |letter: &&Value| letter["document_key"]["_id"] == "one";
    let id = letters.iter().find(of_one).expect("that of a")["id"].clone();
    said(
        tandem,
        &["dead-letter", "retry", id.as_str().expect("an id")],
        0,
    );
    assert_same(env, tandem).await;
    let found = on_b.find_one(doc! { "_id": "one" }).await.unwrap();
    assert!(found.is_some(), "it has arrived");
}
