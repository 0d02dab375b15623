//! A new collection gets its counterpart.

use bson::{Document, Uuid};

use super::bring::{Brought, Ran};
use super::change::{Aspect, Change};
use super::intent::{Created, Subject};
use super::queue::Pending;
use super::turn::step;
use super::worker::Worker;
use crate::change::{Namespace, Pair, Side};
use crate::cluster::errors;
use crate::error::{Error, Result};
use crate::pipeline::{TOLD_WITHIN, list, too_long, unsupported};
use crate::source::DdlEvent;

/// What `create` is told of itself, and no option of the collection.
const NOT_OPTIONS: [&str; 2] = ["idIndex", "temp"];

impl Worker {
    /// # Errors
    /// As the clusters say.
    pub(super) async fn create(
        &self,
        side: Side,
        pending: &Pending,
        collection: &Namespace,
    ) -> Result<()> {
        let target = side.other();
        let collections = &self.shared.collections;
        let event = &pending.event;
        let Some(uuid) = event.collection_uuid else {
            return Ok(());
        };
        if collections.is_unpaired(collection) || collections.is_settled(collection) {
            return Ok(());
        }
        let options = options(pending)?;
        if let Some(reason) = unsupported("collection", &options, self.ddl.rules.mode) {
            return self.give_up(side, pending, collection, reason).await;
        }
        if collections.place(collection, target).0.is_too_long() {
            let reason = too_long(self.cluster(target));
            return self.give_up(side, pending, collection, &reason).await;
        }
        let Some(counterpart) = self
            .counterpart(target, event, collection, &options)
            .await?
        else {
            self.see(side).await?;
            if collections.is_gone(collection, side) {
                return Ok(());
            }
            let reason = format!(
                "{} has its name for something else",
                self.cluster(target).name
            );
            return self.give_up(side, pending, collection, &reason).await;
        };
        // A lane may pair it meanwhile, and another attempt has to settle it all the same.
        collections.settles(collection);
        self.settle_creation(side, pending, collection).await?;
        if collections.is_unpaired(collection) {
            return Ok(());
        }
        let mut uuids = Pair::new(uuid, uuid);
        uuids[target] = counterpart;
        collections.put_pair(collection, uuids).await
    }

    /// The UUID of the counterpart on `target`, made if there is none; none where it cannot be.
    async fn counterpart(
        &self,
        target: Side,
        event: &DdlEvent,
        collection: &Namespace,
        options: &Document,
    ) -> Result<Option<Uuid>> {
        let collections = &self.shared.collections;
        let _creating = collections.creates().await;
        // By its UUID, since it may have got another name by now, and its name another one.
        if let (_, Some(known)) = collections.place(collection, target) {
            return Ok(Some(known));
        }
        let Some(uuid) = event.collection_uuid else {
            return Ok(None);
        };
        // The name of the event: what the collection is called by now may still be taken there.
        let name = collections
            .renames()
            .on_other(target.other(), &event.namespace);
        let Some(name) = &name else {
            return Ok(None);
        };
        let Some(there) = list(self.cluster(target), name).await? else {
            let created = Created {
                collection: collection.clone(),
                uuid,
            };
            return self.make(target, name, created, options).await;
        };
        let free = there.uuid.filter(|there| {
            let holder = collections.of_uuid(target, *there);
            holder.is_none_or(|holder| holder == *collection)
        });
        match (there.unsupported(self.ddl.rules.mode), free) {
            (None, Some(there)) => Ok(Some(
                collections.take_counterpart(collection, target, there, name),
            )),
            (Some(_), _) | (None, None) => Ok(None),
        }
    }

    async fn make(
        &self,
        side: Side,
        name: &Namespace,
        created: Created,
        options: &Document,
    ) -> Result<Option<Uuid>> {
        let mut command = bson::doc! { "create": name.collection() };
        command.extend(options.clone());
        let subject = Subject {
            name: name.clone(),
            uuid: None,
            to: None,
            created: Some(created.clone()),
        };
        let ran = self.execute(side, &subject, &step("create", command)).await;
        // Whatever came of it: the reader tells what it has made. The name may be another one's by now.
        let seen = self.insist(side, || self.see(side));
        match &ran {
            Ok(_) => seen.await?,
            Err(_) => {
                let _ = tokio::time::timeout(TOLD_WITHIN, seen).await;
            }
        }
        match ran? {
            Ran::Done => {}
            Ran::Refused(Some(errors::NAMESPACE_EXISTS), _) => {
                return Err(Error::unreachable(format!(
                    "{name} has just been created on {}",
                    self.cluster(side).name
                )));
            }
            Ran::Refused(code, error) => {
                let code = code.or_else(|| errors::code_of(&error));
                tracing::warn!(%error, code, "a collection cannot be created");
                return Ok(None);
            }
        }
        let (_, made) = self.shared.collections.place(&created.collection, side);
        match made {
            Some(made) => Ok(Some(made)),
            None => Err(Error::unreachable(format!(
                "what was created as {name} on {} cannot be told",
                self.cluster(side).name
            ))),
        }
    }

    /// Both sides may have created it, with different options: one of them decides.
    async fn settle_creation(
        &self,
        side: Side,
        pending: &Pending,
        collection: &Namespace,
    ) -> Result<()> {
        let on_a = self.read(collection, Side::A).await?;
        let on_b = self.read(collection, Side::B).await?;
        let (Some(on_a), Some(on_b)) = (on_a, on_b) else {
            return Ok(());
        };
        let fixed = on_a.fixed_differences(&on_b);
        if !fixed.is_empty() {
            let reason = format!(
                "both sides have created it, with different {}",
                fixed.join(", ")
            );
            return self.give_up(side, pending, collection, &reason).await;
        }
        let decided = self.decide(side, |_, other| {
            other.change == Change::Create && other.collection.as_ref() == Some(collection)
        });
        let source = if decided.winner == Side::A {
            &on_a
        } else {
            &on_b
        };
        for aspect in source.aspects() {
            // It decides in its own turn, whichever of the two comes first.
            if self.is_about_to_change(collection, &aspect) {
                continue;
            }
            if self.bring(collection, &aspect, &decided).await? == Brought::Refused {
                for creation in &decided.winning {
                    self.refused(decided.winner, creation).await?;
                }
            }
        }
        Ok(())
    }
}

impl Worker {
    fn is_about_to_change(&self, collection: &Namespace, aspect: &Aspect) -> bool {
        let changes = |other: &Pending| {
            let same = other.collection.as_ref() == Some(collection);
            same && matches!(&other.change, Change::Define(changed) if changed.contains(aspect))
        };
        let queue = &self.ddl.queue;
        let mut sides = Side::BOTH.iter();
        sides.any(|side| !queue.matching(*side, changes).is_empty())
    }
}

fn options(pending: &Pending) -> Result<Document> {
    let described = pending.event.raw.get_document("operationDescription");
    let Ok(described) = described else {
        return Ok(Document::new());
    };
    let mut options = Document::try_from(described)
        .map_err(|error| Error::bug("an event that cannot be read").caused_by(error))?;
    for name in NOT_OPTIONS {
        options.remove(name);
    }
    Ok(options)
}
