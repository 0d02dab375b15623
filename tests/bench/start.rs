//! How long a link over many collections takes until it works.

use std::time::Instant;

use bson::{Document, doc};
use mongodb::{Client, Collection};
use tokio::task::JoinSet;

use crate::backlog::name_of;
use crate::measured::Drain;
use crate::report::{median, print_table, shown};
use crate::resources::{Memory, Resources, Servers};
use crate::roomy;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::tandem::Tandem;
use crate::through_tandem::run_to_the_end;

const COLLECTIONS: usize = 5000;

/// Collections that are made at a time.
const MAKERS: usize = 8;

const HEAD: [&str; 7] = [
    "start",
    "time, s",
    "until the write has arrived, s",
    "CPU of tandem, s",
    "of its source, s",
    "of its target, s",
    "peak memory, MB",
];

/// The first two starts are measured once: to make the collections takes longer than all the rest. After
/// the second one the link has met each of them.
pub async fn print(rounds: usize, collections: Option<usize>) {
    let collections = collections.unwrap_or(COLLECTIONS);
    let env = TestEnv::start_with(roomy("eu-set"), roomy("us-set")).await;
    eprintln!("{collections} collections: making them on both sides");
    tokio::join!(
        write_each(env.a.client(), collections, "new"),
        write_each(env.b.client(), collections, "new")
    );
    let link = env.link();
    eprintln!("the first start");
    let first = run_to_the_end(&env, &mut env.tandem(&link), None).await;
    eprintln!("a write in each collection");
    write_each(env.a.client(), collections, "paid").await;
    let in_each = run_to_the_end(&env, &mut env.tandem(&link), None).await;
    let (mut idle, mut waiting, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("round {round}: nothing waits");
        idle.push(run_to_the_end(&env, &mut env.tandem(&link), None).await);
        eprintln!("round {round}: one write waits");
        let written = Some(write_one(&env, collections, round).await);
        waiting.push(run_to_the_end(&env, &mut env.tandem(&link), written).await);
        eprintln!("round {round}: until it is ready");
        ready.push(until_ready(&env, &link).await);
    }
    let rows = [
        row("the first one, to its end", &[first]),
        row("the second, a write in each waits, to its end", &[in_each]),
        row("another one, nothing waits, to its end", &idle),
        row("another one, one write waits, to its end", &waiting),
        row("another one, until it streams both ways", &ready),
    ];
    let head_of_first = format!("start of a link over {collections} collections");
    let mut head = HEAD;
    head[0] = &head_of_first;
    print_table(&head, &rows);
}

/// Sets the one document of each, which is made where it is not there.
async fn write_each(client: &Client, collections: usize, state: &'static str) {
    let mut makers = JoinSet::new();
    for maker in 0..MAKERS {
        let shop = client.database("shop");
        makers.spawn(async move {
            for number in (maker..collections).step_by(MAKERS) {
                let collection: Collection<Document> = shop.collection(&name_of(number));
                let update = doc! { "$set": { "state": state } };
                let written = collection.update_one(doc! { "_id": number as i64 }, update);
                written.upsert(true).await.expect("written");
            }
        });
    }
    while let Some(ended) = makers.join_next().await {
        ended.expect("they are made");
    }
}

/// Returns its collection, and what finds it.
async fn write_one(env: &TestEnv, collections: usize, round: usize) -> (String, Document) {
    let shop = env.a.client().database("shop");
    let name = name_of(collections - 1);
    let last: Collection<Document> = shop.collection(&name);
    let written = doc! { "round": round as i64 };
    let update = doc! { "$set": written.clone() };
    let found = last.update_one(doc! {}, update).await.expect("updated");
    assert_eq!(found.modified_count, 1);
    (name, written)
}

async fn until_ready(env: &TestEnv, link: &LinkConfig) -> Drain {
    let mut tandem: Tandem = env.tandem(link);
    let servers = Servers::watch(Some(&env.a), Some(&env.b)).await;
    let started = Instant::now();
    tandem.start();
    tandem.wait_until_streaming().await;
    let time = started.elapsed();
    let now = Resources::of(tandem.pid()).expect("it runs");
    let cpu = servers.taken(now.cpu_seconds);
    let mut memory = Memory::default();
    memory.push(time, &now);
    tandem.stop().await;
    Drain {
        time,
        cpu,
        memory,
        ..Drain::default()
    }
}

fn row(name: &str, starts: &[Drain]) -> Vec<String> {
    let of = |number: &dyn Fn(&Drain) -> Option<f64>, digits| {
        shown(median(starts.iter().filter_map(number)), digits)
    };
    vec![
        name.to_owned(),
        of(&|start| Some(start.time.as_secs_f64()), 2),
        of(&|start| Some(start.first?.as_secs_f64()), 2),
        of(&|start| Some(start.cpu.program), 2),
        of(&|start| Some(start.cpu.source), 2),
        of(&|start| Some(start.cpu.target), 2),
        of(&|start| Some(start.memory.peak_megabytes), 0),
    ]
}
