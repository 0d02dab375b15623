//! The commits under way on one cluster, and when those that are answered took place.
//!
//! The stream leaves tandem's own transactions out, so that the server need not make an event of
//! every operation in them. Their place among the other events is the `operationTime` of the
//! commit's reply: that of its entry in the oplog. What a reader has read since a commit was sent
//! may be older or newer than it, and waits until that time is known.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bson::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::exchange::{Exchange, PATIENCE};
use crate::change::{PipelineId, Side};
use crate::error::Error;
use crate::resolve::Plan;

/// By then a commit that was sent has its place in the oplog, as a rule.
const MARKER_DELAY: Duration = Duration::from_millis(1);

/// A stream that has brought events within this time brings more, as a rule.
const STREAM_MOVES_WITHIN: Duration = Duration::from_millis(20);

/// How long a waiter relies on them.
const PATIENCE_WHILE_IT_MOVES: Duration = Duration::from_millis(10);

/// A lane of one of the pipelines.
pub type LaneId = (PipelineId, usize);

#[derive(Default)]
pub struct Commits {
    state: Mutex<State>,
    answered: Notify,
}

#[derive(Default)]
struct State {
    /// How many were begun so far.
    begun: u64,
    /// Those of unknown outcome or time.
    open: Vec<Open>,
    /// Those that the reader has not passed yet.
    landed: BTreeMap<Timestamp, LaneId>,
    /// When the reader handed over events last.
    stream_moved: Option<Instant>,
}

struct Open {
    lane: LaneId,
    number: u64,
    /// Why it is not settled yet.
    unclear: Option<String>,
}

impl Commits {
    /// A commit is about to be sent.
    pub fn begin(&self, lane: LaneId) {
        let mut state = self.state();
        state.begun += 1;
        let number = state.begun;
        let unclear = None;
        state.open.push(Open {
            lane,
            number,
            unclear,
        });
    }

    /// Its outcome could not be told, for this reason.
    pub fn unclear(&self, lane: LaneId, reason: String) {
        let mut state = self.state();
        let open = state.open.iter_mut().find(|open| open.lane == lane);
        if let Some(open) = open {
            open.unclear = Some(reason);
        }
    }

    /// Why the outcome of some commit is not known.
    pub fn why_unclear(&self) -> Option<String> {
        let state = self.state();
        let mut reasons = state.open.iter().filter_map(|open| open.unclear.clone());
        reasons.next()
    }

    /// It took place at `at`.
    pub fn landed(&self, lane: LaneId, at: Timestamp) {
        let mut state = self.state();
        state.close(lane);
        state.landed.insert(at, lane);
        drop(state);
        self.answered.notify_waiters();
    }

    /// It did not take place, and never will.
    pub fn abandon(&self, lane: LaneId) {
        self.state().close(lane);
        self.answered.notify_waiters();
    }

    /// How many were begun so far.
    pub fn begun(&self) -> u64 {
        self.state().begun
    }

    /// Returns once the times of the first `begun` are known.
    pub async fn known(&self, begun: u64) {
        loop {
            // Before the look, so that nothing is answered in between.
            let answered = self.answered.notified();
            if !self.state().open.iter().any(|open| open.number <= begun) {
                return;
            }
            answered.await;
        }
    }

    /// Applications write here.
    pub fn stream_moved(&self) {
        self.state().stream_moved = Some(Instant::now());
    }

    /// Whether they do so all the time: their events carry the stream past a commit then, and markers
    /// would only load a busy cluster.
    fn stream_moves(&self) -> bool {
        let moved = self.state().stream_moved;
        moved.is_some_and(|at| at.elapsed() < STREAM_MOVES_WITHIN)
    }

    /// Those up to `time`, in order, once.
    pub fn take_through(&self, time: Timestamp) -> Vec<(Timestamp, LaneId)> {
        let mut state = self.state();
        let mut taken = Vec::new();
        while let Some(first) = state.landed.first_entry().filter(|one| *one.key() <= time) {
            taken.push(first.remove_entry());
        }
        taken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn close(&mut self, lane: LaneId) {
        self.open.retain(|open| open.lane != lane);
    }
}

impl Exchange {
    /// A plan is about to be committed. Returns whether it may be.
    pub fn begin(&self, plan: Arc<Plan>) -> bool {
        let lane = (plan.pipeline, plan.leader());
        let mut ledger = self.ledger();
        let may_be = ledger.begin(plan);
        if may_be {
            self.commits[ledger.lands_on(lane.0)].begin(lane);
        }
        may_be
    }

    /// Awaits a commit, and has a marker written right behind it unless other writes carry the
    /// stream on: nothing in it tells of the commit itself, and both become durable together.
    pub async fn with_marker_behind<T>(
        &self,
        pipeline: PipelineId,
        commit: impl Future<Output = T>,
    ) -> T {
        let mut commit = std::pin::pin!(commit);
        let at_once = tokio::time::timeout(MARKER_DELAY, &mut commit).await;
        let side = self.ledger().lands_on(pipeline);
        if !self.commits[side].stream_moves() {
            self.ask_for_marker(side);
        }
        match at_once {
            Ok(outcome) => outcome,
            Err(_) => commit.await,
        }
    }

    /// The plan's transaction was committed at `at`.
    pub fn committed(&self, pipeline: PipelineId, lane: usize, at: Timestamp) {
        self.commits_of(pipeline).landed((pipeline, lane), at);
    }

    /// What became of the plan's transaction could not be told.
    pub fn unclear(&self, pipeline: PipelineId, lane: usize, error: &Error) {
        let reason = error.to_string();
        self.commits_of(pipeline).unclear((pipeline, lane), reason);
    }

    /// Why it is not known what became of a commit on `side`.
    pub fn why_unclear(&self, side: Side) -> Option<String> {
        self.commits[side].why_unclear()
    }

    /// The plan's transaction will never be committed.
    pub fn abandon(&self, pipeline: PipelineId, lane: usize) {
        self.ledger().abandon(pipeline, lane);
        self.commits_of(pipeline).abandon((pipeline, lane));
    }

    fn commits_of(&self, pipeline: PipelineId) -> &Commits {
        let side = self.ledger().lands_on(pipeline);
        &self.commits[side]
    }

    /// How many commits were begun on `side` so far.
    pub fn commits_begun(&self, side: Side) -> u64 {
        self.commits[side].begun()
    }

    /// Returns once it is known when the first `begun` commits on `side` took place: what was read
    /// there before the next one was begun may be handed over then.
    pub async fn wait_commits_known(&self, side: Side, begun: u64) {
        self.commits[side].known(begun).await;
    }

    pub fn is_in_flight(&self, pipeline: PipelineId, lane: usize) -> bool {
        self.ledger().is_in_flight(pipeline, lane)
    }

    /// Returns once the reader has passed the lane's commit, and everything before it is known.
    pub async fn wait_landed(&self, pipeline: PipelineId, lane: usize) {
        let side = self.ledger().lands_on(pipeline);
        while self.is_in_flight(pipeline, lane) {
            let bell = self.landed[pipeline.source()][lane].notified();
            // Nothing in the stream tells of the commit itself.
            let patience = match self.commits[side].stream_moves() {
                true => PATIENCE_WHILE_IT_MOVES,
                false => PATIENCE,
            };
            if tokio::time::timeout(patience, bell).await.is_err() && self.has_room(side) {
                self.ask_for_marker(side);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::change::{AppliedThrough, Mode, Pair, Policy, Position};
    use crate::resolve::{Ledger, Rules};

    const fn at(time: u32) -> Timestamp {
        Timestamp { time, increment: 1 }
    }

    const FIRST: LaneId = (PipelineId::AToB, 0);
    const SECOND: LaneId = (PipelineId::AToB, 1);

    #[test]
    fn what_was_read_waits_for_the_commits_begun_before_and_for_no_later_ones() {
        let commits = Commits::default();
        assert!(commits.known(commits.begun()).now_or_never().is_some());
        commits.begin(FIRST);
        let begun = commits.begun();
        commits.begin(SECOND);
        assert!(commits.known(begun).now_or_never().is_none());
        commits.landed(FIRST, at(5));
        assert!(commits.known(begun).now_or_never().is_some());
        assert!(commits.known(commits.begun()).now_or_never().is_none());
        commits.abandon(SECOND);
        assert!(commits.known(commits.begun()).now_or_never().is_some());
    }

    #[test]
    fn it_is_said_why_a_commit_is_not_settled_until_it_is() {
        let commits = Commits::default();
        commits.begin(FIRST);
        assert_eq!(commits.why_unclear(), None);
        commits.unclear(FIRST, "no disk space".to_owned());
        assert_eq!(commits.why_unclear().as_deref(), Some("no disk space"));
        commits.abandon(FIRST);
        assert_eq!(commits.why_unclear(), None);
    }

    #[test]
    fn what_has_landed_is_passed_once_and_in_order() {
        let commits = Commits::default();
        commits.begin(FIRST);
        commits.begin(SECOND);
        commits.landed(FIRST, at(7));
        commits.landed(SECOND, at(5));
        assert_eq!(commits.take_through(at(4)), []);
        assert_eq!(
            commits.take_through(at(7)),
            [(at(5), SECOND), (at(7), FIRST)]
        );
        assert_eq!(commits.take_through(at(9)), []);
    }

    fn exchange() -> Exchange {
        let rules = Rules {
            mode: Mode::TwoWay,
            policy: Policy::LastWriteWins,
        };
        let checkpoints = || vec![AppliedThrough(Position::after_all_of(at(1), ""))];
        let checkpoints = Pair::new(checkpoints(), checkpoints());
        let ledger = Ledger::new(rules, checkpoints, Pair::new(at(1), at(1)));
        Exchange::new(ledger, Pair::new(1, 1))
    }

    #[tokio::test(start_paused = true)]
    async fn a_marker_is_written_behind_a_commit_unless_applications_write_there() {
        let exchange = exchange();
        let asks_after = async |commit: Duration| {
            let commit = tokio::time::sleep(commit);
            exchange.with_marker_behind(FIRST.0, commit).await;
            exchange.marker_wanted(Side::B).now_or_never().is_some()
        };
        assert!(asks_after(Duration::ZERO).await);
        assert!(asks_after(MARKER_DELAY * 3).await);
        exchange.commits[Side::A].stream_moved();
        assert!(asks_after(MARKER_DELAY * 3).await);
        exchange.commits[Side::B].stream_moved();
        assert!(!asks_after(Duration::ZERO).await);
        assert!(!asks_after(MARKER_DELAY * 3).await);
        tokio::time::advance(STREAM_MOVES_WITHIN).await;
        assert!(asks_after(MARKER_DELAY * 3).await);
    }
}
