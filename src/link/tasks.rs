//! The tasks of a running link, and what they share.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::control;
use super::former::SideHistory;
use super::handler::LinkHandler;
use super::initial_sync::{InitialSync, Progress};
use super::latecomers::Former;
use super::lease::Lease;
use super::marker::write_markers;
use super::merge::{Desk, MergePlace};
use super::monitor::Monitor;
use super::observer::LinkObserver;
use super::own::Own;
use super::pausing::{self, Pausing};
use super::reloading::{Reloading, Reloads};
use super::retention::prune;
use super::run::{RunOptions, Showing, Work};
use super::start::{Connected, Started};
use super::steering::Steering;
use super::storm::pause_in_storms;
use super::sweeper::clear_notes;
use crate::change::{Pair, PipelineId, Redaction, Side};
use crate::config::Config;
use crate::ddl::{Ddl, Worker};
use crate::error::Result;
use crate::pipeline::{
    Collections, Counters, Exchange, Lane, LaneSettings, LaneStates, LinkFacts, Shared, Witness,
};
use crate::resolve::{BatchLimits, DocumentRules, Ledger, Room, Rules, Spool};
use crate::store::{SpoolFiles, Store};
use crate::telemetry::live;

pub(super) type Tasks = JoinSet<Result<()>>;

/// What all tasks share, with what former processes have left, and what is paused.
pub(super) async fn share(
    config: &Config,
    connected: &Connected,
    store: &Store,
    mut ledger: Ledger,
    started: &Started,
    reloads: &Arc<Reloads>,
) -> Result<(Arc<Shared>, Steering)> {
    let link = &config.link;
    let paused = pausing::read(store, &connected.own, &link.name).await?;
    pausing::apply(&paused.0, &mut ledger);
    let clusters = connected.clusters.clone();
    let collections = Collections::new(clusters, config, started.epoch());
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
    let spool = || Box::new(SpoolFiles::new(&link.state_dir)) as Box<dyn Spool>;
    ledger.bound(room, Pair::new(spool(), spool()));
    let counters = |pipeline| store.totals(pipeline).map(Counters::starting_at);
    let shared = Arc::new(Shared::new(
        Exchange::new(ledger, started.lane_counts()),
        collections,
        Pair::new(counters(PipelineId::AToB)?, counters(PipelineId::BToA)?),
        store.clone(),
        facts(config, connected),
        document_rules(config),
        config,
    ));
    let pausing = Pausing::new(shared.clone(), connected.own.clone(), link.mode, paused);
    let steering = Steering {
        pausing: Arc::new(pausing),
        reloading: Arc::new(Reloading::new(shared.clone(), config, reloads.clone())),
    };
    Ok((shared, steering))
}

fn document_rules(config: &Config) -> DocumentRules {
    DocumentRules {
        rules: Rules {
            mode: config.link.mode,
            policy: config.conflicts.policy,
        },
        tie: config.conflicts.tie,
        version_field: config.conflicts.version_field.clone(),
    }
}

fn facts(config: &Config, connected: &Connected) -> LinkFacts {
    LinkFacts {
        link: config.link.name.clone(),
        names: config.clusters.as_ref().map(|cluster| cluster.name.clone()),
        replica_set_ids: connected
            .servers
            .as_ref()
            .map(|server| server.replica_set_id.clone()),
        policy: document_rules(config).rules.name(),
        redaction: Redaction::new(&config.conflicts.redact),
        log_bytes_max: config.conflicts.bytes_max,
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

pub(super) fn spawn_latecomers(
    rest: &mut Tasks,
    config: &Config,
    connected: &Connected,
    started: &Started,
    stop: &CancellationToken,
) {
    for side in Side::BOTH {
        let former = Former {
            own: connected.own[side].clone(),
            link: config.link.name.clone(),
            ids: started.former[side].clone(),
            epoch: started.epoch(),
        };
        rest.spawn(done(former.end_again(stop.clone())));
    }
}

/// Where a copy or a merge has not come to its end, it goes on; what tells how far it is, and
/// where others are asked for.
pub(super) fn spawn_initial_sync(
    rest: &mut Tasks,
    config: &Config,
    connected: &Connected,
    shared: &Arc<Shared>,
    started: &Started,
    work: &Work,
    ddl: &Arc<Ddl>,
) -> Desk {
    let (config, shared) = (config.clone(), shared.clone());
    let (clusters, own) = (connected.clusters.clone(), connected.own.clone());
    let worker = Worker::new(ddl.clone(), shared.clone(), own.clone(), started.epoch());
    let worker = Arc::new(worker);
    let progress = match (work, &started.merge) {
        (Work::Resync { progress, .. }, Some(_)) => Some(progress.clone()),
        (_, Some(job)) if job.is_about_everything() => Some(Arc::new(Progress::new("merge"))),
        (_, Some(_)) => Some(Arc::new(Progress::new("resync"))),
        (_, None) if started.initial_sync => Some(Arc::new(Progress::new("copy"))),
        (_, None) => None,
    };
    let (desk, jobs) = Desk::new(progress.clone());
    if let (Some(progress), None) = (&progress, &started.merge) {
        let sync = InitialSync {
            config: config.clone(),
            shared: shared.clone(),
            clusters: clusters.clone(),
            own: own.clone(),
            lease: started.lease.clone(),
            progress: progress.clone(),
            worker: worker.clone(),
        };
        rest.spawn(sync.run());
    }
    let left = progress.zip(started.merge.clone());
    let place = MergePlace {
        config,
        shared,
        clusters,
        own,
        lease: started.lease.clone(),
        worker,
    };
    rest.spawn(jobs.serve(place, left));
    desk
}

pub(super) async fn keep_lease(lease: Lease, stop: CancellationToken) -> Result<()> {
    lease.keep(stop).await
}

/// Everything that neither reads nor applies: markers, notes, old records, pauses, the status.
pub(super) fn spawn_helpers(
    rest: &mut Tasks,
    config: &Config,
    shared: &Arc<Shared>,
    steering: &Steering,
    own: &Pair<Own>,
    monitor: &Monitor,
    stop: &CancellationToken,
) {
    for side in Side::BOTH {
        let markers = write_markers(shared.clone(), own[side].clone(), side, stop.clone());
        rest.spawn(done(markers));
    }
    rest.spawn(done(clear_notes(shared.clone(), own.clone(), stop.clone())));
    let old = prune(shared.clone(), own.clone(), stop.clone());
    rest.spawn(done(old));
    let told = steering.pausing.clone().tell_clusters();
    rest.spawn(until(stop.clone(), done(told)));
    if let Some(most) = config.conflicts.pause_above {
        let storms = pause_in_storms(shared.clone(), steering.pausing.clone(), most);
        rest.spawn(until(stop.clone(), storms));
    }
    let reloads = steering.reloading.clone().serve();
    rest.spawn(until(stop.clone(), done(reloads)));
    let (watcher, watch_stop) = (monitor.clone(), stop.clone());
    rest.spawn(async move { watcher.watch(watch_stop).await });
}

/// Answers other commands on the control socket, where the run has one.
pub(super) fn spawn_socket(
    rest: &mut Tasks,
    config: &Config,
    options: &RunOptions,
    handler: LinkHandler,
    stop: &CancellationToken,
) -> Result<()> {
    if options.store.is_some() {
        return Ok(());
    }
    let socket = control::bind(&config.link.state_dir)?;
    let serve = control::serve(socket, Arc::new(handler), stop.clone());
    rest.spawn(done(serve));
    Ok(())
}

pub(super) fn spawn_lanes(
    config: &Config,
    connected: &Connected,
    shared: &Arc<Shared>,
    started: Started,
    stop: &CancellationToken,
) -> Tasks {
    let mut lanes = Tasks::new();
    for (pipeline, sessions) in [
        (PipelineId::AToB, started.lanes.a),
        (PipelineId::BToA, started.lanes.b),
    ] {
        let written_until = started.written_until[pipeline.target()];
        if !config.link.mode.sends(pipeline.source()) {
            for (session, checkpoint) in sessions {
                let shared = shared.clone();
                let witness = Witness::new(pipeline, shared, session, checkpoint, written_until);
                lanes.spawn(witness.run(stop.clone()));
            }
            continue;
        }
        tracing::info!(
            pipeline = pipeline.as_str(),
            lanes = sessions.len(),
            "applying"
        );
        let settings = LaneSettings {
            fence: config.apply.fence,
            limits: BatchLimits {
                operations_max: config.apply.batch_operations_max,
                bytes_max: config.apply.batch_bytes_max,
            },
            lanes: sessions.len(),
            batch_fill_time_max: config.apply.batch_fill_time_max,
            transaction_time_max: config.apply.transaction_time_max,
        };
        let (sessions, checkpoints): (Vec<_>, Vec<_>) = sessions.into_iter().unzip();
        let states = LaneStates::starting_at(checkpoints, settings.limits, written_until);
        let states = Arc::new(states);
        for (index, session) in sessions.into_iter().enumerate() {
            let source = connected.clusters[pipeline.source()].clone();
            let lane = Lane::new(
                pipeline,
                index,
                shared.clone(),
                source,
                (session, states.clone()),
                settings.clone(),
                stop.clone(),
            );
            lanes.spawn(lane.run());
        }
    }
    lanes
}

/// What people see of the run beside its log.
pub(super) fn show(
    rest: &mut Tasks,
    options: &RunOptions,
    monitor: &Monitor,
    store: &Store,
    stop: &CancellationToken,
) {
    if let Some(board) = options.board.clone() {
        let follows = board.follow(monitor.subscribe(), store.clone(), stop.clone());
        rest.spawn(done(follows));
    }
    match options.showing {
        Showing::Nothing => {}
        Showing::Bars => drop(rest.spawn(done(live::follow(monitor.subscribe(), stop.clone())))),
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
    biased;
           () = stop.cancelled() => Ok(()),
           outcome = work => outcome,
       }
}

async fn done(work: impl Future<Output = ()>) -> Result<()> {
    work.await;
    Ok(())
}
