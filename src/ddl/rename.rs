//! A renamed collection's counterpart follows, in the order of the events.

use bson::{Uuid, doc};

use super::bring::{Ran, is_gone};
use super::change::Change;
use super::intent::Subject;
use super::queue::Pending;
use super::turn::{Decided, step};
use super::worker::Worker;
use crate::change::{Namespace, Side};
use crate::cluster::errors;
use crate::error::{Error, Result};
use crate::pipeline::{Pairing, list, too_long};

impl Worker {
    /// # Errors
    /// As the clusters say.
    pub(super) async fn rename(
        &self,
        side: Side,
        pending: &Pending,
        collection: &Namespace,
    ) -> Result<()> {
        let Change::Rename {
            from,
            to,
            drop_target,
        } = &pending.change
        else {
            return Ok(());
        };
        let collections = &self.shared.collections;
        let replaced = drop_target.and_then(|uuid| collections.of_uuid(side, uuid));
        let replaced = replaced.as_ref();
        self.follow(side, pending, collection, (from, to), replaced)
            .await?;
        // Whatever became of the other one: nothing of it is left on its own side.
        match replaced {
            Some(replaced) => self.drop(side, replaced).await,
            None => Ok(()),
        }
    }

    async fn follow(
        &self,
        side: Side,
        pending: &Pending,
        collection: &Namespace,
        (from, to): (&Namespace, &Namespace),
        replaced: Option<&Namespace>,
    ) -> Result<()> {
        let collections = &self.shared.collections;
        let is_gone = collections.is_gone(collection, side) && !collections.is_paired(collection);
        if collections.is_dropped(collection) || is_gone && !collections.is_unpaired(collection) {
            return Ok(());
        }
        let includes = |name| self.ddl.namespaces.includes(side, name);
        let pairing = match includes(from) && includes(to) {
            true => collections.pair(collection, side).await?,
            false => Pairing::Unpaired,
        };
        match pairing {
            Pairing::Paired(_) => {}
            // Its own event comes.
            Pairing::Unclear => return Ok(()),
            Pairing::Unpaired => {
                let reason = "it was renamed from or to what is not replicated";
                return self
                    .give_up_both(side, pending, collection, replaced, reason)
                    .await;
            }
        }
        // What was followed before a crash and is met again competes with nothing.
        let at = pending.event.position.time;
        if collections.has_followed(collection, side, at) {
            return Ok(());
        }
        let decided = self.decide(side, |by, other| {
            let same = other.collection.as_ref() == Some(collection);
            let at = other.event.position.time;
            same && matches!(other.change, Change::Rename { .. })
                && !collections.has_followed(collection, by, at)
        });
        if decided.winner != side {
            return self.lost(&decided).await;
        }
        if !self.still_called(side, collection) {
            return Ok(());
        }
        self.follow_name(side, pending, collection, to, replaced, &decided)
            .await
    }

    /// The renamed one, and what it was put in the place of.
    async fn give_up_both(
        &self,
        side: Side,
        pending: &Pending,
        collection: &Namespace,
        replaced: Option<&Namespace>,
        reason: &str,
    ) -> Result<()> {
        let collections = &self.shared.collections;
        if collections.is_unpaired(collection) {
            collections.put_names(collection).await?;
        }
        for lost in [Some(collection), replaced].into_iter().flatten() {
            self.give_up(side, pending, lost, reason).await?;
        }
        Ok(())
    }

    /// Whether the last name that its own cluster gave it stands: else all of them have lost against a
    /// name from the other side.
    fn still_called(&self, side: Side, collection: &Namespace) -> bool {
        let (name, _) = self.shared.collections.place(collection, side);
        let given = |pending: &Pending| match &pending.change {
            Change::Rename { to, .. } if pending.collection.as_ref() == Some(collection) => {
                Some(to.clone())
            }
            _ => None,
        };
        let waiting = self
            .ddl
            .queue
            .matching(side, |other| given(other).is_some());
        waiting
            .last()
            .and_then(|last| given(last))
            .is_none_or(|last| last == name)
    }

    async fn follow_name(
        &self,
        side: Side,
        pending: &Pending,
        collection: &Namespace,
        to: &Namespace,
        replaced: Option<&Namespace>,
        decided: &Decided,
    ) -> Result<()> {
        let target = side.other();
        let collections = &self.shared.collections;
        let (name, Some(uuid)) = collections.place(collection, target) else {
            return Ok(());
        };
        // What is not replicated any more on the other side is no counterpart to be dropped.
        let replaced = replaced.filter(|replaced| !collections.is_unpaired(replaced));
        let Some(to) = &collections.renames().on_other(side, to) else {
            return Ok(());
        };
        if let Some(reason) = self.cannot_be_called(target, &name, to) {
            return self
                .give_up_both(side, pending, collection, replaced, &reason)
                .await;
        }
        let there: Option<Option<Uuid>> = list(self.cluster(target), to).await?.map(|l| l.uuid);
        let drop_target = match there {
            Some(Some(there)) if there == uuid => None,
            None => None,
            Some(Some(there)) if self.may_replace(target, there, replaced) => Some(there),
            Some(_) => {
                let cluster = &self.cluster(target).name;
                let reason = format!("{cluster} has something else by the name {to}");
                return self.give_up(side, pending, collection, &reason).await;
            }
        };
        // Whoever has given it this name: its event may have been passed before a crash.
        let has_run = if there.flatten() == Some(uuid) {
            collections.renamed_from(collection, target, &name, to);
            false
        } else {
            let subject = Subject {
                name,
                uuid: Some(uuid),
                to: Some(to.clone()),
                created: None,
            };
            self.run_rename(target, collection, subject, drop_target)
                .await?
        };
        if let Some(replaced) = replaced.filter(|_| has_run && drop_target.is_some()) {
            collections.set_dropped(replaced, self.now().await?).await?;
        }
        // Once it counts as followed, nobody decides any more.
        self.lost(decided).await?;
        let at = pending.event.position.time;
        collections.put_followed(collection, side, at).await
    }

    /// Why the counterpart cannot get the name that goes with the new one.
    fn cannot_be_called(&self, side: Side, name: &Namespace, to: &Namespace) -> Option<String> {
        let cluster = self.cluster(side);
        if to.is_too_long() {
            return Some(too_long(cluster));
        }
        // The server would copy it document by document into a new collection.
        let moves = name.database() != to.database();
        let (from, to, cluster) = (name.database(), to.database(), &cluster.name);
        moves.then(|| format!("it would have to move from {from} to {to} on {cluster}"))
    }

    /// Whether what has the name on `side` is the counterpart of what was `replaced`. That has not
    /// been paired yet where it was never written to.
    fn may_replace(&self, side: Side, there: Uuid, replaced: Option<&Namespace>) -> bool {
        let collections = &self.shared.collections;
        replaced.is_some_and(|replaced| match collections.place(replaced, side).1 {
            Some(counterpart) => counterpart == there,
            None => collections.of_uuid(side, there).is_none(),
        })
    }

    /// Returns whether it has run: not where nothing is left to be renamed.
    async fn run_rename(
        &self,
        side: Side,
        collection: &Namespace,
        subject: Subject,
        drop_target: Option<Uuid>,
    ) -> Result<bool> {
        let to = subject.to.as_ref().map_or("", Namespace::as_str);
        let mut command = doc! { "renameCollection": subject.name.as_str(), "to": to };
        if let Some(dropped) = drop_target {
            command.insert("dropTarget", dropped);
        }
        let step = step("rename", command);
        match self.execute(side, &subject, &step).await? {
            Ran::Done => Ok(true),
            Ran::Refused(code, _) if is_gone(code, &step) => {
                self.must_be_gone(collection, side, &subject.name, subject.uuid)
                    .await?;
                Ok(false)
            }
            // Since it was looked for: another look tells what has the name.
            Ran::Refused(Some(errors::NAMESPACE_EXISTS), _) => Err(Error::unreachable(format!(
                "{to} has just been created on {}",
                self.cluster(side).name
            ))),
            Ran::Refused(_, error) => Err(error),
        }
    }
}
