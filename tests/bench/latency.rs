//! How long a write takes to be seen on the other side: on a link with hardly anything to do, and with
//! applications that write on both sides.
//!
//! The load shares the machine with what it measures, so it is kept small: one write in a hundred is
//! looked for, each of them every millisecond. Beside the times stands what each process took of the
//! processors, which shows where the machine itself is the limit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::future::join_all;
use mongodb::options::{ClientOptions, CollectionOptions, ReadConcern, WriteConcern};
use mongodb::{Client, Collection};
use tokio::task::JoinSet;

use crate::report::median;
use crate::resources::{Resources, own_cpu_seconds};
use crate::support::env::TestEnv;
use crate::support::mongod::{Mongod, MongodOptions};
use crate::support::tandem::Tandem;

/// Of each side.
const WRITES_PER_SECOND: u32 = 1000;
const LOAD_TIME: Duration = Duration::from_secs(40);

/// Writes of each side that may be under way at once: enough where one takes 20 ms.
const WRITERS: u32 = 20;

/// What comes before is not counted: connections are made, caches are cold.
const WARM_UP: Duration = Duration::from_secs(3);

/// Beside these, one of its own that each side looks for on the other one.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
const SAMPLES_FROM: i64 = 1 << 32;
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// While hardly anything happens: one write after the other, each looked for.
const SINGLE_WRITES: i64 = 150;
const SINGLE_INTERVAL: Duration = Duration::from_millis(50);

/// The rows of the table. Those of a phase: acknowledged, seen by a read of a majority, and by one of
/// read concern local.
const ALONE: &str = "a write every 50 ms, no tandem, acknowledged by a majority";
const IDLE: [&str; 3] = [
    "a write every 50 ms, acknowledged by a majority",
    "from there until the other side shows it, read concern majority",
    "from there until the other side shows it, read concern local",
];
const LOADED: [&str; 3] = [
    "1,000 writes/s on each side, acknowledged by a majority",
    "from there until the other side shows one, read concern majority",
    "from there until the other side shows one, read concern local",
];

type Times = Arc<Mutex<BTreeMap<&'static str, Vec<Duration>>>>;

/// What one round came to.
struct Round {
    times: BTreeMap<&'static str, Vec<Duration>>,
    /// Percent of one core while the load ran, of each process.
    cpu: Vec<(&'static str, f64)>,
    writes_per_second: f64,
}

/// Prints Markdown tables, medians of the rounds.
pub async fn print(rounds: usize) {
    let mut done = Vec::new();
    for number in 1..=rounds {
        eprintln!("latency, round {number}");
        done.push(round().await);
    }
    print_times(&done);
    print_cpu(&done);
}

async fn round() -> Round {
    let env = TestEnv::start_with(
        MongodOptions::named("eu-set").with_large_cache(),
        MongodOptions::named("us-set").with_large_cache(),
    )
    .await;
    let times = Times::default();
    let a = Application::new(&env.a, &env.b, 0, &times).await;
    let b = Application::new(&env.b, &env.a, 1 << 40, &times).await;
    for number in 0..SINGLE_WRITES {
        tokio::time::sleep(SINGLE_INTERVAL).await;
        put(&times, ALONE, a.write(number).await);
    }
    a.here.drop().await.expect("dropped");
    let mut tandem = env.streaming(&env.link().lanes_of_the_machine()).await;
    a.write_slowly().await;
    let (cpu, writes_per_second) = load(&env, &tandem, [&a, &b]).await;
    tandem.stop().await;
    let times = std::mem::take(&mut *times.lock().expect("nobody panicked"));
    Round {
        times,
        cpu,
        writes_per_second,
    }
}

/// Has both sides write, and tells what each process took of the processors, and the writes a second.
async fn load(
    env: &TestEnv,
    tandem: &Tandem,
    sides: [&Application; 2],
) -> (Vec<(&'static str, f64)>, f64) {
    let (written, started) = (AtomicU32::new(0), Instant::now());
    let due = sides.map(|_| AtomicU32::new(0));
    let measured = async {
        tokio::time::sleep(WARM_UP).await;
        let before = (
            cpu_seconds(env, tandem).await,
            written.load(Ordering::Relaxed),
        );
        tokio::time::sleep(LOAD_TIME).await;
        let after = (
            cpu_seconds(env, tandem).await,
            written.load(Ordering::Relaxed),
        );
        (before, after)
    };
    let writers = (0..WRITERS).flat_map(|_| sides.iter().zip(&due));
    let writers = writers.map(|(side, due)| side.write_on(due, &written, started));
    let samples = sides.map(|side| side.sample(started));
    let ((before, after), _, _) = tokio::join!(measured, join_all(writers), join_all(samples));
    let seconds = LOAD_TIME.as_secs_f64();
    let both = before.0.into_iter().zip(after.0);
    let cpu = both.map(|((name, before), (_, after))| (name, (after - before) / seconds * 100.0));
    (cpu.collect(), f64::from(after.1 - before.1) / seconds)
}

async fn cpu_seconds(env: &TestEnv, tandem: &Tandem) -> Vec<(&'static str, f64)> {
    let of = |pid| Resources::of(pid).expect("it lives").cpu_seconds;
    let mut taken = Vec::new();
    for (name, server) in [("mongod of a", &env.a), ("mongod of b", &env.b)] {
        let status = server.admin(doc! { "serverStatus": 1 }).await;
        let pid = status.get_i64("pid").expect("a pid");
        taken.push((name, of(u32::try_from(pid).expect("a pid"))));
    }
    taken.push(("tandem", of(tandem.pid())));
    taken.push(("the load", own_cpu_seconds()));
    taken
}

/// What writes on one side and looks on the other one.
#[derive(Clone)]
struct Application {
    here: Collection<Document>,
    /// Read concern majority and local.
    there: [Collection<Document>; 2],
    /// Its first number.
    first: i64,
    times: Times,
}

impl Application {
    async fn new(here: &Mongod, there: &Mongod, first: i64, times: &Times) -> Self {
        let there = client(there).await.database("shop");
        let read = |level| {
            let options = CollectionOptions::builder().read_concern(level).build();
            there.collection_with_options("orders", options)
        };
        Self {
            here: client(here).await.database("shop").collection("orders"),
            there: [read(ReadConcern::majority()), read(ReadConcern::local())],
            first,
            times: times.clone(),
        }
    }

    async fn write(&self, number: i64) -> Duration {
        let began = Instant::now();
        let document = doc! { "_id": self.first + number, "state": "new", "text": "x".repeat(200) };
        self.here.insert_one(document).await.expect("written");
        began.elapsed()
    }

    /// Writes with negative numbers, one after the other.
    async fn write_slowly(&self) {
        for number in 0..SINGLE_WRITES {
            tokio::time::sleep(SINGLE_INTERVAL).await;
            self.write_and_look(-1 - number, IDLE).await;
        }
    }

    async fn write_and_look(&self, number: i64, rows: [&'static str; 3]) {
        let took = self.write(number).await;
        let acknowledged = Instant::now();
        put(&self.times, rows[0], took);
        let level = number.unsigned_abs() as usize % self.there.len();
        let find = || self.there[level].find_one(doc! { "_id": self.first + number });
        while find().await.expect("read").is_none() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        put(&self.times, rows[1 + level], acknowledged.elapsed());
    }

    /// One of the writers: whatever write is due next, until the load is over.
    async fn write_on(&self, due: &AtomicU32, written: &AtomicU32, started: Instant) {
        loop {
            let number = due.fetch_add(1, Ordering::Relaxed);
            let at = Duration::from_secs(1) * number / WRITES_PER_SECOND;
            if at > WARM_UP + LOAD_TIME {
                return;
            }
            tokio::time::sleep(at.saturating_sub(started.elapsed())).await;
            self.write(i64::from(number)).await;
            written.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Beside the writers: some writes of its own, each looked for.
    async fn sample(&self, started: Instant) {
        let mut looks = JoinSet::new();
        tokio::time::sleep(WARM_UP).await;
        let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
        for number in 0.. {
            ticks.tick().await;
            if started.elapsed() > WARM_UP + LOAD_TIME {
                break;
            }
            let application = self.clone();
            looks.spawn(async move {
                application
                    .write_and_look(SAMPLES_FROM + number, LOADED)
                    .await;
            });
        }
        while let Some(ended) = looks.join_next().await {
            ended.expect("it is seen");
        }
    }
}

/// A client that waits for the majority.
async fn client(server: &Mongod) -> Client {
    let options = ClientOptions::parse(server.uri()).await;
    let mut options = options.expect("a connection string");
    options.write_concern = Some(WriteConcern::majority());
    Client::with_options(options).expect("a client")
}

fn put(times: &Times, row: &'static str, took: Duration) {
    let mut times = times.lock().expect("nobody panicked");
    times.entry(row).or_default().push(took);
}

fn print_times(rounds: &[Round]) {
    println!(
        "| | median, ms | 90 %, ms | 99 %, ms | times of a round |\n\
         |---|---:|---:|---:|---:|"
    );
    for row in [ALONE].iter().chain(&IDLE).chain(&LOADED) {
        let of_round = |round: &Round| {
            let mut times = round.times[row].clone();
            times.sort_unstable();
            times
        };
        let sorted: Vec<Vec<Duration>> = rounds.iter().map(of_round).collect();
        let at = |share: f64| {
            let of_round = |times: &Vec<Duration>| {
                let index = ((times.len() - 1) as f64 * share).round() as usize;
                times[index].as_secs_f64() * 1000.0
            };
            median(sorted.iter().map(of_round)).expect("a round")
        };
        println!(
            "| {row} | {:.1} | {:.1} | {:.1} | {} |",
            at(0.5),
            at(0.9),
            at(0.99),
            sorted[0].len()
        );
    }
}

fn print_cpu(rounds: &[Round]) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let written = median(rounds.iter().map(|round| round.writes_per_second)).expect("a round");
    println!("\n{written:.0} writes/s on both sides together, {cores} cores:\n");
    println!("| under that load | CPU, % of a core |\n|---|---:|");
    for (at, (name, _)) in rounds[0].cpu.iter().enumerate() {
        let share = median(rounds.iter().map(|round| round.cpu[at].1)).expect("a round");
        println!("| {name} | {share:.0} |");
    }
}
