//! Who takes what a reader reads, and in what pieces.

use smallvec::SmallVec;

use super::decode::Decoded;
use crate::change::{Position, Side};
use crate::error::{Error, Result};

/// A whole cluster time, mostly that of one write, or the proof that nothing happened up to one.
#[derive(Debug)]
pub struct Moment {
    /// Everything up to here is known now.
    pub through: Position,
    /// The wall time of the last event, ms since 1970; none where there was no event.
    pub wall_time_ms: Option<i64>,
    pub observed: SmallVec<[Decoded; 1]>,
}

/// How far what was read is behind its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    Nothing,
    /// More events are there already.
    More,
    /// And what was read is seconds old.
    Late,
}

/// Whoever the history is handed to.
pub trait Observer: Send + Sync {
    /// Takes moments in the order of the cluster's history.
    ///
    /// # Errors
    /// Ends the link.
    fn observe(&self, side: Side, moments: Vec<Moment>) -> impl Future<Output = Result<()>> + Send;

    /// Returns once there is room for more.
    fn room(&self, side: Side) -> impl Future<Output = ()> + Send;

    /// What the stream of `side` has beyond what was read up to now.
    fn is_behind(&self, side: Side, behind: Behind);

    /// How many commits of tandem were begun on `side` so far.
    fn commits_begun(&self, side: Side) -> u64;

    /// Returns once it is known when the first `begun` of them took place.
    fn commits_known(&self, side: Side, begun: u64) -> impl Future<Output = ()> + Send;

    /// Why it is not known of some commit on `side`.
    fn why_unclear(&self, side: Side) -> Option<String>;

    /// Events were read whose time is not complete and nothing else is coming: something must be
    /// written for the stream to pass them.
    fn needs_marker(&self, side: Side);

    /// The stream broke and is going to be opened again, or works again.
    fn reachable(&self, side: Side, error: Option<&Error>);
}
