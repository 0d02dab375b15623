//! What a running process shows to whoever watches it, from its first moment to its last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bson::DateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::alerts::Fired;
use super::feed::{Feed, Seen};
use super::history::{History, SAMPLE_INTERVAL, Sample};
use super::status::{LastError, LinkState, LinkStatus};
use crate::change::{Pair, PipelineId};
use crate::error::Error;
use crate::store::Store;

/// How often the conflict log is looked at for what is new.
const FEED_INTERVAL: Duration = Duration::from_secs(1);

/// A link that runs makes its status anew four times a second.
const BEAT_MAX: Duration = Duration::from_secs(60);

/// Shared by the link, which writes on it, and by HTTP and alerts, which read it.
#[derive(Clone)]
pub struct Board(Arc<Inner>);

struct Inner {
    status: watch::Sender<LinkStatus>,
    history: Mutex<History>,
    feed: Mutex<Feed>,
    alerts: Mutex<Vec<Fired>>,
    /// What ended the run before this one.
    error_before: Mutex<Option<LastError>>,
    /// When the running link last told its status; none while it need not.
    beat: Mutex<Option<Instant>>,
    started_at: DateTime,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Board")
    }
}

impl Board {
    /// The board of a process that starts.
    pub fn new(link: &str, names: Pair<&str>, pipelines: &[PipelineId]) -> Self {
        let mut status = LinkStatus::new(link, LinkState::Starting, names, pipelines);
        let started_at = DateTime::now();
        status.pid = Some(std::process::id());
        status.since = Some(started_at);
        Self(Arc::new(Inner {
            status: watch::Sender::new(status),
            history: Mutex::default(),
            feed: Mutex::default(),
            alerts: Mutex::default(),
            error_before: Mutex::default(),
            beat: Mutex::default(),
            started_at,
        }))
    }

    pub fn status(&self) -> LinkStatus {
        self.0.status.borrow().clone()
    }

    pub fn show(&self, status: LinkStatus) {
        self.0.status.send_replace(status);
    }

    pub fn subscribe(&self) -> watch::Receiver<LinkStatus> {
        self.0.status.subscribe()
    }

    pub fn started_at(&self) -> DateTime {
        self.0.started_at
    }

    /// What ended the link, now or the last time.
    pub fn last_error(&self) -> Option<LastError> {
        let now = self.0.status.borrow().last_error.clone();
        now.or_else(|| locked(&self.0.error_before).clone())
    }

    pub fn samples_after(&self, at_ms: i64) -> Vec<Sample> {
        locked(&self.0.history).after(at_ms)
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        locked(&self.0.history)
    }

    /// The newest records where they have changed since `generation`.
    pub fn records_since(&self, generation: u64) -> Option<(u64, Vec<Seen>)> {
        locked(&self.0.feed).since(generation)
    }

    /// The alerts that fire.
    pub fn alerts(&self) -> Vec<Fired> {
        locked(&self.0.alerts).clone()
    }

    pub fn set_alerts(&self, firing: Vec<Fired>) {
        *locked(&self.0.alerts) = firing;
    }

    /// For how long a running link has not told its status, where that is too long.
    pub fn silent_for(&self) -> Option<Duration> {
        let beat = *locked(&self.0.beat);
        let silent = beat?.elapsed();
        (silent > BEAT_MAX).then_some(silent)
    }

    /// The link does not run at the moment, or no longer.
    pub fn set_state(&self, state: LinkState, error: Option<&Error>) {
        *locked(&self.0.beat) = None;
        self.0.status.send_modify(|status| {
            *status = status.clone().without_process();
            status.pid = Some(std::process::id());
            status.state = state;
            status.since = Some(DateTime::now());
            status.last_error = error.map(|error| LastError::new(error, DateTime::now()));
        });
    }

    /// Shows what a running link tells, until cancelled.
    pub async fn follow(
        self,
        mut link: watch::Receiver<LinkStatus>,
        store: Store,
        stop: CancellationToken,
    ) {
        self.remember_error(&store);
        let mut looked = None;
        loop {
            let status = link.borrow_and_update().clone();
            *locked(&self.0.beat) = Some(Instant::now());
            if looked.is_none_or(|at: Instant| at.elapsed() >= FEED_INTERVAL) {
                looked = Some(Instant::now());
                locked(&self.0.feed).look(&store, &status);
            }
            self.show(status);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = link.changed() => if changed.is_err() { break },
            }
        }
        *locked(&self.0.beat) = None;
    }

    fn remember_error(&self, store: &Store) {
        let saved = store.status().ok().flatten();
        let saved = saved.and_then(|saved| serde_json::from_value::<LinkStatus>(saved).ok());
        let Some(status) = saved else { return };
        if status.last_error.is_some() {
            *locked(&self.0.error_before) = status.last_error;
        }
    }

    /// Takes a sample every few seconds, for ever.
    pub async fn keep_history(self) {
        loop {
            let status = self.status();
            locked(&self.0.history).push(&status, DateTime::now());
            tokio::time::sleep(SAMPLE_INTERVAL).await;
        }
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_board_shows_how_the_link_ended() {
        let board = Board::new("eu-us", Pair::new("eu", "us"), &PipelineId::BOTH);
        assert_eq!(board.status().state, LinkState::Starting);
        assert!(board.last_error().is_none());
        let error = Error::history("gone").hint("resync");
        board.set_state(LinkState::Failed, Some(&error));
        let shown = board.last_error().expect("an error");
        assert_eq!((shown.message.as_str(), shown.exit_code), ("gone", 5));
        assert_eq!(board.status().clusters.a.name, "eu");
    }
}
