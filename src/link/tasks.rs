//! The tasks of a running link, and what they share.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::control;
use super::former::SideHistory;
use super::handler::LinkHandler;
use super::initial_sync::{InitialSync, Progress};
use super::lease::Lease;
use super::marker::write_markers;
use super::monitor::Monitor;
use super::observer::LinkObserver;
use super::own::Own;
use super::retention::prune;
use super::start::{Connected, Started};
use super::sweeper::clear_notes;
use crate::change::{Pair, PipelineId, Side};
use crate::config::{Config, Mode};
use crate::ddl::Ddl;
use crate::error::Result;
use crate::pipeline::{
    Collections, Counters, Exchange, Lane, LaneSettings, LinkFacts, Shared, Witness,
};
use crate::resolve::{BatchLimits, Ledger, Room, Rules};
use crate::store::Store;
use crate::target::{Checkpoint, TagSession};

pub(super) type Tasks = JoinSet<Result<()>>;

/// What all tasks share, with what former processes have left.
pub(super) async fn share(
    config: &Config,
    connected: &Connected,
    store: &Store,
    mut ledger: Ledger,
    lanes: Pair<usize>,
) -> Result<Arc<Shared>> {
    let link = &config.link;
    let clusters = connected.clusters.clone();
    let collections = Collections::new(clusters, &link.name, &link.database, link.mode);
    for namespace in collections.load().await? {
        ledger.unpair(namespace);
    }
    for namespace in collections.in_one_lane() {
        ledger.keep_in_one_lane(namespace);
    }
    let room = Room {
        queue_bytes_max: config.limits.queue_bytes_max,
        entries_max: config.limits.ledger_entries_max,
    };
    let counters = |pipeline| store.totals(pipeline).map(Counters::starting_at);
    Ok(Arc::new(Shared::new(
        Exchange::new(ledger, lanes, room),
        collections,
        Pair::new(counters(PipelineId::AToB)?, counters(PipelineId::BToA)?),
        store.clone(),
        facts(config, connected),
        &link.database,
    )))
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

pub(super) fn spawn_readers(
    rest: &mut Tasks,
    config: &Config,
    connected: &Connected,
    shared: &Arc<Shared>,
    observer: &LinkObserver,
    started: &Started,
    stop: &CancellationToken,
) {
    for side in Side::BOTH {
        let history = SideHistory::new(config, connected, started, side);
        let (shared, observer) = (shared.clone(), observer.clone());
        rest.spawn(until(stop.clone(), async move {
            history.read(&shared.exchange, observer).await
        }));
    }
}

/// Where a copy has not come to its end: what tells how far it is.
pub(super) fn spawn_initial_sync(
    rest: &mut Tasks,
    config: &Config,
    connected: &Connected,
    shared: &Arc<Shared>,
    started: &Started,
    ddl: &Arc<Ddl>,
) -> Option<Arc<Progress>> {
    let progress = started
        .initial_sync
        .then(|| Arc::new(Progress::new("copy")))?;
    let sync = InitialSync {
        config: config.clone(),
        shared: shared.clone(),
        clusters: connected.clusters.clone(),
        own: connected.own.clone(),
        progress: progress.clone(),
        ddl: ddl.clone(),
    };
    rest.spawn(sync.run());
    Some(progress)
}

pub(super) async fn keep_lease(lease: Lease, stop: CancellationToken) -> Result<()> {
    lease.keep(stop).await
}

/// Everything that neither reads nor applies: markers, notes, the status, the control socket.
pub(super) fn spawn_helpers(
    rest: &mut Tasks,
    config: &Config,
    shared: &Arc<Shared>,
    own: &Pair<Own>,
    monitor: &Monitor,
    stop: &CancellationToken,
) -> Result<()> {
    for side in Side::BOTH {
        let markers = write_markers(shared.clone(), own[side].clone(), side, stop.clone());
        rest.spawn(done(markers));
    }
    rest.spawn(done(clear_notes(shared.clone(), own.clone(), stop.clone())));
    let retention = config.conflicts.retention;
    let old = prune(shared.clone(), own.clone(), retention, stop.clone());
    rest.spawn(done(old));
    let (watcher, watch_stop) = (monitor.clone(), stop.clone());
    rest.spawn(done(async move { watcher.watch(watch_stop).await }));
    let socket = control::bind(&config.link.state_dir)?;
    let clusters = own.as_ref().map(|own| own.cluster.clone());
    let handler = LinkHandler::new(shared.clone(), monitor.subscribe(), clusters);
    rest.spawn(done(control::serve(
        socket,
        Arc::new(handler),
        stop.clone(),
    )));
    Ok(())
}

pub(super) fn spawn_lanes(
    lanes: &mut Tasks,
    config: &Config,
    connected: &Connected,
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
                let witness = Witness::new(shared.clone(), session, checkpoint);
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
            batch_fill_time_max: config.apply.batch_fill_time_max,
            transaction_time_max: config.apply.transaction_time_max,
            operations_per_second_max: config
                .apply
                .operations_per_second_max
                .map(|rate| (rate / sessions.len() as u64).max(1)),
        };
        for (index, (session, checkpoint)) in sessions.into_iter().enumerate() {
            let source = connected.clusters[pipeline.source()].clone();
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
