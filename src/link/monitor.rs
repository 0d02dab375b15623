//! Looks at a running link and tells how it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::DateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::clock_offset::clock_offset_ms;
use super::merge::Desk;
use super::observer::LinkObserver;
use super::oplog_window::OplogWindow;
use super::start::Connected;
use super::steering::Steering;
use crate::change::{Pair, PipelineId, Side};
use crate::cluster::Cluster;
use crate::config::{Config, Mode};
use crate::error::{Error, Result};
use crate::pipeline::Shared;
use crate::store::{Paused, Pauses, Store};
use crate::telemetry::status::{
    LastError, LinkState, LinkStatus, PauseStatus, Phase, PipelineStatus, PositionStatus,
};

/// How often the status is made anew.
const INTERVAL: Duration = Duration::from_millis(250);

/// How often it goes to the store, for whoever asks when no process runs.
const SAVE_INTERVAL: Duration = Duration::from_secs(2);

/// How often the clusters' clocks and oplogs are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// The status of a running link, kept up to date.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Shared>,
    observer: LinkObserver,
    clusters: Pair<Cluster>,
    pipelines: &'static [PipelineId],
    sender: Arc<watch::Sender<LinkStatus>>,
    desk: Desk,
    steering: Steering,
}

pub fn pipelines_of(mode: Mode) -> &'static [PipelineId] {
    match mode {
        Mode::TwoWay => &PipelineId::BOTH,
        Mode::OneWay { from: Side::A } => &[PipelineId::AToB],
        Mode::OneWay { from: Side::B } => &[PipelineId::BToA],
    }
}

fn base(config: &Config, state: LinkState) -> LinkStatus {
    let names = config
        .clusters
        .as_ref()
        .map(|cluster| cluster.name.as_str());
    let mut status = LinkStatus::new(
        &config.link.name,
        state,
        names,
        pipelines_of(config.link.mode),
    );
    status.since = Some(DateTime::now());
    status.direction = match config.link.mode {
        Mode::TwoWay => None,
        Mode::OneWay { from } => Some(PipelineId::from_source(from)),
    };
    status
}

/// Leaves the error on record for `status`, where the link never came to run.
pub fn save_failure(config: &Config, store: &Store, error: &Error) {
    let mut status = last_status(config, store, LinkState::Failed);
    status.last_error = Some(LastError::new(error, DateTime::now()));
    if let Ok(status) = serde_json::to_value(status) {
        let _ = store.save_status(&status);
    }
}

/// Leaves on record that the process waits for its window, or has been stopped while it did.
///
/// # Errors
/// As the store says.
pub fn save_waiting(config: &Config, store: &Store, state: LinkState) -> Result<()> {
    let status = serde_json::to_value(last_status(config, store, state))
        .map_err(|cause| Error::bug("cannot write the status as JSON").caused_by(cause))?;
    store.save_status(&status)?;
    store.flush()
}

fn last_status(config: &Config, store: &Store, state: LinkState) -> LinkStatus {
    let before = store.status().ok().flatten();
    let mut status = before
        .and_then(|status| serde_json::from_value::<LinkStatus>(status).ok())
        .unwrap_or_else(|| base(config, state))
        .without_process();
    status.state = state;
    status.since = Some(DateTime::now());
    status
}

impl Monitor {
    pub fn new(
        config: &Config,
        connected: &Connected,
        shared: Arc<Shared>,
        observer: LinkObserver,
        started_from: Option<DateTime>,
        desk: Desk,
        steering: Steering,
    ) -> Self {
        let mut base = base(config, LinkState::Starting);
        base.pid = Some(std::process::id());
        let before = shared.store.status().ok().flatten();
        let before = before.and_then(|status| serde_json::from_value::<LinkStatus>(status).ok());
        base.started_from = started_from.or(before.and_then(|status| status.started_from));
        for side in Side::BOTH {
            base.clusters[side].set_name = Some(connected.servers[side].set_name.clone());
            base.clusters[side].version = Some(connected.servers[side].version.clone());
        }
        Self {
            shared,
            observer,
            clusters: connected.clusters.clone(),
            pipelines: pipelines_of(config.link.mode),
            sender: Arc::new(watch::Sender::new(base)),
            desk,
            steering,
        }
    }

    pub fn subscribe(&self) -> watch::Receiver<LinkStatus> {
        self.sender.subscribe()
    }

    /// The status of this moment: whoever has just paused something sees it paused.
    pub fn now(&self) -> LinkStatus {
        self.update();
        self.sender.borrow().clone()
    }

    /// Keeps the status up to date until cancelled.
    ///
    /// # Errors
    /// As the store says: without it, nothing more could be put on record.
    pub async fn watch(&self, stop: CancellationToken) -> Result<()> {
        let looks = self.look_at_clusters();
        let updates = async {
            let mut saved = Instant::now();
            loop {
                self.update();
                if saved.elapsed() >= SAVE_INTERVAL {
                    saved = Instant::now();
                    self.save(&self.sender.borrow().clone())?;
                }
                tokio::time::sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => Ok(()),
            () = looks => Ok(()),
            failed = updates => failed,
        }
    }

    /// The last word of this process.
    pub fn save_last(&self, error: Option<&Error>) {
        self.update();
        let mut status = self.sender.borrow().clone().without_process();
        status.state = match error {
            Some(_) => LinkState::Failed,
            None => LinkState::Stopped,
        };
        status.since = Some(DateTime::now());
        status.last_error = error.map(|error| LastError::new(error, DateTime::now()));
        if let Err(error) = self.save(&status) {
            tracing::warn!(%error, "cannot save the status");
        }
    }

    fn save(&self, status: &LinkStatus) -> Result<()> {
        let status = serde_json::to_value(status)
            .map_err(|error| Error::bug("a status that cannot be written").caused_by(error))?;
        self.shared.store.save_status(&status)?;
        self.save_totals()?;
        self.shared.store.seal()
    }

    fn save_totals(&self) -> Result<()> {
        for pipeline in PipelineId::BOTH {
            let totals = self.shared.counters[pipeline.source()].totals();
            self.shared.store.save_totals(pipeline, &totals)?;
        }
        Ok(())
    }

    fn update(&self) {
        self.sender.send_modify(|status| {
            let pauses = self.steering.pausing.now();
            let state = self.state(&pauses);
            if status.state != state {
                status.since = Some(DateTime::now());
            }
            status.state = state;
            status.initial_sync = self
                .desk
                .current()
                .and_then(|progress| serde_json::to_value(progress.now()).ok());
            status.last_reload = self.steering.reloading.last();
            status.unpaired_namespaces = self.shared.collections.unpaired();
            status.index_problems = self.observer.index_problems();
            for side in Side::BOTH {
                status.clusters[side].reachable = Some(self.observer.broken(side).is_none());
                status.clusters[side].clock_skew_ms = self.shared.clock_skew_ms();
            }
            status.pipelines = self
                .pipelines
                .iter()
                .map(|id| self.pipeline(*id, state, pauses.of(*id)))
                .collect();
        });
    }

    fn state(&self, pauses: &Pauses) -> LinkState {
        if Side::BOTH
            .iter()
            .any(|side| self.observer.broken(*side).is_some())
        {
            LinkState::Waiting
        } else if !self.shared.exchange.ledger().is_recovered() {
            LinkState::Recovering
        } else if self.pipelines.iter().all(|id| pauses.of(*id).is_some()) {
            LinkState::Paused
        } else {
            LinkState::Running
        }
    }

    fn pipeline(
        &self,
        id: PipelineId,
        state: LinkState,
        paused: Option<&Paused>,
    ) -> PipelineStatus {
        let phase = match state {
            LinkState::Running | LinkState::Paused if paused.is_some() => Phase::Paused,
            LinkState::Running if self.is_syncing() => Phase::InitialSync,
            LinkState::Running => Phase::Streaming,
            LinkState::Waiting => Phase::Waiting,
            LinkState::Recovering => Phase::Recovering,
            LinkState::Starting | LinkState::Paused | LinkState::OutsideWindow => Phase::Starting,
            LinkState::Stopped | LinkState::Ended | LinkState::Failed | LinkState::NeverRun => {
                Phase::Stopped
            }
        };
        let mut status = PipelineStatus::new(id, phase);
        status.paused = paused.map(PauseStatus::new);
        let counters = &self.shared.counters[id.source()];
        status.set_totals(&counters.totals());
        let seen = counters.seen().clone();
        let (observed, applied) = {
            let ledger = self.shared.exchange.ledger();
            (
                ledger.complete_of(id.source()).clone(),
                ledger.pipeline_applied_through(id).0,
            )
        };
        let wall = |ms: Option<i64>| ms.map(DateTime::from_millis);
        let caught_up = applied >= observed;
        status.observed_through = Some(PositionStatus::new(&observed, wall(seen.observed_wall_ms)));
        let applied_wall = if caught_up {
            seen.observed_wall_ms
        } else {
            seen.applied_wall_ms
        };
        status.applied_through = Some(PositionStatus::new(&applied, wall(applied_wall)));
        status.waiting_on = self.waiting_on(self.shared.counters[id.source()].waiting_on());
        status.lag_seconds = match (state, caught_up) {
            (LinkState::Running | LinkState::Paused, true) => Some(0.0),
            (LinkState::Running | LinkState::Paused, false) => {
                let behind = i64::from(observed.time.time) - i64::from(applied.time.time);
                let exact = seen.observed_wall_ms.zip(seen.applied_wall_ms);
                Some(exact.map_or(behind as f64, |(read, done)| {
                    (read - done).max(0) as f64 / 1000.0
                }))
            }
            _ => None,
        };
        status
    }

    fn is_syncing(&self) -> bool {
        self.desk.is_busy()
    }

    fn waiting_on(&self, of_a_lane: Option<String>) -> Option<String> {
        Side::BOTH
            .iter()
            .find_map(|side| {
                let name = &self.shared.facts.names[*side];
                self.observer
                    .broken(*side)
                    .map(|why| format!("{name}: {why}"))
            })
            .or(of_a_lane)
    }

    async fn look_at_clusters(&self) {
        loop {
            let offsets = Pair::new(
                clock_offset_ms(&self.clusters.a).await,
                clock_offset_ms(&self.clusters.b).await,
            );
            if let (Some(a), Some(b)) = (offsets.a, offsets.b) {
                self.shared.set_clock_skew_ms(b - a);
                let warn = self.shared.adjustable().clock_skew_warn;
                if (b - a).unsigned_abs() > warn.as_millis() as u64 {
                    tracing::warn!(
                        skew_ms = b - a,
                        "the clusters' clocks differ: the slower one loses true races"
                    );
                }
            }
            let mut again_in = LOOK_INTERVAL;
            for side in Side::BOTH {
                let window = OplogWindow::read(&self.clusters[side]).await;
                let Ok(Some(window)) = window else { continue };
                let left = self.look_at_resume_point(side, &window);
                self.sender.send_modify(|status| {
                    let cluster = &mut status.clusters[side];
                    cluster.oplog_window_seconds = Some(window.seconds());
                    cluster.oplog_seconds_left = Some(left);
                });
                again_in = again_in.min(window.look_again_in(LOOK_INTERVAL));
            }
            tokio::time::sleep(again_in).await;
        }
    }

    /// How many seconds are left before the resume point of `side` is lost.
    fn look_at_resume_point(&self, side: Side, window: &OplogWindow) -> u64 {
        let pipeline = PipelineId::from_source(side);
        let ledger = self.shared.exchange.ledger();
        let applied = ledger.pipeline_applied_through(pipeline).0;
        drop(ledger);
        if let Some(behind_seconds) = window.too_far_behind(applied.time) {
            tracing::warn!(
                cluster = %self.shared.facts.names[side],
                behind_seconds,
                window_seconds = window.seconds(),
                "more than half of the oplog's window is used up: past its end only a resync helps"
            );
        }
        window.seconds_left(applied.time)
    }
}
