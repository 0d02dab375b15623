//! The backlog drained by tandem, with what the process took for it.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use mongodb::Collection;

use crate::backlog::{Backlog, Place, name_of};
use crate::report::Drain;
use crate::resources::Resources;
use crate::support::env::TestEnv;
use crate::support::mongod::{Mongod, MongodOptions};
use crate::{CACHE_GIGABYTES, DRAIN_TIME_MAX, OPLOG_MEGABYTES};

const POLL: Duration = Duration::from_millis(10);

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
