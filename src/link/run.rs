//! A running link: two readers, two sets of lanes, one store, one end.

use std::sync::Arc;
use std::time::Duration;

use bson::DateTime;
use tokio_util::sync::CancellationToken;

use super::initial_sync::Progress;
use super::monitor::{Monitor, pipelines_of};
use super::observer::LinkObserver;
use super::records::fill_up_store;
use super::runs::OpenRun;
use super::start::{Connected, FirstStart, Started, connect_both, take_over};
use super::tasks::{self, Tasks};
use crate::change::Pair;
use crate::config::Config;
use crate::ddl::{Ddl, Worker};
use crate::error::{Error, ExitCode, Result};
use crate::pipeline::Shared;
use crate::resolve::Ledger;
use crate::store::{Run, RunOutcome, Store};

/// How a run ends by itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    pub until_caught_up: bool,
    pub timeout: Option<Duration>,
    pub first_start: FirstStart,
}

/// What a run has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    CaughtUp,
    Stopped,
}

/// A run that ended well, and what is on record of it.
#[derive(Debug, Clone)]
pub struct Completed {
    pub ended: Ended,
    pub run: Run,
}

impl Completed {
    /// Stopped while the clusters were still looked for.
    fn before_anything() -> Self {
        let now = DateTime::now();
        let mut run = Run::started(now);
        run.ended_at_ms = Some(now.timestamp_millis());
        run.outcome = RunOutcome::Stopped;
        run.exit_code = Some(ExitCode::Done as i32);
        Self {
            ended: Ended::Stopped,
            run,
        }
    }
}

/// Longest time from a request to stop to the end.
const STOP_TIME_MAX: Duration = Duration::from_secs(25);

/// Runs the link until it is stopped, has caught up, or cannot go on.
///
/// # Errors
/// With the exit code that says why.
pub async fn run(
    config: &Config,
    options: RunOptions,
    stop: CancellationToken,
) -> Result<Completed> {
    let connected = tokio::select! {
        connected = connect_both(config) => connected?,
        () = stop.cancelled() => return Ok(Completed::before_anything()),
    };
    let outcome = run_connected(config, options, &stop, &connected).await;
    for cluster in [connected.clusters.a, connected.clusters.b] {
        cluster.shutdown().await;
    }
    outcome
}

async fn run_connected(
    config: &Config,
    options: RunOptions,
    stop: &CancellationToken,
    connected: &Connected,
) -> Result<Completed> {
    let store = super::reporting::open_to_run(&config.link.state_dir).await?;
    let open = OpenRun::begin(&store)?;
    let outcome = run_with_store(config, options, stop, connected, &store).await;
    if let Err(error) = &outcome {
        super::monitor::save_failure(config, &store, error);
    }
    let run = open.end(&store, &outcome);
    store.flush()?;
    let ended = outcome?;
    Ok(Completed { ended, run: run? })
}

async fn run_with_store(
    config: &Config,
    options: RunOptions,
    stop: &CancellationToken,
    connected: &Connected,
    store: &Store,
) -> Result<Ended> {
    let (started, ledger) = take_over(config, connected, store, &options.first_start).await?;
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
    let mut rest = Tasks::new();
    let progress = tasks::spawn_initial_sync(&mut rest, config, connected, &shared, &started, &ddl);
    let monitor = Monitor::new(
        config,
        connected,
        shared.clone(),
        observer.clone(),
        from,
        progress.clone(),
    );
    let started_at = started.recover_to;

    let (lanes_stop, rest_stop) = (CancellationToken::new(), CancellationToken::new());
    tasks::spawn_readers(
        &mut rest, config, connected, &shared, &observer, &started, &rest_stop,
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
        () = wait_until_caught_up(config, &shared, started_at, progress.as_deref()), if options.until_caught_up => {
            Ok(Ended::CaughtUp)
        }
        error = first_failure(&mut lanes) => Err(error),
        error = first_failure(&mut rest) => Err(error),
        () = sleep_or_never(options.timeout) => {
            Err(Error::timed_out("the time given by --timeout ran out"))
        }
    };
    shared.exchange.stop_waiting_for_room();
    let outcome = wind_up(outcome, lanes, &lanes_stop, rest, &rest_stop).await;
    monitor.save_last(outcome.as_ref().err());
    outcome
}

/// Finishes the batches under way, then ends everything else.
async fn wind_up(
    outcome: Result<Ended>,
    mut lanes: Tasks,
    lanes_stop: &CancellationToken,
    mut rest: Tasks,
    rest_stop: &CancellationToken,
) -> Result<Ended> {
    tracing::info!("stopping: finishing the batches under way");
    lanes_stop.cancel();
    let drained = all_end(&mut lanes).await;
    rest_stop.cancel();
    rest.abort_all();
    while rest.join_next().await.is_some() {}
    match outcome {
        Ok(ended) => drained.map(|()| ended),
        Err(error) => Err(error),
    }
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
        &config.conflicts,
    )
}

/// Returns once everything that was written before the start has been applied.
async fn wait_until_caught_up(
    config: &Config,
    shared: &Shared,
    started_at: Pair<bson::Timestamp>,
    progress: Option<&Progress>,
) {
    const INTERVAL: Duration = Duration::from_millis(20);
    while progress.is_some_and(|progress| !progress.is_done()) {
        tokio::time::sleep(INTERVAL).await;
    }
    for pipeline in pipelines_of(config.link.mode) {
        let source = pipeline.source();
        let time = started_at[source];
        loop {
            let (applied, waiting) = {
                let ledger = shared.exchange.ledger();
                let applied = ledger.pipeline_applied_through(*pipeline);
                (applied, ledger.queue_bytes(source))
            };
            if applied.0.covers(time) {
                break;
            }
            if waiting == 0 {
                shared.exchange.ask_for_marker(source);
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

pub(super) async fn sleep_or_never(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
