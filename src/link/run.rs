//! A running link: two readers, two sets of lanes, one store, one end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::control;
use super::lease::Lease;
use super::marker::write_markers;
use super::monitor::Monitor;
use super::observer::LinkObserver;
use super::own::Own;
use super::records::fill_up_store;
use super::start::{Connected, Started, connect_both, take_over};
use super::sweeper::clear_notes;
use crate::change::{Pair, PipelineId, Side};
use crate::cluster::Cluster;
use crate::config::{Config, Mode};
use crate::error::{Error, Result};
use crate::pipeline::{
    Collections, Counters, Exchange, Lane, LaneSettings, LinkFacts, Pause, Shared,
};
use crate::resolve::{BatchLimits, Rules};
use crate::source::{Decoder, Reader, StreamFilter, Until};
use crate::store::Store;
use crate::target::{Checkpoint, TagSession};
use crate::telemetry::status::LinkState;

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

type Tasks = JoinSet<Result<()>>;

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
    let started = take_over(config, connected, store, options.first_start).await?;
    fill_up_store(store, &connected.own).await?;
    let lease = started.lease.clone();
    let writers = started.writers.clone();
    let outcome = replicate(config, options, stop, connected, store, started).await;
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
    mut started: Started,
) -> Result<Ended> {
    let collections = Collections::new(
        connected.clusters.clone(),
        &config.link.name,
        &config.link.database,
    );
    for namespace in collections.load().await? {
        started.ledger.unpair(namespace);
    }
    for namespace in collections.in_one_lane() {
        started.ledger.keep_in_one_lane(namespace);
    }
    let shared = Arc::new(Shared::new(
        Exchange::new(
            started.ledger,
            lanes_of(&started.lanes),
            config.limits.queue_bytes_max,
        ),
        collections,
        Pair::new(
            Counters::starting_at(store.totals(PipelineId::AToB)?),
            Counters::starting_at(store.totals(PipelineId::BToA)?),
        ),
        store.clone(),
        facts(config, connected),
        &config.link.database,
    ));
    let observer = LinkObserver::new(
        shared.clone(),
        connected.own.clone(),
        lane_ids(&started.lanes),
        config.conflicts.future_max,
    );
    let monitor = Monitor::new(
        config,
        connected,
        shared.clone(),
        observer.clone(),
        started.started_from,
    );

    let (lanes_stop, rest_stop) = (CancellationToken::new(), CancellationToken::new());
    let mut rest = Tasks::new();
    for side in Side::BOTH {
        let filter = stream_filter(config);
        let mut reader = Reader::new(
            connected.clusters[side].clone(),
            Decoder::new(
                side,
                config.conflicts.tie,
                config.namespaces.clone(),
                config.conflicts.version_field.clone(),
                started.tags[side].clone(),
            ),
            filter,
            observer.clone(),
            started.read_from[side].clone(),
            connected.servers[side].single_writes_are_whole(),
        );
        let hidden = started.tags[side].iter().copied().collect();
        let recover_to = started.recover_to[side];
        rest.spawn(until(rest_stop.clone(), async move {
            let mut outages = Pause::of_outages();
            let mut pause = |works: bool| {
                if works {
                    outages.reset()
                }
                if works {
                    Duration::ZERO
                } else {
                    outages.next()
                }
            };
            reader.run(Until::Passed(recover_to), &mut pause).await?;
            reader.hide(hidden);
            reader.run(Until::Cancelled, &mut pause).await
        }));
        rest.spawn(done(write_markers(
            shared.clone(),
            connected.own[side].clone(),
            side,
            rest_stop.clone(),
        )));
    }
    spawn_rest(
        &mut rest,
        config,
        &shared,
        &connected.own,
        &started.lease,
        &monitor,
        &rest_stop,
    )?;

    let mut lanes = Tasks::new();
    spawn_lanes(
        &mut lanes,
        config,
        &connected.clusters,
        &shared,
        started.lanes,
        &lanes_stop,
    );

    let caught_up = wait_until_caught_up(config, &shared, started.recover_to);
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(Ended::Stopped),
        () = caught_up, if options.until_caught_up => Ok(Ended::CaughtUp),
        error = first_failure(&mut lanes) => Err(error),
        error = first_failure(&mut rest) => Err(error),
        () = sleep_or_never(options.timeout) => Err(Error::timed_out("the time given by --timeout ran out")),
    };
    tracing::info!("stopping: finishing the batches under way");
    lanes_stop.cancel();
    let drained = tokio::time::timeout(STOP_TIME_MAX, all_end(&mut lanes)).await;
    lanes.abort_all();
    rest_stop.cancel();
    rest.abort_all();
    while rest.join_next().await.is_some() {}
    let state = match &outcome {
        Ok(_) => LinkState::Stopped,
        Err(_) => LinkState::Failed,
    };
    monitor.save_last(state, outcome.as_ref().err());
    match (outcome, drained) {
        (Ok(_), Ok(Err(error))) => Err(error),
        (Ok(_), Err(_)) => Err(Error::timed_out(
            "a batch could not be finished in time; nothing is lost",
        )),
        (outcome, _) => outcome,
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one place that starts everything"
)]
fn spawn_rest(
    rest: &mut Tasks,
    config: &Config,
    shared: &Arc<Shared>,
    own: &Pair<Own>,
    lease: &Lease,
    monitor: &Monitor,
    stop: &CancellationToken,
) -> Result<()> {
    rest.spawn(done(clear_notes(shared.clone(), own.clone(), stop.clone())));
    let lease = lease.clone();
    let lease_stop = stop.clone();
    rest.spawn(async move { lease.keep(lease_stop).await });
    let (watcher, watch_stop) = (monitor.clone(), stop.clone());
    rest.spawn(done(async move { watcher.watch(watch_stop).await }));
    let socket = control::bind(&config.link.state_dir)?;
    let handler = Arc::new(super::handler::LinkHandler::new(
        shared.clone(),
        monitor.subscribe(),
        own.as_ref().map(|own| own.cluster.clone()),
    ));
    rest.spawn(done(control::serve(socket, handler, stop.clone())));
    Ok(())
}

fn spawn_lanes(
    lanes: &mut Tasks,
    config: &Config,
    clusters: &Pair<Cluster>,
    shared: &Arc<Shared>,
    sessions: Pair<Vec<(TagSession, Checkpoint)>>,
    stop: &CancellationToken,
) {
    for (pipeline, sessions) in [
        (PipelineId::AToB, sessions.a),
        (PipelineId::BToA, sessions.b),
    ] {
        if config.link.mode == Mode::OneWay && pipeline == PipelineId::BToA {
            for (session, checkpoint) in sessions {
                let witness = crate::pipeline::Witness::new(shared.clone(), session, checkpoint);
                lanes.spawn(witness.run(stop.clone()));
            }
            continue;
        }
        let settings = LaneSettings {
            fence: config.apply.fence,
            limits: BatchLimits {
                operations_max: config.apply.batch_operations_max,
                bytes_max: config.apply.batch_bytes_max,
            },
            lanes: sessions.len(),
            transaction_time_max: config.apply.transaction_time_max,
            operations_per_second_max: config
                .apply
                .operations_per_second_max
                .map(|rate| (rate / sessions.len() as u64).max(1)),
        };
        for (index, (session, checkpoint)) in sessions.into_iter().enumerate() {
            let source = clusters[pipeline.source()].clone();
            let lane = Lane::new(
                pipeline,
                index,
                shared.clone(),
                source,
                session,
                checkpoint,
                settings.clone(),
            );
            lanes.spawn(lane.run(stop.clone()));
        }
    }
}

fn facts(config: &Config, connected: &Connected) -> LinkFacts {
    let rules = Rules {
        mode: config.link.mode,
        policy: config.conflicts.policy,
    };
    LinkFacts {
        link: config.link.name.clone(),
        names: config.clusters.as_ref().map(|cluster| cluster.name.clone()),
        replica_set_ids: connected
            .servers
            .as_ref()
            .map(|server| server.replica_set_id.clone()),
        policy: rules.name(),
    }
}

fn stream_filter(config: &Config) -> StreamFilter {
    StreamFilter {
        namespaces: config.namespaces.clone(),
        hidden_sessions: Vec::new(),
    }
}

fn lanes_of(lanes: &Pair<Vec<(TagSession, Checkpoint)>>) -> Pair<usize> {
    Pair::new(lanes.a.len(), lanes.b.len())
}

fn lane_ids(lanes: &Pair<Vec<(TagSession, Checkpoint)>>) -> HashMap<String, (PipelineId, usize)> {
    let mut ids = HashMap::new();
    for pipeline in PipelineId::BOTH {
        for (index, (_, checkpoint)) in lanes[pipeline.source()].iter().enumerate() {
            ids.insert(checkpoint.id.clone(), (pipeline, index));
        }
    }
    ids
}

/// Returns once everything that was written before the start has been applied.
async fn wait_until_caught_up(config: &Config, shared: &Shared, started_at: Pair<bson::Timestamp>) {
    const INTERVAL: Duration = Duration::from_millis(20);
    let pipelines: &[PipelineId] = match config.link.mode {
        Mode::TwoWay => &PipelineId::BOTH,
        Mode::OneWay => &[PipelineId::AToB],
    };
    for pipeline in pipelines {
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

async fn until(stop: CancellationToken, work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        outcome = work => outcome,
    }
}

async fn done(work: impl Future<Output = ()>) -> Result<()> {
    work.await;
    Ok(())
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

async fn all_end(tasks: &mut Tasks) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|error| Error::bug("a task of the link died").caused_by(error))??;
    }
    Ok(())
}

async fn sleep_or_never(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
