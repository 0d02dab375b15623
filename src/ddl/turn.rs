//! One DDL event brought over: what it changed is made on the other cluster as it is here.
//!
//! The definition is read, not the event, where that can be: it is the outcome of all changes so
//! far, so that a turn can be taken twice, and two quick changes settle. Names are the exception:
//! they are free for others later, so they follow the events.

use std::sync::Arc;

use super::bring::{Brought, Ran, is_gone};
use super::change::{Aspect, Change};
use super::definition::Step;
use super::intent::Subject;
use super::queue::Pending;
use super::record::{Won, put_on_record};
use super::worker::Worker;
use crate::change::{Namespace, Policy, Side, Version};
use crate::error::Result;
use crate::pipeline::{Pairing, Waiter, list};
use crate::source::DdlEvent;
use bson::{Document, doc};

/// Who decides where both sides have changed the same.
#[derive(Debug)]
pub(super) struct Decided {
    pub winner: Side,
    reason: &'static str,
    /// The waiting events of the winner and of the loser; none of the loser: no race.
    pub winning: Vec<Arc<Pending>>,
    pub losing: Vec<Arc<Pending>>,
}

impl Worker {
    /// Brings one event of `side` over.
    ///
    /// # Errors
    /// As the clusters say; the turn can be taken again.
    pub(super) async fn turn(&self, side: Side, pending: &Pending) -> Result<()> {
        let counters = &self.shared.counters[side];
        counters.waits_on(Waiter::Ddl, Some("a change of a collection"));
        if self.ddl.sources().contains(&side.other()) {
            self.see(side.other()).await?;
        }
        match (&pending.change, &pending.collection) {
            (Change::Create, Some(collection)) => self.create(side, pending, collection).await,
            (Change::Define(aspects), Some(collection)) => {
                self.define(side, pending, collection, aspects).await
            }
            (Change::Drop, Some(collection)) => self.drop(side, collection).await,
            (Change::Rename { .. }, Some(collection)) => {
                self.rename(side, pending, collection).await
            }
            (Change::View, _) => self.view(side, pending).await,
            (Change::DropDatabase, _) => {
                let database = pending.event.namespace.database();
                self.drop_views(side, database).await
            }
            (Change::Unsupported(reason), _) => {
                self.give_up(side, pending, &pending.on_a, reason).await
            }
            (Change::Create | Change::Define(_) | Change::Drop | Change::Rename { .. }, None)
            | (Change::Nothing, _) => Ok(()),
        }
    }

    /// Which side decides, by the newest waiting event of each side that matches.
    pub(super) fn decide(&self, side: Side, matches: impl Fn(Side, &Pending) -> bool) -> Decided {
        let queue = &self.ddl.queue;
        let of = |by: Side| queue.matching(by, |pending| matches(by, pending));
        let (mine, theirs) = (of(side), of(side.other()));
        let newest = |side: Side, events: &[Arc<Pending>]| {
            let walls = events.iter().map(|pending| pending.event.wall_time_ms);
            walls.max().map(|wall_time_ms| Version {
                wall_time_ms,
                rank: self.ddl.rank(side),
            })
        };
        let (newest_mine, newest_theirs) = (newest(side, &mine), newest(side.other(), &theirs));
        let wall = |version: Option<Version>| version.map(|version| version.wall_time_ms);
        let (mine_wins, reason) = match self.ddl.rules.policy {
            _ if theirs.is_empty() => (true, "later"),
            Policy::Prefer(preferred) => (preferred == side, "preferred"),
            Policy::LastWriteWins if wall(newest_mine) == wall(newest_theirs) => {
                (newest_mine > newest_theirs, "tie")
            }
            Policy::LastWriteWins => (newest_mine > newest_theirs, "later"),
        };
        let (winner, winning, losing) = match mine_wins {
            true => (side, mine, theirs),
            false => (side.other(), theirs, mine),
        };
        Decided {
            winner,
            reason,
            winning,
            losing,
        }
    }

    /// Puts the losing events on record, right before the loser's cluster is changed: once it is, no
    /// other attempt finds that there was a race.
    pub(super) async fn lose(&self, decided: &Decided) -> Result<()> {
        if decided.losing.is_empty() {
            return Ok(());
        }
        let loser = decided.winner.other();
        self.must_go_on(loser)?;
        self.lost(decided).await
    }

    /// Puts on record that the other side did not take what an event of `side` has changed.
    pub(super) async fn refused(&self, side: Side, pending: &Pending) -> Result<()> {
        self.on_record(side, &pending.event, None, "refused")
            .await?;
        Ok(())
    }

    /// As [`put_on_record`], where this process still holds the link: a later one may have decided
    /// otherwise, and has read by then what is on record.
    pub(super) async fn on_record(
        &self,
        side: Side,
        event: &DdlEvent,
        won: Option<Won<'_>>,
        reason: &str,
    ) -> Result<usize> {
        self.insist(side, || self.must_hold(side)).await?;
        put_on_record(&self.shared, &self.own[side], side, event, won, reason).await
    }

    /// Puts the losing events of a race on record.
    pub(super) async fn lost(&self, decided: &Decided) -> Result<()> {
        let newest = decided
            .winning
            .iter()
            .max_by_key(|won| won.event.wall_time_ms);
        let loser = decided.winner.other();
        for lost in &decided.losing {
            let won = newest.map(|newest| Won {
                side: decided.winner,
                event: &newest.event,
                reason: decided.reason,
            });
            let new = self.on_record(loser, &lost.event, won, "lost").await?;
            self.shared.counters[loser].totals().conflicts += new as u64;
        }
        Ok(())
    }

    /// Stops replicating a namespace, and says so first: what is not replicated any more is passed
    /// over by every later attempt, also of the next process.
    pub(super) async fn give_up(
        &self,
        side: Side,
        pending: &Pending,
        collection: &Namespace,
        reason: &str,
    ) -> Result<()> {
        self.on_record(side, &pending.event, None, reason).await?;
        let collections = &self.shared.collections;
        if !collections.is_unpaired(collection) {
            self.insist(side, || collections.unpair(collection, reason))
                .await?;
        }
        self.shared.exchange.ledger().unpair(collection.clone());
        Ok(())
    }

    async fn define(
        &self,
        side: Side,
        pending: &Pending,
        collection: &Namespace,
        aspects: &[Aspect],
    ) -> Result<()> {
        let collections = &self.shared.collections;
        if collections.is_gone(collection, side) && !collections.is_paired(collection) {
            return Ok(());
        }
        match collections.pair(collection, side).await? {
            Pairing::Paired(_) => {}
            Pairing::Unpaired => return Ok(()),
            // Dropped since, and its own event comes, or called otherwise, and it is tried again.
            Pairing::Unclear => {
                for side in Side::BOTH {
                    let (name, uuid) = collections.place(collection, side);
                    self.must_be_gone(collection, side, &name, uuid).await?;
                }
                return Ok(());
            }
        }
        for aspect in aspects {
            let decided = self.decide(side, |_, other| {
                let same = other.collection.as_ref() == Some(collection);
                same && matches!(&other.change, Change::Define(changed) if changed.contains(aspect))
            });
            let brought = self.bring(collection, aspect, &decided).await?;
            // Where the other side wins, its event has a turn of its own.
            if brought == Brought::Refused && decided.winner == side {
                self.refused(side, pending).await?;
            }
        }
        Ok(())
    }

    /// Drops the counterpart of a dropped collection, by its UUID: never a newer one of its name.
    pub(super) async fn drop(&self, side: Side, collection: &Namespace) -> Result<()> {
        let target = side.other();
        let collections = &self.shared.collections;
        self.shared.exchange.ledger().unpair(collection.clone());
        if collections.is_unpaired(collection) {
            return Ok(());
        }
        let (name, known) = collections.place(collection, target);
        let uuid = match known {
            Some(uuid) => Some(uuid),
            None => self.unclaimed(target, &name).await?,
        };
        if let Some(uuid) = uuid {
            let subject = Subject {
                name: name.clone(),
                uuid: Some(uuid),
                to: None,
                created: None,
            };
            let step = step("drop", doc! { "drop": name.collection() });
            match self.execute(target, &subject, &step).await? {
                Ran::Done => {}
                Ran::Refused(code, _) if is_gone(code, &step) => {
                    self.must_be_gone(collection, target, &name, Some(uuid))
                        .await?;
                }
                Ran::Refused(_, error) => return Err(error),
            }
        }
        for side in Side::BOTH {
            let place = collections.place(collection, side);
            self.ddl.problems.clear_all(side, &place).await?;
        }
        collections.set_dropped(collection, self.now().await?).await
    }

    /// The collection of that name on `side`, if it is nobody else's counterpart.
    async fn unclaimed(&self, side: Side, name: &Namespace) -> Result<Option<bson::Uuid>> {
        let listed = list(self.cluster(side), name).await?;
        let uuid = listed.and_then(|listed| listed.uuid);
        Ok(uuid.filter(|uuid| self.shared.collections.of_uuid(side, *uuid).is_none()))
    }
}

/// A command that is about no index.
pub(super) fn step(operation: &'static str, command: Document) -> Step {
    Step {
        operation,
        command,
        index: None,
    }
}
