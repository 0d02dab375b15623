//! A shop on two continents whose applications get in each other's way now and then.

use std::time::Duration;

use bson::{Bson, DateTime, Document, doc};
use futures_util::future::{BoxFuture, join_all};
use mongodb::options::IndexOptions;
use mongodb::{Collection, IndexModel};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SOON;
use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

pub const MANY: &str = "shop.many";
/// Found by this filter, and itself a name that no page may obey.
pub const HOSTILE: &str = "shop.<*";
const HOSTILE_NAME: &str = "<script>window.obeyed=1</script><img src=x onerror=\"obeyed=2\">";
const HOSTILE_TEXT: &str =
    "</code></script><script>window.obeyed=3</script>\"' \u{202e}turned\u{1b}[31m \u{0007}&amp;";
const MANY_TOTAL: i32 = 2000;
/// Enough for the second write to be the later one, and too little to be told of the first.
const MOMENT: Duration = Duration::from_millis(3);
const ARRIVES: Duration = Duration::from_millis(700);

type Both = [Collection<Document>; 2];

fn both(env: &TestEnv, namespace: &str) -> Both {
    let (database, collection) = namespace.split_once('.').expect("a namespace");
    [env.a.client(), env.b.client()].map(|client| client.database(database).collection(collection))
}

/// What a shop keeps in one collection, and how the two sides change the same of it.
struct Shelf {
    namespace: &'static str,
    id: fn(i32) -> Bson,
    new: fn(i32) -> Document,
    changes: fn(i32) -> [Document; 2],
    pause: Duration,
}

const SHELVES: [Shelf; 3] = [
    Shelf {
        namespace: "shop.orders",
        id: |n| format!("order-{}", 1000 + n).into(),
        new: order,
        changes: |n| {
            [
                doc! { "$set": { "state": "cancelled", "note": "by telephone" } },
                doc! { "$set": { "state": "shipped", "customer.city": "Turin", "parcels": n % 3 + 1 } },
            ]
        },
        pause: Duration::from_millis(300),
    },
    Shelf {
        namespace: "shop.items",
        id: |n| format!("item-{}", 100 + n).into(),
        new: |n| doc! { "name": "Teapot", "price": 24.5, "stock": n % 40, "tags": ["kitchen", "blue"] },
        changes: |n| {
            [
                doc! { "$inc": { "stock": -1 } },
                doc! { "$set": { "price": 19.0 + f64::from(n % 7) }, "$inc": { "stock": 12 } },
            ]
        },
        pause: Duration::from_millis(1300),
    },
    Shelf {
        namespace: "bank.accounts",
        id: |n| (70_000 + n).into(),
        new: |n| doc! { "owner": "Ada Lovelace", "balance": i64::from(n) * 100, "opened": DateTime::from_millis(1_700_000_000_000) },
        changes: |n| {
            [
                doc! { "$inc": { "balance": -25_i64 } },
                doc! { "$inc": { "balance": i64::from(n) }, "$set": { "memo": "interest" } },
            ]
        },
        pause: Duration::from_millis(2600),
    },
];

fn order(n: i32) -> Document {
    doc! {
        "customer": { "name": "Grace Hopper", "city": "London" },
        "state": "new",
        "total": 59.9 + f64::from(n % 50),
        "card": format!("4111 1111 1111 {:04}", n),
        "placed": DateTime::from_millis(1_790_000_000_000 + i64::from(n)),
        "lines": [{ "sku": "A-100", "count": 2 }, { "sku": "B-7", "count": 1 }],
    }
}

/// Collections on both sides, and an index that only us has.
pub async fn open(env: &TestEnv) {
    for namespace in [
        "shop.orders",
        "shop.items",
        "bank.accounts",
        "shop.visits",
        "shop.invoices",
    ] {
        let (database, collection) = namespace.split_once('.').expect("a namespace");
        env.create_on_both(database, collection).await;
    }
    let [_, invoices] = both(env, "shop.invoices");
    let unique = IndexOptions::builder().unique(true).build();
    let index = IndexModel::builder()
        .keys(doc! { "number": 1 })
        .options(unique)
        .build();
    invoices.create_index(index).await.expect("an index");
}

/// Applications on both sides, until they are told to stop.
pub fn writers(env: &TestEnv, stop: &CancellationToken) -> Vec<JoinHandle<()>> {
    let visits = both(env, "shop.visits").into_iter().zip([0, 1_000_000]);
    let mut all: Vec<_> = visits
        .map(|(side, first)| tokio::spawn(visitors(side, first, stop.clone())))
        .collect();
    for shelf in SHELVES {
        let sides = both(env, shelf.namespace);
        all.push(tokio::spawn(races(sides, shelf, stop.clone())));
    }
    all
}

/// Writes documents of its own, now more and now fewer.
async fn visitors(visits: Collection<Document>, first: i32, stop: CancellationToken) {
    let mut id = first;
    while !stop.is_cancelled() {
        let wave = f64::from(id - first) / 700.0;
        let some = 4 + (3.0 * wave.sin()) as i32;
        let new = (id..id + some).map(|id| doc! { "_id": id, "pages": 3, "state": "new" });
        visits.insert_many(new).await.expect("inserted");
        for left in id..id + some - 1 {
            let set = doc! { "$set": { "state": "left" } };
            visits
                .update_one(doc! { "_id": left }, set)
                .await
                .expect("updated");
        }
        if id % 3 == 0 {
            let gone = visits.delete_one(doc! { "_id": id - some });
            gone.await.expect("deleted");
        }
        id += some;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// From time to time both sides write the same document at the same moment.
async fn races(sides: Both, shelf: Shelf, stop: CancellationToken) {
    let [a, b] = &sides;
    for race in 0.. {
        // Some documents are in everybody's hands.
        let n = if race % 5 == 1 { race % 4 } else { race };
        let which = doc! { "_id": (shelf.id)(n) };
        let mut new = which.clone();
        new.extend((shelf.new)(n));
        if race % 5 > 0 {
            let written = a.replace_one(which.clone(), new.clone()).upsert(true);
            written.await.expect("written");
            tokio::time::sleep(ARRIVES).await;
        }
        let [one, other] = (shelf.changes)(n);
        let update = |side: &Collection<Document>, change: Document| -> BoxFuture<'static, ()> {
            let (side, which) = (side.clone(), which.clone());
            Box::pin(async move {
                side.update_one(which, change).await.expect("updated");
            })
        };
        // Where the other one has arrived already it replaces, and is no conflict.
        let insert = |side: &Collection<Document>, by: &str| -> BoxFuture<'static, ()> {
            let (side, which, mut new) = (side.clone(), which.clone(), new.clone());
            new.insert("made_by", by);
            Box::pin(async move {
                let written = side.replace_one(which, new).upsert(true).await;
                written.expect("written");
            })
        };
        let delete = |side: &Collection<Document>| -> BoxFuture<'static, ()> {
            let (side, which) = (side.clone(), which.clone());
            Box::pin(async move {
                side.delete_one(which).await.expect("deleted");
            })
        };
        let mut writes = match race % 5 {
            0 => vec![insert(a, "eu"), insert(b, "us")],
            1 => vec![update(a, one), update(b, other)],
            2 => vec![update(a, one), delete(b)],
            3 => vec![delete(a), update(b, other)],
            _ => vec![update(a, one.clone()), update(b, other), update(a, one)],
        };
        if race % 3 == 0 {
            writes.reverse();
        }
        let apart = writes.into_iter().zip(0..).map(async |(write, at)| {
            tokio::time::sleep(MOMENT * at).await;
            write.await;
        });
        join_all(apart).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(shelf.pause) => {}
        }
    }
}

/// What is not decided by the clock: a dead letter, a race of definitions, losers brought back.
pub async fn trouble(env: &TestEnv, tandem: &Tandem) {
    let [a, b] = both(env, "shop.orders");
    tandem.sigstop();
    for (side, order) in [(a, 1), (b, -1)] {
        let name = IndexOptions::builder().name("by_state".to_owned()).build();
        let index = IndexModel::builder()
            .keys(doc! { "state": order })
            .options(name)
            .build();
        side.create_index(index).await.expect("an index");
        tokio::time::sleep(MOMENT).await;
    }
    tandem.sigcont();
    let [invoices, _] = both(env, "shop.invoices");
    for id in ["invoice-1", "invoice-2"] {
        let invoice = doc! { "_id": id, "number": "2026-0117" };
        invoices.insert_one(invoice).await.expect("inserted");
    }
    let lost = tandem.conflicts(&["--namespace", "shop.items", "--kind", "insert_exists"]);
    for record in lost.iter().take(2) {
        let id = record["id"].as_str().expect("an id");
        let restored = tandem.run(&["conflict", "restore", id, "--yes"]);
        let stderr = String::from_utf8_lossy(&restored.stderr);
        assert_eq!(restored.status.code(), Some(0), "{stderr}");
    }
    for kind in ["dead_letter", "ddl"] {
        wait_for(kind, SOON, || async {
            (!tandem.conflicts(&["--kind", kind]).is_empty()).then_some(())
        })
        .await;
    }
}

/// Gives up what us refuses.
pub async fn end_trouble(env: &TestEnv) {
    let [invoices, _] = both(env, "shop.invoices");
    invoices.delete_many(doc! {}).await.expect("deleted");
    assert_converged(env, SOON).await;
}

/// Names, keys and values that lead somebody astray, or fit nowhere.
pub async fn hostile(env: &TestEnv, tandem: &Tandem) {
    let long = format!("<{}", "long".repeat(45));
    let hostile = [
        (HOSTILE_NAME, HOSTILE_TEXT.into()),
        (HOSTILE_NAME, "x".repeat(900).into()),
        (HOSTILE_NAME, doc! { HOSTILE_NAME: HOSTILE_TEXT }.into()),
        (long.as_str(), Bson::Int64(i64::MIN)),
        (long.as_str(), "W".repeat(100).into()),
    ];
    let shop = [env.a.client(), env.b.client()].map(|client| client.database("shop"));
    for name in [HOSTILE_NAME, long.as_str()] {
        env.create_on_both("shop", name).await;
    }
    assert_converged(env, SOON).await;
    tandem.sigstop();
    for (name, id) in &hostile {
        for (side, by) in shop.iter().zip(["eu", "us"]) {
            let document = doc! {
                "_id": id,
                HOSTILE_NAME: HOSTILE_TEXT,
                "by": by,
                "many": (0..200).collect::<Vec<i32>>(),
                "wide": format!("{by}{}", "W".repeat(3000)),
                "nested": { "one": { "two": { "three": by } } },
            };
            let side: Collection<Document> = side.collection(name);
            side.insert_one(document).await.expect("inserted");
            tokio::time::sleep(MOMENT).await;
        }
    }
    tandem.sigcont();
    on_record(tandem, HOSTILE, hostile.len()).await;
}

/// A great many at once.
pub async fn many(env: &TestEnv, tandem: &Tandem) {
    env.create_on_both("shop", "many").await;
    tandem.sigstop();
    for (side, by) in both(env, MANY).iter().zip(["eu", "us"]) {
        let all = (0..MANY_TOTAL).map(|n| doc! { "_id": n, "n": n % 7, "made_by": by });
        side.insert_many(all).await.expect("inserted");
    }
    tandem.sigcont();
    on_record(tandem, MANY, MANY_TOTAL as usize).await;
}

async fn on_record(tandem: &Tandem, namespace: &str, total: usize) {
    wait_for("all are on record", SOON, || async {
        (tandem.conflicts(&["--namespace", namespace]).len() == total).then_some(())
    })
    .await;
}
