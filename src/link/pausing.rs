//! Pausing and resuming a pipeline: at once, and in a way that a restart and another host know of.
//!
//! The word stands in the local store first, so that it can be given while a cluster is away, and
//! in the link's document on both clusters as soon as they answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bson::{DateTime, Document, doc};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::monitor::pipelines_of;
use super::own::Own;
use crate::change::{Pair, PipelineId, Side, rfc3339};
use crate::config::Mode;
use crate::error::{Error, Result};
use crate::pipeline::Shared;
use crate::resolve::Ledger;
use crate::store::{Paused, Pauses, Store};

/// What an operator wants of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Paused,
    Resumed,
}

/// How long whoever pauses waits for batches under way, and for the clusters to know.
const TOLD_TIME_MAX: Duration = Duration::from_secs(3);
const TOLD_STEP: Duration = Duration::from_millis(5);

/// How often a cluster that did not take the word is told again.
const AGAIN_INTERVAL: Duration = Duration::from_secs(2);

/// The pauses of a running link.
pub struct Pausing {
    shared: Arc<Shared>,
    own: Pair<Own>,
    /// Those that the link has.
    pipelines: &'static [PipelineId],
    pauses: Mutex<Pauses>,
    /// The number that each cluster is known to have.
    known: Mutex<Pair<i64>>,
    changed: Pair<Notify>,
}

/// The newest word of the store and of both clusters, and what each cluster knows of it.
///
/// # Errors
/// As the store and the clusters say.
pub(super) async fn read(
    store: &Store,
    own: &Pair<Own>,
    link: &str,
) -> Result<(Pauses, Pair<i64>)> {
    let mut newest = store.pauses()?;
    let mut known = Pair::default();
    for side in Side::BOTH {
        let found = own[side].find("links", doc! { "_id": link }).await?;
        let found = found.first().map(of_link).unwrap_or_default();
        known[side] = found.number;
        newest = newest.newer(found);
    }
    Ok((newest, known))
}

/// Has the lanes wait from their very beginning.
pub(super) fn apply(pauses: &Pauses, ledger: &mut Ledger) {
    for pipeline in PipelineId::BOTH {
        if let Some(paused) = pauses.of(pipeline) {
            tracing::warn!(
                pipeline = pipeline.as_str(),
                by = paused.by,
                since = rfc3339(DateTime::from_millis(paused.at_ms)),
                "this pipeline is paused: `tandem resume` lets it go on"
            );
            ledger.pause(pipeline);
        }
    }
}

fn of_link(link: &Document) -> Pauses {
    let found = link.get_document("pauses").ok();
    let pipeline = |side: Side| -> Option<Paused> {
        let found = found?.get_document(side.as_str()).ok()?;
        Some(Paused {
            at_ms: found.get_datetime("at").ok()?.timestamp_millis(),
            by: found.get_str("by").ok()?.to_owned(),
        })
    };
    Pauses {
        number: found.map_or(0, |found| found.get_i64("number").unwrap_or(0)),
        pipelines: Pair::new(pipeline(Side::A), pipeline(Side::B)),
    }
}

/// The pipelines that an order is about.
///
/// # Errors
/// A usage error (2) for one that the link does not have.
pub(super) fn chosen(
    all: &'static [PipelineId],
    one: Option<PipelineId>,
) -> Result<Vec<PipelineId>> {
    match one {
        None => Ok(all.to_vec()),
        Some(one) if all.contains(&one) => Ok(vec![one]),
        Some(one) => {
            let has = all[0].as_str();
            let one = one.as_str();
            Err(
                Error::usage(format!("this link is one-way and has no pipeline {one}"))
                    .hint(format!("its pipeline is {has}")),
            )
        }
    }
}

/// An older word never takes the place of a newer one.
pub(super) async fn write(own: &Own, link: &str, pauses: &Pauses) -> Result<()> {
    let mut written = doc! { "number": pauses.number };
    for side in Side::BOTH {
        if let Some(paused) = &pauses.pipelines[side] {
            let at = DateTime::from_millis(paused.at_ms);
            written.insert(side.as_str(), doc! { "at": at, "by": &paused.by });
        }
    }
    let older = doc! { "_id": link, "pauses.number": { "$not": { "$gt": pauses.number } } };
    let statement = doc! { "q": older, "u": { "$set": { "pauses": written } } };
    own.update("links", vec![statement]).await.map(|_| ())
}

/// What becomes of the pauses, and one line for people for each pipeline. None where nothing
/// changes.
pub(super) fn changed(
    pauses: &Pauses,
    pipelines: &[PipelineId],
    wanted: Wanted,
    by: &str,
    now: DateTime,
) -> (Option<Pauses>, String) {
    let mut next = pauses.clone();
    let mut lines = Vec::new();
    for pipeline in pipelines {
        let name = pipeline.as_str();
        let place = &mut next.pipelines[pipeline.source()];
        lines.push(match (&place, wanted) {
            (Some(paused), Wanted::Paused) => {
                let since = rfc3339(DateTime::from_millis(paused.at_ms));
                format!("{name} is paused already, since {since} by {}", paused.by)
            }
            (None, Wanted::Paused) => {
                *place = Some(Paused {
                    at_ms: now.timestamp_millis(),
                    by: by.to_owned(),
                });
                format!("{name} is paused")
            }
            (Some(_), Wanted::Resumed) => {
                *place = None;
                format!("{name} goes on")
            }
            (None, Wanted::Resumed) => format!("{name} is not paused"),
        });
    }
    let differs = next.pipelines != pauses.pipelines;
    next.number += 1;
    (differs.then_some(next), lines.join("\n"))
}

impl Pausing {
    pub(super) fn new(
        shared: Arc<Shared>,
        own: Pair<Own>,
        mode: Mode,
        (pauses, known): (Pauses, Pair<i64>),
    ) -> Self {
        Self {
            shared,
            own,
            pipelines: pipelines_of(mode),
            pauses: Mutex::new(pauses),
            known: Mutex::new(known),
            changed: Pair::default(),
        }
    }

    pub fn now(&self) -> Pauses {
        lock(&self.pauses).clone()
    }

    /// Whether nothing of the link is applied.
    pub(super) fn is_paused_whole(&self) -> bool {
        let now = self.now();
        self.pipelines.iter().all(|id| now.of(*id).is_some())
    }

    /// # Errors
    /// A usage error (2) while any pipeline is paused: `what` needs both.
    pub fn must_go_on(&self, what: &str) -> Result<()> {
        let now = self.now();
        let paused = PipelineId::BOTH
            .into_iter()
            .find(|id| now.of(*id).is_some());
        match paused {
            None => Ok(()),
            Some(id) => Err(paused_error(id, what)),
        }
    }

    /// Pauses or resumes a pipeline, or all: in effect and in the local store when it returns. Tells what
    /// was done, for people, and what of it is not done yet.
    ///
    /// # Errors
    /// As the store says; a usage error (2) for a pipeline that the link does not have.
    pub async fn change(
        &self,
        pipeline: Option<PipelineId>,
        wanted: Wanted,
        by: &str,
    ) -> Result<String> {
        let pipelines = &chosen(self.pipelines, pipeline)?;
        let mut lines = self.put_into_effect(pipelines, wanted, by)?;
        let settled = async {
            while self.is_applying_paused() || !self.behind().is_empty() {
                sleep(TOLD_STEP).await;
            }
        };
        if timeout(TOLD_TIME_MAX, settled).await.is_err() {
            if self.is_applying_paused() {
                lines += "\na transaction under way has not ended yet; nothing follows it";
            }
            for side in self.behind() {
                let name = &self.shared.facts.names[side];
                lines += &format!(
                    "\n{name} does not know yet, and is told as soon as it answers; this host does"
                );
            }
        }
        Ok(lines)
    }

    fn put_into_effect(
        &self,
        pipelines: &[PipelineId],
        wanted: Wanted,
        by: &str,
    ) -> Result<String> {
        let mut pauses = lock(&self.pauses);
        let (next, lines) = changed(&pauses, pipelines, wanted, by, DateTime::now());
        let Some(next) = next else { return Ok(lines) };
        self.shared.store.save_pauses(&next)?;
        for pipeline in pipelines {
            tracing::warn!(
                pipeline = pipeline.as_str(),
                by,
                "{}",
                match wanted {
                    Wanted::Paused =>
                        "paused: nothing of this pipeline is applied until it is resumed",
                    Wanted::Resumed => "resumed",
                }
            );
            match next.of(*pipeline) {
                Some(_) => self.shared.exchange.pause(*pipeline),
                None => self.shared.exchange.resume(*pipeline),
            }
        }
        *pauses = next;
        for side in Side::BOTH {
            self.changed[side].notify_one();
        }
        Ok(lines)
    }

    fn is_applying_paused(&self) -> bool {
        let ledger = self.shared.exchange.ledger();
        let mut pipelines = PipelineId::BOTH.into_iter();
        pipelines.any(|id| ledger.is_paused(id) && ledger.is_applying(id))
    }

    /// The clusters that do not know of the newest word.
    fn behind(&self) -> Vec<Side> {
        let number = self.now().number;
        let known = *lock(&self.known);
        let sides = Side::BOTH.into_iter();
        sides.filter(|side| known[*side] < number).collect()
    }

    /// Tells the clusters, again and again where one does not answer; neither waits for the other.
    pub(super) async fn tell_clusters(self: Arc<Self>) {
        tokio::join!(self.tell(Side::A), self.tell(Side::B));
    }

    async fn tell(&self, side: Side) {
        loop {
            if self.behind().contains(&side) {
                let pauses = self.now();
                match write(&self.own[side], &self.shared.facts.link, &pauses).await {
                    Ok(()) => lock(&self.known)[side] = pauses.number,
                    Err(error) => tracing::warn!(%error, "cannot put a pause on record there"),
                }
            }
            let _ = timeout(AGAIN_INTERVAL, self.changed[side].notified()).await;
        }
    }
}

/// # Errors
/// A usage error (2) that says that `what` cannot be done meanwhile.
pub(crate) fn paused_error(pipeline: PipelineId, what: &str) -> Error {
    let name = pipeline.as_str();
    Error::usage(format!("{name} is paused: {what}"))
        .hint(format!("`tandem resume {name}` lets it go on"))
}

/// A panic ends the process, so a poisoned lock is never met by a living one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime = DateTime::from_millis(7);

    #[test]
    fn what_is_as_wanted_already_changes_nothing_and_keeps_who_did_it() {
        let both = PipelineId::BOTH;
        let (next, told) = changed(&Pauses::default(), &both[..1], Wanted::Paused, "me", NOW);
        let next = next.expect("a change");
        assert_eq!(told, "a-to-b is paused");
        assert_eq!(next.number, 1);
        let (again, told) = changed(&next, &both[..1], Wanted::Paused, "you", NOW);
        assert_eq!(again, None);
        assert!(told.ends_with("by me"), "{told}");
        let (resumed, told) = changed(&next, &both, Wanted::Resumed, "you", NOW);
        assert_eq!(resumed.expect("a change").pipelines, Pair::default());
        assert_eq!(told, "a-to-b goes on\nb-to-a is not paused");
    }
}
