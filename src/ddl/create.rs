//! A new collection gets its counterpart.

use bson::{Document, Uuid};

use super::bring::Ran;
use super::change::Change;
use super::definition::read;
use super::intent::Subject;
use super::queue::Pending;
use super::turn::step;
use super::worker::Worker;
use crate::change::{Namespace, Pair, Side};
use crate::cluster::errors;
use crate::error::{Error, Result};
use crate::pipeline::{list, unsupported};

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
        if collections.is_unpaired(collection) || collections.is_paired(collection) {
            return Ok(());
        }
        let options = options(pending)?;
        if let Some(reason) = unsupported("collection", &options, self.ddl.rules.mode) {
            return self.give_up(side, pending, collection, reason).await;
        }
        // The name of the event: what the collection is called by now may still be taken there.
        let name = &event.namespace;
        let made = match list(self.cluster(target), name).await? {
            None => self.make(target, name, collection, &options).await?,
            Some(there) => {
                let free = there.uuid.filter(|there| {
                    let holder = collections.of_uuid(target, *there);
                    holder.is_none_or(|holder| holder == *collection)
                });
                match (there.unsupported(self.ddl.rules.mode), free) {
                    (None, Some(there)) => Some(there),
                    _ => None,
                }
            }
        };
        let Some(counterpart) = made else {
            let reason = format!(
                "{} has its name for something else",
                self.cluster(target).name
            );
            return self.give_up(side, pending, collection, &reason).await;
        };
        let mut uuids = Pair::new(uuid, uuid);
        uuids[target] = counterpart;
        collections.renamed(collection, target, name);
        collections.put_pair(collection, uuids).await?;
        self.settle_creation(side, pending, collection).await
    }

    async fn make(
        &self,
        side: Side,
        name: &Namespace,
        collection: &Namespace,
        options: &Document,
    ) -> Result<Option<Uuid>> {
        const NAMESPACE_EXISTS: i32 = 48;
        let mut command = bson::doc! { "create": name.collection() };
        command.extend(options.clone());
        let subject = Subject {
            name: name.clone(),
            uuid: None,
            to: None,
            collection: Some(collection.clone()),
        };
        match self
            .execute(side, &subject, &step("create", command))
            .await?
        {
            Ran::Done => {}
            Ran::Refused(Some(NAMESPACE_EXISTS), _) => {
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
        let listed = list(self.cluster(side), name).await?;
        Ok(listed.and_then(|listed| listed.uuid))
    }

    /// Both sides may have created it, with different options: one of them decides.
    async fn settle_creation(
        &self,
        side: Side,
        pending: &Pending,
        collection: &Namespace,
    ) -> Result<()> {
        let collections = &self.shared.collections;
        let both = Pair::new(
            collections.place(collection, Side::A),
            collections.place(collection, Side::B),
        );
        let on_a = read(self.cluster(Side::A), &both.a.0, both.a.1).await?;
        let on_b = read(self.cluster(Side::B), &both.b.0, both.b.1).await?;
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
        let decided = self.decide(side, |other| {
            other.change == Change::Create && other.collection.as_ref() == Some(collection)
        });
        let source = if decided.winner == Side::A {
            &on_a
        } else {
            &on_b
        };
        let mut changed = false;
        for aspect in source.aspects() {
            changed |= self
                .bring(collection, &aspect, decided.winner.other())
                .await?;
        }
        if changed && !decided.losing.is_empty() {
            self.lost(&decided).await?;
        }
        Ok(())
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
