//! The backlog drained by tandem, with what the process took for it.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;

use crate::backlog::{Backlog, Place, name_of};
use crate::report::{Drain, Resources};
use crate::support::env::TestEnv;
use crate::support::mongod::{Mongod, MongodOptions};
use crate::{CACHE_GIGABYTES, DRAIN_TIME_MAX, OPLOG_MEGABYTES};

const POLL: Duration = Duration::from_millis(10);

/// Ticks of a second in /proc; 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a link is told beside what is usual; lines of the table `apply`.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub lanes: Option<u32>,
    pub apply: String,
}

/// One whole `tandem run --until-caught-up`: start, take over, read, apply, stop.
pub async fn drain(backlog: &Backlog) -> Drain {
    drain_with(backlog, &Settings::default()).await
}

pub async fn drain_with(backlog: &Backlog, settings: &Settings) -> Drain {
    let options = |name| MongodOptions {
        oplog_megabytes: OPLOG_MEGABYTES,
        cache_gigabytes: CACHE_GIGABYTES,
        ..MongodOptions::named(name)
    };
    let env = TestEnv::start_with(options("eu-set"), options("us-set")).await;
    tokio::join!(
        backlog.prepare(env.a.client()),
        backlog.prepare(env.b.client())
    );
    let link = match backlog.place {
        Place::OneWay => env.link().one_way(),
        Place::OneSide | Place::BothSides => env.link(),
    };
    let link = match settings.lanes {
        Some(lanes) => link.lanes(lanes),
        None => link,
    };
    let link = link.extra(&settings.apply);
    let mut tandem = env.streaming(&link).await;
    tandem.stop().await;
    backlog.write(env.a.client()).await;
    if backlog.place == Place::BothSides {
        backlog.write_elsewhere(env.b.client()).await;
    }

    let mut resources = Resources::default();
    tandem.run_with(&["--until-caught-up"]);
    let started = Instant::now();
    tandem.start();
    while tandem.is_running() {
        resources = Resources::of(tandem.pid()).unwrap_or(resources);
        assert!(started.elapsed() < DRAIN_TIME_MAX, "tandem never arrives");
        tokio::time::sleep(POLL).await;
    }
    let time = started.elapsed();
    let code = tandem.wait_exit(DRAIN_TIME_MAX).await;
    assert_eq!(code, 0, "{}", tandem.log());
    for collection in 0..backlog.collections {
        let count = |side: &Mongod| {
            let collection = name_of(collection);
            let shop = side.client().database("shop");
            let orders: Collection<Document> = shop.collection(&collection);
            async move { orders.count_documents(doc! {}).await.expect("counted") }
        };
        assert_eq!(count(&env.a).await, count(&env.b).await);
    }
    Drain {
        time,
        resources: Some(resources),
    }
}

impl Resources {
    /// What a living process has taken so far.
    fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let peak_kilobytes: u64 = peak.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            peak_megabytes: peak_kilobytes as f64 / 1024.0,
            cpu_seconds: cpu_seconds(&pid.to_string())?,
        })
    }
}

/// What this program has taken so far.
pub fn own_cpu_seconds() -> f64 {
    cpu_seconds("self").expect("this process lives")
}

fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the name in brackets; of the rest, the 12th and 13th are times.
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Some(ticks as f64 / TICKS_PER_SECOND)
}
