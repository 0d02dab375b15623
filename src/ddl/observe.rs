//! What a reader does with a DDL event: an echo, a barrier, or something to put on record.

use super::Ddl;
use super::change::Change;
use super::intent::Subject;
use super::queue::Pending;
use crate::change::{Namespace, Side};
use crate::error::Result;
use crate::pipeline::Shared;
use crate::source::DdlEvent;

/// What an event turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// tandem's own, already done, or nothing that is replicated.
    Passing,
    /// Its turn comes once everything before it has arrived.
    Waits,
    /// It is not brought over, and the collection stops being replicated.
    NotSent,
}

impl Ddl {
    /// Takes an event of `side`, before anything behind it is handed over. Waits while a command
    /// of tandem on the same collection is under way.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn observe(&self, shared: &Shared, side: Side, event: &DdlEvent) -> Result<Seen> {
        let change = Change::of(event);
        // The lane that has just created it may not have put the pair on record yet.
        if change == Change::Create {
            shared.collections.wait_for_pairs().await;
        }
        if let Some(subject) = self.intents.echo_of(side, event).await
            && may_be_of(shared, side, event, &subject)
        {
            take_echo(shared, side, event, &change, subject);
            return Ok(Seen::Passing);
        }
        let collection = self.identify(shared, side, event, &change);
        if let Some(collection) = &collection {
            match change {
                Change::Define(_) => shared.collections.forget_indexes(collection),
                Change::Drop => shared.collections.set_gone(collection, side),
                _ => {}
            }
        }
        if !self.sends(side) {
            return Ok(Seen::NotSent);
        }
        if change == Change::Nothing || self.is_elsewhere(side, event, &change) {
            return Ok(Seen::Passing);
        }
        if shared.exchange.ledger().is_done(side, &event.position) {
            // An earlier event, read again as well, may have told an earlier name.
            if let (Some(collection), Change::Rename { to, .. }) = (&collection, &change) {
                shared.collections.renamed(collection, side, to);
            }
            return Ok(Seen::Passing);
        }
        let passed_over = |name: &Namespace| shared.collections.is_unpaired(name);
        let is_rename = matches!(change, Change::Rename { .. });
        if collection.as_ref().is_some_and(passed_over) && !is_rename {
            return Ok(Seen::Passing);
        }
        if self.loses_documents(shared, side, event, &change) && !self.sends_drops() {
            return Ok(Seen::NotSent);
        }
        if let Change::Rename { from, to, .. } = &change
            && !shared.filters.treat_alike(from, to)
        {
            tracing::warn!(%from, %to, "one of these names has a filter that the other one has not");
            return Ok(Seen::NotSent);
        }
        if let Some(collection) = &collection {
            self.follow(shared, side, collection, &change);
        }
        shared
            .exchange
            .ledger()
            .close_gate(side, event.position.clone());
        let event = event.clone();
        let on_a = shared.collections.on_a(side, &event.namespace);
        self.queue.push(
            side,
            Pending {
                event,
                change,
                on_a,
                collection,
            },
        );
        Ok(Seen::Waits)
    }

    /// Whether it is about a database that the link includes nothing of.
    fn is_elsewhere(&self, side: Side, event: &DdlEvent, change: &Change) -> bool {
        let database = event.namespace.database();
        *change == Change::DropDatabase && !self.namespaces.may_include_from(side, database)
    }

    fn identify(
        &self,
        shared: &Shared,
        side: Side,
        event: &DdlEvent,
        change: &Change,
    ) -> Option<Namespace> {
        let uuid = event.collection_uuid?;
        let collections = &shared.collections;
        if let Some(known) = collections.of_uuid(side, uuid) {
            return Some(known);
        }
        let name = match change {
            Change::Rename { from, .. } => from,
            _ => &event.namespace,
        };
        // Somebody had the name before tandem's own creation got it, and has it no more.
        if self.intents.creates_later(side, name, event.position.time) {
            return Some(collections.identify_apart(side, uuid, name));
        }
        Some(collections.identify(side, uuid, name))
    }

    /// A database that no collection is known of has held views alone.
    fn loses_documents(
        &self,
        shared: &Shared,
        side: Side,
        event: &DdlEvent,
        change: &Change,
    ) -> bool {
        let database = event.namespace.database();
        match change {
            Change::Drop => true,
            Change::DropDatabase => !shared.collections.in_database(side, database).is_empty(),
            Change::Rename { drop_target, .. } => drop_target.is_some(),
            Change::Create
            | Change::Define(_)
            | Change::View
            | Change::Nothing
            | Change::Unsupported(_) => false,
        }
    }

    /// What lanes must know at once, since both what they read and what they write has moved.
    fn follow(&self, shared: &Shared, side: Side, collection: &Namespace, change: &Change) {
        match change {
            // Whatever was written into it is about to be gone on both sides.
            Change::Drop => shared.exchange.ledger().unpair(collection.clone()),
            Change::Rename {
                to, drop_target, ..
            } => {
                // It may never have been written to since the start.
                let target = drop_target.filter(|_| self.namespaces.includes(side, to));
                let target = target.map(|uuid| shared.collections.identify(side, uuid, to));
                shared.collections.renamed(collection, side, to);
                if let Some(target) = target {
                    shared.collections.set_gone(&target, side);
                    shared.exchange.ledger().unpair(target);
                }
            }
            Change::Create
            | Change::Define(_)
            | Change::View
            | Change::DropDatabase
            | Change::Nothing
            | Change::Unsupported(_) => {}
        }
    }
}

/// Whether the event may be of tandem's own creation, if that is what the command was: nobody knows of
/// another collection as its counterpart, nor of another one that this is.
///
/// A command that a crash has cut off may never have run, and somebody else has created the name since.
fn may_be_of(shared: &Shared, side: Side, event: &DdlEvent, subject: &Subject) -> bool {
    let Some(created) = &subject.created else {
        return true;
    };
    let collections = &shared.collections;
    let (_, counterpart) = collections.place(&created.collection, side);
    let known_as = event
        .collection_uuid
        .and_then(|uuid| collections.of_uuid(side, uuid));
    counterpart.is_none_or(|counterpart| event.collection_uuid == Some(counterpart))
        && known_as.is_none_or(|known_as| known_as == created.collection)
}

/// An echo tells what a creation has made, and what a former process did.
fn take_echo(shared: &Shared, side: Side, event: &DdlEvent, change: &Change, subject: Subject) {
    let collections = &shared.collections;
    let Some(uuid) = event.collection_uuid else {
        return;
    };
    if let Some(created) = &subject.created
        && collections.of_uuid(side, uuid).is_none()
    {
        collections.set_counterpart(&created.collection, side, uuid, &event.namespace);
    }
    if let Some(collection) = collections.of_uuid(side, uuid) {
        collections.forget_indexes(&collection);
        if let Change::Rename { to, .. } = change {
            collections.renamed(&collection, side, to);
        }
    }
}
