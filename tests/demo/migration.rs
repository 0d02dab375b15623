//! The migration: eu moves to a new cluster while it is written to, and could come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::{Client, Collection};
use tokio::task::JoinHandle;

use crate::link::Link;
use crate::mongod::{Mongod, MongodOptions};
use crate::narrate::{Narrator, grouped};
use crate::stage::{OPLOG_MEGABYTES, cities_of};
use crate::{Arguments, Outcome, POLL, proof};

const WRITERS: u64 = 4;
const PAUSE: Duration = Duration::from_millis(2);
/// As the server refuses a write while writes are blocked.
const WRITES_BLOCKED: i32 = 371;
const COPY_TIME_MAX: Duration = Duration::from_secs(120);
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(20);
const LINES_MAX: usize = 20;

/// Moves what is on `eu` to a new cluster.
pub async fn move_to_new(
    arguments: &Arguments,
    narrator: &mut Narrator,
    eu: &Mongod,
) -> Outcome<()> {
    narrator.heading("A migration");
    narrator.say("eu is to move to a new, empty cluster, while applications go on writing to it.");
    let options = MongodOptions {
        oplog_megabytes: OPLOG_MEGABYTES,
        ..MongodOptions::named("new")
    };
    let new = Mongod::start(options).await;
    let dir = arguments.dir.join("migration");
    std::fs::create_dir(&dir)?;
    let mut link = Link::new(&arguments.tandem, &dir, &configuration(eu, &new))?;
    link.show(narrator, &["run", "--dry-run"], LINES_MAX)?;

    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| spawn_writer(eu.client().clone(), number, written.clone()))
        .collect();
    let started = Instant::now();
    narrator.command("tandem run &");
    link.start_within(COPY_TIME_MAX).await?;
    narrator.say(&format!(
        "Copied and caught up in {:.1} s; {} writes came to eu meanwhile.",
        started.elapsed().as_secs_f64(),
        grouped(written.load(Ordering::Relaxed))
    ));
    narrator.say("Are both equal, while they are written to? Lag is not a difference.");
    link.show(narrator, &["verify"], LINES_MAX)?;

    narrator.say("Cut over: eu refuses writes, the rest is drained, both are compared once more,");
    narrator.say("and the link turns round, so that there is a way back.");
    link.show(narrator, &["cutover", "--reverse", "--yes"], LINES_MAX)?;
    let mut acknowledged = 0;
    for writer in writers {
        acknowledged += writer.await??;
    }
    let arrived = visits(new.client()).count_documents(doc! {}).await?;
    if arrived != acknowledged {
        return Err(format!("{acknowledged} writes acknowledged, {arrived} arrived").into());
    }
    narrator.good(&format!(
        "eu acknowledged {} writes until it refused; the new cluster has every one.",
        grouped(acknowledged)
    ));

    narrator.say("The applications write to the new cluster now, and eu follows it:");
    let largest = cities_of(new.client());
    let change = doc! { "$set": { "moved": true } };
    let found = largest.find_one(doc! {}).sort(doc! { "population": -1 });
    let key = doc! { "_id": found.await?.ok_or("a city")?.get("_id") };
    largest.update_one(key.clone(), change).await?;
    wait_for_move(&cities_of(eu.client()), key).await?;
    narrator.good("a write on the new cluster has arrived on eu.");
    link.show(narrator, &["runs"], LINES_MAX)?;
    let sides = [("eu", eu.client()), ("new", new.client())];
    proof::are_equal(narrator, sides).await?;
    let code = link.stop().await?;
    match code {
        Some(0) => Ok(()),
        code => Err(format!("tandem ended with {code:?}\n{}", link.log_tail()).into()),
    }
}

fn visits(client: &Client) -> Collection<Document> {
    client.database("geo").collection("visits")
}

/// Writes until the cluster refuses; gives how many writes it acknowledged.
fn spawn_writer(client: Client, number: u64, all: Arc<AtomicU64>) -> JoinHandle<Outcome<u64>> {
    tokio::spawn(async move {
        let visits = visits(&client);
        for count in 0.. {
            let visit = doc! { "_id": format!("{number}/{count}"), "by": number as i64 };
            if let Err(error) = visits.insert_one(visit).await {
                let refused = error.to_string().contains(&WRITES_BLOCKED.to_string());
                return if refused {
                    Ok(count)
                } else {
                    Err(error.into())
                };
            }
            all.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        unreachable!("the cluster refuses before")
    })
}

async fn wait_for_move(cities: &Collection<Document>, mut key: Document) -> Outcome<()> {
    key.insert("moved", true);
    let deadline = Instant::now() + ARRIVAL_TIME_MAX;
    while cities.find_one(key.clone()).await?.is_none() {
        if Instant::now() > deadline {
            return Err("the write does not arrive on eu".into());
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn configuration(eu: &Mongod, new: &Mongod) -> String {
    format!(
        "[link]\nname = \"eu-new\"\nmode = \"one-way\"\n\n\
         [clusters.a]\nname = \"eu\"\nuri = {:?}\n\n\
         [clusters.b]\nname = \"new\"\nuri = {:?}\n\n\
         [namespaces]\ninclude = [\"geo.*\"]\n\n\
         [initial_sync]\nmode = \"copy\"\n",
        eu.uri(),
        new.uri()
    )
}
