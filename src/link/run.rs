//! A running link: two readers, two sets of lanes, one store, one end.

use std::sync::Arc;
use std::time::Duration;

use bson::DateTime;
use tokio_util::sync::CancellationToken;

use super::initial_sync::Progress;
use super::merge::{Desk, Job, Repair, Repairs};
use super::monitor::{Monitor, pipelines_of};
use super::observer::LinkObserver;
use super::records::fill_up_store;
use super::relane;
use super::runs::OpenRun;
use super::standing::{Standing, Turn};
use super::start::{Connected, FirstStart, Started, connect_both, take_over};
use super::tasks::{self, Tasks};
use crate::change::{Pair, Side};
use crate::config::{Config, Mode};
use crate::ddl::{Ddl, Worker};
use crate::error::{Error, ExitCode, Result};
use crate::pipeline::Shared;
use crate::resolve::Ledger;
use crate::store::{Run, RunOutcome, Store};
use crate::telemetry::status::LinkState;

/// What a run does besides replicating.
#[derive(Debug, Clone, Default)]
pub enum Work {
    #[default]
    Nothing,
    Resync {
        job: Job,
        progress: Arc<Progress>,
    },
    /// Done once everything has been caught up.
    Repair(Repairs),
}

impl Work {
    pub(super) fn resync(&self) -> Option<&Job> {
        match self {
            Work::Resync { job, .. } => Some(job),
            Work::Nothing | Work::Repair(_) => None,
        }
    }
}

/// How a run ends by itself, and what it does until then.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    pub until_caught_up: bool,
    pub timeout: Option<Duration>,
    pub first_start: FirstStart,
    pub work: Work,
    pub showing: Showing,
}

/// What a run shows beside its log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Showing {
    #[default]
    Nothing,
    /// Bars on standard error, which is a terminal.
    Bars,
}

/// What a run has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    CaughtUp,
    Stopped,
    /// A cutover has decided something: the link has to begin again with it.
    Turned,
    /// A cutover has ended the link.
    CutOver,
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
    mut options: RunOptions,
    stop: CancellationToken,
) -> Result<Completed> {
    let mut turned = false;
    loop {
        let connected = tokio::select! {
            connected = connect_both(config) => connected?,
            () = stop.cancelled() => return Ok(Completed::before_anything()),
        };
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

async fn run_connected(
    config: &Config,
    options: RunOptions,
    stop: &CancellationToken,
    connected: &Connected,
    turned: bool,
) -> Result<Completed> {
    let store = super::reporting::open_to_run(&config.link.state_dir).await?;
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
    let run = open.end(&store, &outcome);
    store.flush()?;
    let ended = outcome?;
    Ok(Completed { ended, run: run? })
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
        fill_up_store(store, &connected.own).await?;
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
    let relane = matches!(options.work, Work::Nothing) && relane::is_due(config, &started);
    let shared = tasks::share(config, connected, store, ledger, started.lane_counts()).await?;
    let ddl = Arc::new(Ddl::load(config, &connected.own, started.recover_to).await?);
    let observer = observer(config, connected, &shared, &started, &ddl);
    let (epoch, started_at) = (started.epoch(), started.recover_to);
    let mut rest = Tasks::new();
    let work = &options.work;
    let desk =
        tasks::spawn_initial_sync(&mut rest, config, connected, &shared, &started, work, &ddl);
    let monitor = monitor(config, connected, &shared, &observer, &started, &desk);

    let [lanes_stop, rest_stop, turned] = [(); 3].map(|()| CancellationToken::new());
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
        desk.clone(),
        &turned,
        &rest_stop,
    )?;
    tasks::show(&mut rest, options.showing, &monitor, &rest_stop);
    let mut lanes = Tasks::new();
    tasks::spawn_lanes(
        &mut lanes,
        config,
        connected,
        &shared,
        started.lanes,
        &lanes_stop,
    );
    if !relane {
        let worker = Worker::new(ddl, shared.clone(), connected.own.clone(), epoch);
        lanes.spawn(worker.run(lanes_stop.clone()));
    }

    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(Finished::Run(Ended::Stopped)),
        () = turned.cancelled() => Ok(Finished::Run(Ended::Turned)),
        () = relane::drain(config, &shared), if relane => Ok(Finished::Relaned),
        ended = finish(config, connected, &shared, started_at, &desk, work), if options.until_caught_up && !relane => {
            ended.map(Finished::Run)
        }
        error = first_failure(&mut lanes) => Err(error),
        error = first_failure(&mut rest) => Err(error),
        () = sleep_or_never(options.timeout) => {
            Err(Error::timed_out("the time given by --timeout ran out"))
        }
    };
    shared.exchange.stop_waiting_for_room();
    let mut outcome = wind_up(outcome, lanes, &lanes_stop, rest, &rest_stop).await;
    if let Ok(Finished::Relaned) = outcome
        && let Err(error) =
            relane::replace_checkpoints(config, &connected.own, epoch, &shared).await
    {
        outcome = Err(error);
    }
    monitor.save_last(outcome.as_ref().err());
    outcome
}

fn monitor(
    config: &Config,
    connected: &Connected,
    shared: &Arc<Shared>,
    observer: &LinkObserver,
    started: &Started,
    desk: &Desk,
) -> Monitor {
    Monitor::new(
        config,
        connected,
        shared.clone(),
        observer.clone(),
        started.started_from,
        desk.clone(),
    )
}

/// Finishes the batches under way, then ends everything else.
async fn wind_up(
    outcome: Result<Finished>,
    mut lanes: Tasks,
    lanes_stop: &CancellationToken,
    mut rest: Tasks,
    rest_stop: &CancellationToken,
) -> Result<Finished> {
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

/// Returns once everything that was written before the start has been applied, and repairs what is
/// to be repaired.
async fn finish(
    config: &Config,
    connected: &Connected,
    shared: &Shared,
    started_at: Pair<bson::Timestamp>,
    desk: &Desk,
    work: &Work,
) -> Result<Ended> {
    wait_until_caught_up(config, shared, started_at, desk).await;
    if let Work::Repair(repairs) = work {
        let clusters = &connected.clusters;
        Repair { shared, clusters }.settle(repairs).await?;
    }
    Ok(Ended::CaughtUp)
}

async fn wait_until_caught_up(
    config: &Config,
    shared: &Shared,
    started_at: Pair<bson::Timestamp>,
    desk: &Desk,
) {
    const INTERVAL: Duration = Duration::from_millis(20);
    while desk.is_busy() {
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
