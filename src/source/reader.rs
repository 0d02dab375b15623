//! Reads one cluster's history and hands it over, one whole cluster time after the other.
//!
//! All events of a transaction share one cluster time, so an event is handed over only once it is
//! proven that no other event of its time can follow. What was handed over is complete.

use std::sync::Arc;
use std::time::Duration;

use bson::{Timestamp, Uuid};
use smallvec::SmallVec;

use super::decode::{Decoded, Decoder};
use super::left_out::LeftOut;
use super::observer::{Behind, Moment, Observer};
use super::patience::{Patience, timed};
use super::stream::{BATCH_EVENTS_MAX, Stream, documents, post_batch_token, proven_by};
use super::too_large::{TooLarge, Way, not_deliverable};
use crate::change::{NamespaceFilter, Position, Side};
use crate::cluster::{Batch, Cluster};
use crate::error::{Error, Result};
use crate::fault::Fault;

/// What the server leaves out of the stream.
#[derive(Debug, Clone)]
pub struct StreamFilter {
    pub side: Side,
    pub namespaces: NamespaceFilter,
    pub left_out: LeftOut,
    pub origin: Origin,
}

/// Whose writes the stream tells of.
#[derive(Debug, Clone)]
pub enum Origin {
    /// Everybody's but those of these tag sessions.
    Applications { hidden: Vec<Uuid> },
    /// Only those of these tag sessions.
    Tandem { sessions: Vec<Uuid> },
}

/// The reader of one cluster.
pub struct Reader<O> {
    cluster: Cluster,
    decoder: Decoder,
    filter: StreamFilter,
    observer: Arc<O>,
    /// Everything up to here has been handed over.
    complete: Position,
    /// Where the stream was opened: what is not past `complete` there has been seen before.
    opened_at: Timestamp,
    /// Events of one cluster time that may not be all of it.
    open: SmallVec<[Decoded; 1]>,
    /// One plain write makes exactly one event of its time (servers before 8).
    single_writes_are_whole: bool,
    patience: Patience,
    too_large: TooLarge,
}

/// A batch of so many bytes is full whatever number of events it has.
const FULL_BYTES: usize = 8 * 1024 * 1024;

async fn ask<O: Observer>(
    stream: &mut Stream,
    time_max: Duration,
    observer: &O,
    side: Side,
) -> Answer {
    let (batch, took) = timed(stream.next(time_max)).await;
    Answer {
        batch,
        took,
        commits_begun: observer.commits_begun(side),
    }
}

/// What the stream said to a question.
struct Answer {
    batch: Result<Batch>,
    took: Duration,
    /// Commits of tandem on this cluster that the batch may hold something later than.
    commits_begun: u64,
}

/// When a reader stops by itself.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// It has passed this time.
    Passed(Timestamp),
    Cancelled,
}

/// How a stream was left without an error.
enum Read {
    Done,
    OpenAgain,
}

/// Whoever waits for what was written so long ago does not notice a second more.
const LATE_SECONDS: u32 = 2;

/// Long enough for a marker to be written.
const MARKER_TIME: Duration = Duration::from_secs(2);

/// Longest time between two tries to open the stream again.
pub const REOPEN_BACKOFF_MAX: Duration = Duration::from_secs(5);

impl<O: Observer> Reader<O> {
    pub fn new(
        cluster: Cluster,
        decoder: Decoder,
        filter: StreamFilter,
        observer: O,
        from: Position,
        single_writes_are_whole: bool,
    ) -> Self {
        let patience = Patience::usual(&cluster);
        Self {
            cluster,
            decoder,
            filter,
            observer: Arc::new(observer),
            opened_at: from.time,
            complete: from,
            open: SmallVec::new(),
            single_writes_are_whole,
            patience,
            too_large: TooLarge::default(),
        }
    }

    /// Reads until `until`, through outages. `pause` gives the time to wait before the next try.
    ///
    /// # Errors
    /// A lost resume point, an event that tandem does not know, a refused privilege.
    pub async fn run(
        &mut self,
        until: Until,
        mut pause: impl FnMut(bool) -> Duration,
    ) -> Result<()> {
        loop {
            let error = match self.read(until, &mut pause).await {
                Ok(Read::Done) => return Ok(()),
                Ok(Read::OpenAgain) => continue,
                Err(error) if error.is_retryable() => error,
                Err(error) if TooLarge::is_told_by(&error) => {
                    self.after_too_large(error).await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.observer.reachable(self.cluster.side, Some(&error));
            self.patience.learn(&self.cluster).await;
            let wait = pause(false);
            tracing::warn!(cluster = %self.cluster.name, %error, wait_ms = wait.as_millis() as u64, "change stream broke, opening again");
            tokio::time::sleep(wait.min(REOPEN_BACKOFF_MAX)).await;
        }
    }

    async fn after_too_large(&mut self, error: Error) -> Result<()> {
        let Cluster { side, name, .. } = &self.cluster;
        match self.too_large.next_way() {
            Way::OneByOne => {
                tracing::warn!(cluster = %name, "the next changes are too large for one answer, reading them one by one");
            }
            Way::WithWhatFollows => {
                self.observer.needs_marker(*side);
                tokio::time::sleep(MARKER_TIME).await;
            }
            Way::Nowhere => return Err(not_deliverable(error)),
        }
        Ok(())
    }

    async fn read(
        &mut self,
        until: Until,
        pause: &mut impl FnMut(bool) -> Duration,
    ) -> Result<Read> {
        self.opened_at = self.complete.time;
        self.open.clear();
        let mut stream = self.open_stream().await?;
        if matches!(until, Until::Passed(time) if self.complete.time >= time) {
            return Ok(Read::Done);
        }
        let observer = self.observer.clone();
        let side = self.cluster.side;
        let mut next = ask(&mut stream, self.patience.time_max, &*observer, side).await;
        loop {
            self.patience.took = next.took;
            let commits_begun = next.commits_begun;
            let batch = next.batch?;
            pause(true);
            let token_is_proof = stream.token_is_proof();
            let time_max = self.patience.time_max;
            let opens_again;
            next = match until {
                // The server makes the next batch while this one goes its way. Where there is none,
                // this one still goes it to its end.
                Until::Cancelled => {
                    let next = async { Ok(ask(&mut stream, time_max, &*observer, side).await) };
                    let handed = self.hand_over(&batch, token_is_proof, commits_begun);
                    let (again, next) = tokio::try_join!(handed, next)?;
                    opens_again = again;
                    next
                }
                Until::Passed(time) => {
                    opens_again = self
                        .hand_over(&batch, token_is_proof, commits_begun)
                        .await?;
                    if self.complete.time >= time {
                        return Ok(Read::Done);
                    }
                    ask(&mut stream, time_max, &*observer, side).await
                }
            };
            if opens_again {
                return Ok(Read::OpenAgain);
            }
        }
    }

    async fn open_stream(&mut self) -> Result<Stream> {
        let (from, time_max) = (self.complete.time, self.patience.time_max);
        let events_max = self.too_large.events_max();
        let opening = Stream::open(&self.cluster, from, &self.filter, events_max, time_max);
        let (stream, took) = timed(opening).await;
        self.patience.took = took;
        stream
    }

    /// Tells whether the stream is to be opened again for larger answers.
    async fn hand_over(
        &mut self,
        batch: &Batch,
        token_is_proof: bool,
        commits_begun: u64,
    ) -> Result<bool> {
        let side = self.cluster.side;
        self.observer.reachable(side, None);
        self.observer.room(side).await;
        self.wait_commits_known(commits_begun).await;
        let moments = self.take(batch, token_is_proof)?;
        let events: usize = moments.iter().map(|moment| moment.observed.len()).sum();
        let is_full = events + self.open.len() >= BATCH_EVENTS_MAX as usize
            || batch.as_raw_document().as_bytes().len() >= FULL_BYTES;
        self.observer.is_behind(side, self.behind(batch, is_full));
        if events == 0 && self.open.is_empty() {
            self.patience.time_max = self.cluster.operation_timeout;
        }
        if !moments.is_empty() {
            self.observer.observe(side, moments).await?;
        }
        if !self.open.is_empty() {
            self.observer.needs_marker(side);
        }
        Ok(self.too_large.passed(events, self.open.is_empty()))
    }

    /// A full batch means that more is there.
    fn behind(&self, batch: &Batch, is_full: bool) -> Behind {
        let now = batch.as_raw_document().get_timestamp("operationTime").ok();
        let seconds = now.map(|now| now.time.saturating_sub(self.complete.time.time));
        match seconds >= Some(LATE_SECONDS) {
            _ if !is_full => Behind::Nothing,
            true => Behind::Late,
            false => Behind::More,
        }
    }

    /// What was read may be older or newer than the commits that were under way then; one that was
    /// begun later is later. One that is not settled in time is told as a broken stream: nothing that
    /// was read is of use before.
    async fn wait_commits_known(&self, begun: u64) {
        let Cluster { side, name, .. } = &self.cluster;
        let mut known = std::pin::pin!(self.observer.commits_known(*side, begun));
        let in_time = tokio::time::timeout(self.cluster.operation_timeout, &mut known).await;
        if in_time.is_err() {
            let why = self.observer.why_unclear(*side);
            let what = || format!("the outcome of a commit on {name} is not known");
            let error = Error::unreachable(why.unwrap_or_else(what));
            self.observer.reachable(*side, Some(&error));
            known.await;
            self.observer.reachable(*side, None);
        }
    }

    /// The whole cluster times that a batch completes.
    fn take(&mut self, batch: &Batch, token_is_proof: bool) -> Result<Vec<Moment>> {
        let mut moments = Vec::new();
        for document in documents(batch)? {
            let event = self.decoder.decode(document)?;
            if event.position.time <= self.opened_at {
                if event.position <= self.complete {
                    continue;
                }
            } else if event.position <= self.complete && !Fault::EarlyComplete.is_on() {
                return Err(Error::bug(format!(
                    "{} sent an event of a time that was proven complete",
                    self.cluster.name
                )));
            }
            if self
                .open
                .first()
                .is_some_and(|open| open.position.time < event.position.time)
            {
                moments.push(self.close());
            }
            let whole = self.is_whole(&event);
            self.open.push(event);
            if whole {
                moments.push(self.close());
            }
        }
        let proven = post_batch_token(batch)
            .filter(|_| token_is_proof)
            .and_then(proven_by);
        if let Some(through) = proven {
            if self
                .open
                .first()
                .is_some_and(|open| open.position.time <= through.time)
            {
                moments.push(self.close());
            }
            if self.open.is_empty() && through > self.complete {
                self.complete = through.clone();
                moments.push(Moment {
                    through,
                    wall_time_ms: None,
                    observed: SmallVec::new(),
                });
            }
        }
        Ok(moments)
    }

    fn is_whole(&self, event: &Decoded) -> bool {
        Fault::EarlyComplete.is_on() || (self.single_writes_are_whole && event.single_write)
    }

    fn close(&mut self) -> Moment {
        let observed = std::mem::take(&mut self.open);
        let last = observed
            .last()
            .expect("a moment is closed only with events");
        let through = Position::after_all_of(last.position.time, last.position.token.clone());
        self.complete = through.clone();
        Moment {
            through,
            wall_time_ms: Some(last.wall_time_ms),
            observed,
        }
    }
}
