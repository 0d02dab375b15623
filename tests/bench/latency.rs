//! How long a write takes to be seen on the other side, with applications that write on both.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;
use tokio::task::JoinSet;

use crate::report::{median, print_table, shown};
use crate::support::env::TestEnv;
use crate::support::mongod::MongodOptions;

/// Of each side.
const WRITES_PER_SECOND: u32 = 1000;
const WRITERS: u32 = 20;
const LOAD_TIME: Duration = Duration::from_secs(20);

/// What comes before is not counted: connections are made, caches are cold.
const WARM_UP: Duration = Duration::from_secs(3);

/// Every so many writes of a writer one is looked for on the other side.
const SAMPLED: u32 = 10;
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// Times of acknowledged writes, and from there until the other side showed them.
#[derive(Default)]
struct Times {
    acknowledged: Mutex<Vec<Duration>>,
    visible: Mutex<Vec<Duration>>,
}

/// A fresh pair of servers in each round.
pub async fn print(rounds: usize) {
    let (mut acknowledged, mut visible) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("latency, round {round}");
        let times = one_round().await;
        acknowledged.push(Shares::of(&times.acknowledged));
        visible.push(Shares::of(&times.visible));
    }
    let load = format!("{WRITES_PER_SECOND} writes/s on each side");
    let head = [
        load.as_str(),
        "median, ms",
        "90 %, ms",
        "99 %, ms",
        "writes looked at",
    ];
    let rows = [
        row("acknowledged by its own side", &acknowledged),
        row("from there until seen on the other one", &visible),
    ];
    print_table(&head, &rows);
}

async fn one_round() -> Arc<Times> {
    let env = TestEnv::start_with(
        MongodOptions::named("eu-set").with_large_cache(),
        MongodOptions::named("us-set").with_large_cache(),
    )
    .await;
    let mut tandem = env.streaming(&env.link()).await;
    let times = Arc::new(Times::default());
    let mut writers = JoinSet::new();
    let sides = [
        (env.orders_a(), env.orders_b(), 0),
        (env.orders_b(), env.orders_a(), 1 << 40),
    ];
    for (here, there, first) in &sides {
        for number in 0..WRITERS {
            let first = first + (i64::from(number) << 32);
            writers.spawn(write(here.clone(), there.clone(), first, times.clone()));
        }
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("the writer ends well");
    }
    tandem.stop().await;
    times
}

async fn write(
    here: Collection<Document>,
    there: Collection<Document>,
    first: i64,
    times: Arc<Times>,
) {
    let interval = Duration::from_secs(1) * WRITERS / WRITES_PER_SECOND;
    let started = Instant::now();
    let mut looks = JoinSet::new();
    let mut ticks = tokio::time::interval(interval);
    for number in 0.. {
        ticks.tick().await;
        if started.elapsed() > LOAD_TIME {
            break;
        }
        let id = first + i64::from(number);
        let before = Instant::now();
        let document = doc! { "_id": id, "state": "new", "text": "x".repeat(200) };
        here.insert_one(document).await.expect("written");
        let acknowledged = Instant::now();
        if number % SAMPLED == 0 && started.elapsed() > WARM_UP {
            put(&times.acknowledged, acknowledged - before);
            looks.spawn(look(there.clone(), id, acknowledged, times.clone()));
        }
    }
    while let Some(ended) = looks.join_next().await {
        ended.expect("it is seen");
    }
}

async fn look(there: Collection<Document>, id: i64, since: Instant, times: Arc<Times>) {
    let find = || there.find_one(doc! { "_id": id });
    while find().await.expect("read").is_none() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    put(&times.visible, since.elapsed());
}

fn put(times: &Mutex<Vec<Duration>>, time: Duration) {
    times.lock().expect("nobody panicked").push(time);
}

/// Milliseconds that so many of the writes of one round took at most.
struct Shares {
    milliseconds: [f64; 3],
    writes: usize,
}

impl Shares {
    fn of(times: &Mutex<Vec<Duration>>) -> Self {
        let mut times = times.lock().expect("nobody panicked").clone();
        times.sort_unstable();
        let at = |share: f64| {
            let index = ((times.len() - 1) as f64 * share).round() as usize;
            times[index].as_secs_f64() * 1000.0
        };
        Self {
            milliseconds: [0.5, 0.9, 0.99].map(at),
            writes: times.len(),
        }
    }
}

fn row(name: &str, rounds: &[Shares]) -> Vec<String> {
    let at = |index: usize| {
        let numbers = rounds.iter().map(|round| round.milliseconds[index]);
        shown(median(numbers), 1)
    };
    let writes: usize = rounds.iter().map(|round| round.writes).sum();
    vec![name.to_owned(), at(0), at(1), at(2), writes.to_string()]
}
