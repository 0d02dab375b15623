//! A running link: two readers, two sets of lanes, one store, one end.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::caught_up::wait_until_caught_up;
use super::handler::LinkHandler;
use super::last_resort::end_soon_without_a_store;
use super::merge::{Desk, Repair};
use super::monitor::Monitor;
use super::observer::LinkObserver;
use super::pausing::Pausing;
use super::records::fill_up_store;
use super::relane;
pub use super::run_options::{Completed, Ended, RunOptions, Showing, Work};
use super::runs::OpenRun;
use super::standing::{Standing, Turn};
use super::start::{Connected, FirstStart, Started, connect_both, take_over};
use super::steering::Steering;
use super::tasks::{self, Tasks};
use crate::change::{Pair, Side};
use crate::cluster::{Connect, Driver};
use crate::config::{Config, Mode};
use crate::ddl::{Ddl, Worker};
use crate::error::{Error, Result};
use crate::pipeline::Shared;
use crate::resolve::Ledger;
use crate::store::Store;
use crate::telemetry::status::LinkState;

/// Longest time from a request to stop to the end.
const STOP_TIME_MAX: Duration = Duration::from_secs(25);

/// The same after a failure, beyond the time that an open transaction may take. Where a reader has
/// failed, a lane would wait for an echo that nobody reads; the next start finds its commit.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(1);

/// Runs the link until it is stopped, has caught up, or cannot go on.
///
/// # Errors
/// With the exit code that says why.
pub async fn run(
    config: &Config,
    options: RunOptions,
    stop: CancellationToken,
) -> Result<Completed> {
    run_over(Arc::new(Driver), config, options, stop).await
}

/// As [`run`], between clusters that are reached in another way than by the driver.
///
/// # Errors
/// As [`run`].
pub async fn run_over(
    way: Arc<dyn Connect>,
    config: &Config,
    mut options: RunOptions,
    stop: CancellationToken,
) -> Result<Completed> {
    let mut turned = false;
    loop {
        let connected = tokio::select! {
            biased;
            connected = connect_both(config, way.clone()) => connected,
            () = stop.cancelled() => return Ok(Completed::before_anything()),
        };
        let connected = connected.map_err(|error| kept(config, &options, error))?;
        let outcome = run_connected(config, options.clone(), &stop, &connected, turned).await;
        for cluster in [connected.clusters.a, connected.clusters.b] {
            cluster.shutdown().await;
        }
        let completed = outcome?;
        if completed.ended != Ended::Turned {
            return Ok(completed);
        }
        turned = true;
        options.first_start = FirstStart::default();
    }
}

/// A start that does not reach a cluster is told by `status` and `runs` too, where the link ever ran.
fn kept(config: &Config, options: &RunOptions, error: Error) -> Error {
    let store = match &options.store {
        Some(open) => Ok(Some(open.clone())),
        None => Store::open_existing(&config.link.state_dir),
    };
    let Ok(Some(store)) = store else {
        return error;
    };
    super::monitor::save_failure(config, &store, &error);
    let open = OpenRun::begin(&store);
    let ended = open.and_then(|open| open.end(&store, Err(&error)));
    if let Err(error) = ended.and_then(|_| store.seal()) {
        tracing::warn!(%error, "this start is not on record");
    }
    error
}

async fn run_connected(
    config: &Config,
    options: RunOptions,
    stop: &CancellationToken,
    connected: &Connected,
    turned: bool,
) -> Result<Completed> {
    let store = match &options.store {
        Some(open) => open.clone(),
        None => super::reporting::open_to_run(&config.link.state_dir).await?,
    };
    let is_own = options.store.is_none();
    store.complete_index()?;
    let open = OpenRun::begin(&store)?;
    let standing = Standing::read(&connected.own, &config.link.name).await;
    let outcome = match standing {
        Ok(standing) if turned && standing.turn == Turn::Ended => Ok(Ended::CutOver),
        Ok(standing) => run_with_store(config, options, stop, connected, &store, standing).await,
        Err(error) => Err(error),
    };
    match &outcome {
        Err(error) => super::monitor::save_failure(config, &store, error),
        Ok(Ended::CutOver) => super::monitor::save_waiting(config, &store, LinkState::Ended)?,
        Ok(Ended::CaughtUp | Ended::Stopped | Ended::Turned) => {}
    }
    let run = open.end(&store, outcome.as_ref());
    let sealed = store.seal();
    // What ended the link comes before what could not be put on record any more.
    let ended = outcome?;
    sealed?;
    let run = run?;
    if is_own {
        super::reporting::close_after_run(store).await;
    }
    Ok(Completed { ended, run })
}

async fn run_with_store(
    config: &Config,
    mut options: RunOptions,
    stop: &CancellationToken,
    connected: &Connected,
    store: &Store,
    mut standing: Standing,
) -> Result<Ended> {
    standing.must_go_on(config, options.first_start.anew)?;
    let config = &standing.in_force(config);
    if let Mode::OneWay { from: Side::B } = config.link.mode {
        let names = config.clusters.as_ref().map(|cluster| &cluster.name);
        tracing::warn!(from = %names.b, to = %names.a, "this link was turned round by a cutover");
    }
    loop {
        let (started, ledger) =
            take_over(config, connected, store, &options, &mut standing).await?;
        let lease = started.lease.clone();
        let writers = started.writers.clone();
        let options_now = options.clone();
        let outcome = replicate(config, options_now, stop, connected, store, started, ledger).await;
        lease.give_back().await;
        for cluster in [writers.a, writers.b] {
            cluster.shutdown().await;
        }
        match outcome? {
            Finished::Run(ended) => return Ok(ended),
            Finished::Relaned => options.first_start = FirstStart::default(),
        }
    }
}

/// How a link that was taken over comes to its end.
enum Finished {
    Run(Ended),
    /// The lanes are others now: the link has to be taken over again.
    Relaned,
}

async fn replicate(
    config: &Config,
    options: RunOptions,
    stop: &CancellationToken,
    connected: &Connected,
    store: &Store,
    started: Started,
    ledger: Ledger,
) -> Result<Finished> {
    let (own, reloads) = (&connected.own, &options.reloads);
    let (shared, steering) =
        tasks::share(config, connected, store, ledger, &started, reloads).await?;
    // A change of a collection is on record before the collection is given up: what is passed over
    // from here on has its record on the clusters.
    fill_up_store(store, own, &config.conflicts).await?;
    let relane = relane::is_due(config, &started, &steering.pausing);
    let ddl = Ddl::load(config, own, &shared.collections, started.recover_to).await?;
    let observer = observer(config, connected, &shared, &ddl);
    let (epoch, started_at) = (started.epoch(), started.recover_to);
    let mut rest = Tasks::new();
    let work = &options.work;
    let desk =
        tasks::spawn_initial_sync(&mut rest, config, connected, &shared, &started, work, &ddl);
    let monitor = monitor(
        config, connected, &shared, &observer, &started, &desk, &steering,
    );

    let [lanes_stop, rest_stop, turned] = [(); 3].map(|()| CancellationToken::new());
    tasks::spawn_readers(
        &mut rest, config, connected, &shared, &observer, &started, &rest_stop,
    );
    tasks::spawn_latecomers(&mut rest, config, connected, &started, &rest_stop);
    rest.spawn(tasks::keep_lease(started.lease.clone(), rest_stop.clone()));
    tasks::spawn_helpers(
        &mut rest, config, &shared, &steering, own, &monitor, &rest_stop,
    );
    let handler = handler(connected, &shared, &monitor, &desk, &steering, &turned);
    tasks::spawn_socket(&mut rest, config, &options, handler, &rest_stop)?;
    tasks::show(&mut rest, &options, &monitor, store, &rest_stop);
    let mut lanes = tasks::spawn_lanes(config, connected, &shared, started, &lanes_stop);
    if !relane {
        let worker = Worker::new(ddl, shared.clone(), connected.own.clone(), epoch);
        // Longer than the lanes: a reader may hold an echo back until a command has ended.
        rest.spawn(worker.run(rest_stop.clone()));
    }

    let outcome = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(Finished::Run(Ended::Stopped)),
        () = turned.cancelled() => Ok(Finished::Run(Ended::Turned)),
        drained = relane::drain(config, &shared), if relane => drained.map(|()| Finished::Relaned),
        ended = finish(config, connected, &shared, started_at, &desk, &steering.pausing, work), if options.until_caught_up && !relane => {
            ended.map(Finished::Run)
        }
        error = first_failure(&mut lanes) => Err(error),
        error = first_failure(&mut rest) => Err(error),
        () = sleep_or_never(options.timeout) => {
            Err(Error::timed_out("the time given by --timeout ran out"))
        }
    };
    shared.exchange.stop_waiting_for_room();
    let stop_time_max = stop_time_max(config, outcome.as_ref().err());
    let mut outcome = wind_up(outcome, lanes, &lanes_stop, rest, &rest_stop, stop_time_max).await;
    if let Ok(Finished::Relaned) = outcome {
        let relaned = relane::replace_checkpoints(config, &connected.own, epoch, &shared).await;
        outcome = relaned.map(|()| Finished::Relaned);
    }
    monitor.save_last(outcome.as_ref().err());
    outcome
}

/// How long the batches under way may take; without its store a process may not end at all.
fn stop_time_max(config: &Config, failed: Option<&Error>) -> Duration {
    match failed {
        None => STOP_TIME_MAX,
        Some(error) => {
            end_soon_without_a_store(error);
            config.apply.transaction_time_max + COMMIT_TIME_MAX
        }
    }
}

fn handler(
    connected: &Connected,
    shared: &Arc<Shared>,
    monitor: &Monitor,
    desk: &Desk,
    steering: &Steering,
    turned: &CancellationToken,
) -> LinkHandler {
    let clusters = connected.clusters.clone();
    LinkHandler::new(
        shared.clone(),
        monitor.clone(),
        clusters,
        desk.clone(),
        steering.clone(),
        turned.clone(),
    )
}

fn monitor(
    config: &Config,
    connected: &Connected,
    shared: &Arc<Shared>,
    observer: &LinkObserver,
    started: &Started,
    desk: &Desk,
    steering: &Steering,
) -> Monitor {
    Monitor::new(
        config,
        connected,
        shared.clone(),
        observer.clone(),
        started.started_from,
        desk.clone(),
        steering.clone(),
    )
}

/// Finishes the batches under way, then ends everything else.
async fn wind_up(
    outcome: Result<Finished>,
    mut lanes: Tasks,
    lanes_stop: &CancellationToken,
    mut rest: Tasks,
    rest_stop: &CancellationToken,
    stop_time_max: Duration,
) -> Result<Finished> {
    tracing::info!("stopping: finishing the batches under way");
    lanes_stop.cancel();
    let drained = all_end(&mut lanes, stop_time_max).await;
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
    ddl: &Arc<Ddl>,
) -> LinkObserver {
    LinkObserver::new(
        shared.clone(),
        connected.own.clone(),
        ddl.clone(),
        &config.conflicts,
    )
}

/// Returns once everything that was written before the start has been applied, and repairs what is
/// to be repaired. An error where a pipeline is paused: nobody knows for how long.
async fn finish(
    config: &Config,
    connected: &Connected,
    shared: &Shared,
    started_at: Pair<bson::Timestamp>,
    desk: &Desk,
    pausing: &Pausing,
    work: &Work,
) -> Result<Ended> {
    wait_until_caught_up(config, shared, started_at, desk, pausing).await?;
    if let Work::Repair(repairs) = work {
        let clusters = &connected.clusters;
        Repair { shared, clusters }.settle(repairs).await?;
    }
    Ok(Ended::CaughtUp)
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
async fn all_end(tasks: &mut Tasks, time_max: Duration) -> Result<()> {
    let ends = async {
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| Error::bug("a task of the link died").caused_by(error))??;
        }
        Ok(())
    };
    let late = Error::timed_out("a batch could not be finished in time; nothing is lost");
    let ended = tokio::time::timeout(time_max, ends).await;
    tasks.abort_all();
    ended.unwrap_or(Err(late))
}

pub(super) async fn sleep_or_never(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
