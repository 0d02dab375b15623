//! A running link: two readers, two sets of lanes, one store, one end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::monitor::{Monitor, pipelines_of};
use super::observer::LinkObserver;
use super::records::fill_up_store;
use super::start::{Connected, Started, connect_both, take_over};
use super::tasks::{self, Tasks};
use crate::change::Pair;
use crate::config::Config;
use crate::ddl::{Ddl, Worker};
use crate::error::{Error, Result};
use crate::pipeline::Shared;
use crate::resolve::Ledger;
use crate::store::Store;

/// How a run ends by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    pub until_caught_up: bool,
    pub timeout: Option<Duration>,
    pub first_start: bool,
}

/// What a run has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    CaughtUp,
    Stopped,
}

/// Longest time from a request to stop to the end.
const STOP_TIME_MAX: Duration = Duration::from_secs(25);

/// Runs the link until it is stopped, has caught up, or cannot go on.
///
/// # Errors
/// With the exit code that says why.
pub async fn run(config: &Config, options: RunOptions, stop: CancellationToken) -> Result<Ended> {
    let connected = connect_both(config).await?;
    let store = super::reporting::open_to_run(&config.link.state_dir).await?;
    let outcome = run_with_store(config, options, &stop, &connected, &store).await;
    if let Err(error) = &outcome {
        super::monitor::save_failure(config, &store, error);
    }
    store.flush()?;
    outcome
}

async fn run_with_store(
    config: &Config,
    options: RunOptions,
    stop: &CancellationToken,
    connected: &Connected,
    store: &Store,
) -> Result<Ended> {
    let (started, ledger) = take_over(config, connected, store, options.first_start).await?;
    fill_up_store(store, &connected.own).await?;
    let lease = started.lease.clone();
    let writers = started.writers.clone();
    let outcome = replicate(config, options, stop, connected, store, started, ledger).await;
    lease.give_back().await;
    for cluster in [writers.a, writers.b] {
        cluster.shutdown().await;
    }
    outcome
}

async fn replicate(
    config: &Config,
    options: RunOptions,
    stop: &CancellationToken,
    connected: &Connected,
    store: &Store,
    started: Started,
    ledger: Ledger,
) -> Result<Ended> {
    let lanes_of = started.lane_counts();
    let shared = tasks::share(config, connected, store, ledger, lanes_of).await?;
    let ddl = Arc::new(Ddl::load(config, &connected.own, started.recover_to).await?);
    let observer = observer(config, connected, &shared, &started, &ddl);
    let epoch = started.epoch();
    let from = started.started_from;
    let monitor = Monitor::new(config, connected, shared.clone(), observer.clone(), from);
    let started_at = started.recover_to;

    let (lanes_stop, rest_stop) = (CancellationToken::new(), CancellationToken::new());
    let mut rest = Tasks::new();
    tasks::spawn_readers(
        &mut rest, config, connected, &observer, &started, &rest_stop,
    );
    rest.spawn(tasks::keep_lease(started.lease.clone(), rest_stop.clone()));
    tasks::spawn_helpers(
        &mut rest,
        config,
        &shared,
        &connected.own,
        &monitor,
        &rest_stop,
    )?;
    let mut lanes = Tasks::new();
    tasks::spawn_lanes(
        &mut lanes,
        config,
        connected,
        &shared,
        started.lanes,
        &lanes_stop,
    );
    let worker = Worker::new(ddl, shared.clone(), connected.own.clone(), epoch);
    lanes.spawn(worker.run(lanes_stop.clone()));

    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(Ended::Stopped),
        () = wait_until_caught_up(config, &shared, started_at), if options.until_caught_up => {
            Ok(Ended::CaughtUp)
        }
        error = first_failure(&mut lanes) => Err(error),
        error = first_failure(&mut rest) => Err(error),
        () = sleep_or_never(options.timeout) => {
            Err(Error::timed_out("the time given by --timeout ran out"))
        }
    };
    tracing::info!("stopping: finishing the batches under way");
    lanes_stop.cancel();
    let drained = all_end(&mut lanes).await;
    rest_stop.cancel();
    rest.abort_all();
    while rest.join_next().await.is_some() {}
    let outcome = match outcome {
        Ok(ended) => drained.map(|()| ended),
        Err(error) => Err(error),
    };
    monitor.save_last(outcome.as_ref().err());
    outcome
}

fn observer(
    config: &Config,
    connected: &Connected,
    shared: &Arc<Shared>,
    started: &Started,
    ddl: &Arc<Ddl>,
) -> LinkObserver {
    LinkObserver::new(
        shared.clone(),
        connected.own.clone(),
        ddl.clone(),
        started.lane_ids(),
        config.conflicts.future_max,
    )
}

/// Returns once everything that was written before the start has been applied.
async fn wait_until_caught_up(config: &Config, shared: &Shared, started_at: Pair<bson::Timestamp>) {
    const INTERVAL: Duration = Duration::from_millis(20);
    for pipeline in pipelines_of(config.link.mode) {
        let time = started_at[pipeline.source()];
        shared.exchange.wait_passed(pipeline.source(), time).await;
        loop {
            let applied = shared.exchange.ledger().pipeline_applied_through(*pipeline);
            if applied.0.covers(time) {
                break;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// The first error of any task; tasks that end well are of no interest.
async fn first_failure(tasks: &mut Tasks) -> Error {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(error) => return Error::bug("a task of the link died").caused_by(error),
        }
    }
    std::future::pending().await
}

/// Lets the batches under way end.
async fn all_end(tasks: &mut Tasks) -> Result<()> {
    let ends = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| Error::bug("a task of the link died").caused_by(error))??;
        }
        Ok(())
    };
    let late = Error::timed_out("a batch could not be finished in time; nothing is lost");
    let ended = tokio::time::timeout(STOP_TIME_MAX, ends).await;
    tasks.abort_all();
    ended.unwrap_or(Err(late))
}

async fn sleep_or_never(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
