//! How fast an initial sync copies, beside a bare loop that finds raw batches and inserts them, and
//! `mongodump | mongorestore` where both are on the PATH.

use std::time::{Duration, Instant};

use bson::{RawDocumentBuf, cstr, doc, rawdoc};
use futures_util::TryStreamExt;
use mongodb::{Client, Collection};
use tokio::task::JoinSet;

use crate::report::{median, print_table, shown};
use crate::support::env::TestEnv;
use crate::support::mongod::MongodOptions;
use crate::{DRAIN_TIME_MAX, roomy};

const MEGABYTE: u64 = 1024 * 1024;

/// Of each shape, unless told; 2048 and more say something about a real migration.
const MEGABYTES: usize = 256;

const POLL: Duration = Duration::from_millis(20);

/// Documents in a batch, and how many collections or parts the bare loop takes at once: as many
/// ranges as tandem reads at once.
const BATCH_DOCUMENTS: u32 = 1000;
const LOOPS: usize = 4;

/// What is copied.
#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    collections: u64,
    document_bytes: u64,
}

const SHAPES: [Shape; 3] = [
    Shape {
        name: "many small documents",
        collections: 1,
        document_bytes: 300,
    },
    Shape {
        name: "few large documents",
        collections: 1,
        document_bytes: 4 * MEGABYTE,
    },
    Shape {
        name: "many collections",
        collections: 500,
        document_bytes: 1024,
    },
];

struct Measured {
    time: Duration,
    documents: u64,
    bytes: u64,
}

impl Measured {
    fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / MEGABYTE as f64 / self.time.as_secs_f64()
    }

    fn documents_per_second(&self) -> f64 {
        self.documents as f64 / self.time.as_secs_f64()
    }
}

/// The same shape through everybody.
struct Round {
    tandem: Measured,
    bare: Measured,
    /// Where its tools are there.
    dumped: Option<Measured>,
}

pub async fn print(rounds: usize, megabytes: Option<usize>) {
    let megabytes = megabytes.unwrap_or(MEGABYTES) as u64;
    let bytes = megabytes * MEGABYTE;
    let mut rows = Vec::new();
    for shape in SHAPES {
        let mut of_shape = Vec::new();
        for round in 1..=rounds {
            eprintln!("{}, round {round}", shape.name);
            of_shape.push(Round {
                tandem: through_tandem(shape, bytes).await,
                bare: bare_loop(shape, bytes).await,
                dumped: dump_and_restore(shape, bytes).await,
            });
        }
        rows.push(row(shape, &of_shape));
    }
    let copied = format!("copy of {megabytes} MB");
    let head = [
        copied.as_str(),
        "tandem, MB/s",
        "documents/s",
        "bare loop, MB/s",
        "documents/s",
        "ratio",
        "dump and restore, MB/s",
        "ratio",
    ];
    print_table(&head, &rows);
}

fn row(shape: Shape, rounds: &[Round]) -> Vec<String> {
    let of = |number: &dyn Fn(&Round) -> Option<f64>, digits| {
        shown(median(rounds.iter().filter_map(number)), digits)
    };
    let rate = Measured::megabytes_per_second;
    let to = |round: &Round, other: &Measured| rate(&round.tandem) / rate(other);
    vec![
        shape.name.to_owned(),
        of(&|round| Some(rate(&round.tandem)), 1),
        of(&|round| Some(round.tandem.documents_per_second()), 0),
        of(&|round| Some(rate(&round.bare)), 1),
        of(&|round| Some(round.bare.documents_per_second()), 0),
        of(&|round| Some(to(round, &round.bare)), 2),
        of(&|round| round.dumped.as_ref().map(rate), 1),
        of(&|round| Some(to(round, round.dumped.as_ref()?)), 2),
    ]
}

/// Fresh servers for each copy, with the source filled.
async fn filled(shape: Shape, bytes: u64) -> TestEnv {
    let options = |name| MongodOptions {
        cache_gigabytes: "0.5",
        ..roomy(name)
    };
    let env = TestEnv::start_with(options("eu-set"), options("us-set")).await;
    eprintln!("{}: filling the source", shape.name);
    for number in 0..shape.collections {
        let into = collection(env.a.client(), number);
        let documents = bytes / shape.collections / shape.document_bytes;
        fill(&into, documents.max(1), shape.document_bytes as usize).await;
    }
    env
}

fn collection(client: &Client, number: u64) -> Collection<RawDocumentBuf> {
    let shop = client.database("shop");
    shop.collection(&format!("c{number:05}"))
}

async fn fill(into: &Collection<RawDocumentBuf>, documents: u64, bytes: usize) {
    let at_once = (16 * MEGABYTE as usize / bytes).clamp(1, 10_000);
    let mut some = Vec::with_capacity(at_once);
    for id in 0..documents as i64 {
        // Not all the same byte: the server compresses what it stores.
        let number = format!("{id:x} ");
        let text = number.repeat(bytes / number.len() + 1);
        let text = &text[..bytes];
        some.push(rawdoc! { "_id": id, "number": id % 1000, "text": text });
        if some.len() == at_once || id as u64 + 1 == documents {
            let full = std::mem::take(&mut some);
            into.insert_many(full).await.expect("inserted");
        }
    }
}

/// From the start of the process until it says that the copy is done.
async fn through_tandem(shape: Shape, bytes: u64) -> Measured {
    let env = filled(shape, bytes).await;
    let copy = "[initial_sync]\nmode = \"copy\"";
    let mut tandem = env.tandem(&env.link().one_way().extra(copy));
    tandem.run_with(&["--until-caught-up"]);
    eprintln!("{}: through tandem", shape.name);
    let started = Instant::now();
    tandem.start();
    while tandem.is_running() {
        assert!(started.elapsed() < DRAIN_TIME_MAX, "tandem never arrives");
        tokio::time::sleep(POLL).await;
    }
    let time = started.elapsed();
    let code = tandem.wait_exit(DRAIN_TIME_MAX).await;
    assert_eq!(code, 0, "{}", tandem.log());
    measured(&env, shape, time).await
}

/// What has arrived, which must be everything.
async fn measured(env: &TestEnv, shape: Shape, time: Duration) -> Measured {
    let (documents, bytes) = size(env.b.client(), shape).await;
    assert_eq!((documents, bytes), size(env.a.client(), shape).await);
    Measured {
        time,
        documents,
        bytes,
    }
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// What people copy with where nobody writes; none where the tools are not there.
async fn dump_and_restore(shape: Shape, bytes: u64) -> Option<Measured> {
    if !is_on_path("mongodump") || !is_on_path("mongorestore") {
        return None;
    }
    let env = filled(shape, bytes).await;
    eprintln!("{}: through mongodump and mongorestore", shape.name);
    let started = Instant::now();
    let tools = "mongodump --quiet --uri \"$A\" --db shop --archive | \
                 mongorestore --quiet --uri \"$B\" --archive";
    let ended = tokio::process::Command::new("bash")
        .args(["-o", "pipefail", "-c", tools])
        .env("A", env.a.uri())
        .env("B", env.b.uri())
        .status();
    assert!(ended.await.expect("bash runs").success());
    Some(measured(&env, shape, started.elapsed()).await)
}

/// The limit: what goes through one process that does nothing but find and insert.
async fn bare_loop(shape: Shape, bytes: u64) -> Measured {
    let env = filled(shape, bytes).await;
    eprintln!("{}: through a bare loop", shape.name);
    let started = Instant::now();
    let mut left = parts(env.a.client(), shape).await.into_iter();
    let mut running = JoinSet::new();
    loop {
        while running.len() < LOOPS
            && let Some((number, from, to)) = left.next()
        {
            let (a, b) = (env.a.client().clone(), env.b.client().clone());
            running.spawn(async move { copy_part(&a, &b, number, from, to).await });
        }
        match running.join_next().await {
            Some(ended) => ended.expect("a part is copied"),
            None => break,
        }
    }
    measured(&env, shape, started.elapsed()).await
}

/// Whole collections, or a single one in as many parts as there are loops.
async fn parts(client: &Client, shape: Shape) -> Vec<(u64, i64, i64)> {
    if shape.collections > 1 {
        return (0..shape.collections)
            .map(|number| (number, 0, i64::MAX))
            .collect();
    }
    let counted = collection(client, 0).estimated_document_count().await;
    let documents = counted.expect("counted") as i64;
    let step = documents / LOOPS as i64 + 1;
    let parts = (0..LOOPS as i64).map(|part| (0, part * step, (part + 1) * step));
    parts.collect()
}

async fn copy_part(a: &Client, b: &Client, number: u64, from: i64, to: i64) {
    let name = format!("c{number:05}");
    let find = rawdoc! {
        "find": name.as_str(),
        "filter": { "_id": { "$gte": from, "$lt": to } },
        "batchSize": i64::from(BATCH_DOCUMENTS),
        "readConcern": { "level": "majority" },
    };
    let (shop_a, shop_b) = (a.database("shop"), b.database("shop"));
    let cursor = shop_a
        .run_raw_cursor_command(find)
        .batch_size(BATCH_DOCUMENTS)
        .batch();
    let mut cursor = cursor.await.expect("find");
    while let Some(batch) = cursor.try_next().await.expect("a batch") {
        let mut documents = bson::RawArrayBuf::new();
        for document in batch.doc_slices().expect("documents") {
            documents.push(document.expect("a document"));
        }
        if documents.is_empty() {
            continue;
        }
        let mut insert = rawdoc! { "insert": name.as_str(), "ordered": false };
        insert.append(cstr!("writeConcern"), rawdoc! { "w": "majority" });
        insert.append(cstr!("documents"), documents);
        shop_b.run_raw_command(insert).await.expect("inserted");
    }
}

async fn size(client: &Client, shape: Shape) -> (u64, u64) {
    let (mut documents, mut bytes) = (0, 0);
    for number in 0..shape.collections {
        let stats = doc! { "collStats": collection(client, number).name() };
        let stats = client.database("shop").run_command(stats).await;
        let stats = stats.expect("collStats");
        let number = |name: &str| match stats.get(name) {
            Some(bson::Bson::Int32(number)) => *number as u64,
            Some(bson::Bson::Int64(number)) => *number as u64,
            Some(bson::Bson::Double(number)) => *number as u64,
            _ => 0,
        };
        documents += number("count");
        bytes += number("size");
    }
    (documents, bytes)
}
