//! Makes a part of a collection's definition on one cluster as it is on the other.

use std::time::Duration;

use bson::{Document, Timestamp, Uuid, doc};

use super::change::Aspect;
use super::definition::{Definition, Step, read, steps};
use super::intent::{End, Subject};
use super::turn::Decided;
use super::worker::Worker;
use crate::change::{Namespace, Side};
use crate::cluster::errors;
use crate::error::{Class, Error, Result};
use crate::pipeline::name_of;

/// What became of a command.
#[derive(Debug)]
pub(super) enum Ran {
    Done,
    /// Refused for good: the server's code, and what it said.
    Refused(Option<i32>, Error),
}

/// What became of one aspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Brought {
    /// It is as it should be, or its collection is gone.
    Over,
    /// Refused for good, and listed.
    Refused,
}

/// Longest time for one command: an index of a large collection takes that long, and is waited
/// for again after it.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(4 * 3600);

impl Worker {
    /// Makes one aspect on the loser's cluster as it is on the winner's. Where that takes anything,
    /// the losing events go on record.
    ///
    /// # Errors
    /// As the clusters say; what a cluster refuses for good is listed and is no error.
    pub(super) async fn bring(
        &self,
        collection: &Namespace,
        aspect: &Aspect,
        decided: &Decided,
    ) -> Result<Brought> {
        let to = decided.winner.other();
        let collections = &self.shared.collections;
        let (name, uuid) = collections.place(collection, to);
        let source = self.read(collection, to.other()).await?;
        let target = self.read(collection, to).await?;
        let (Some(source), Some(target)) = (source, target) else {
            return Ok(Brought::Over);
        };
        if let Aspect::Index(index) = aspect
            && let Some(spec) = source.index(index)
            && (spec.get_bool("unique").unwrap_or(false)
                || spec.get_bool("prepareUnique").unwrap_or(false))
        {
            self.keep_in_one_lane(collection).await?;
        }
        let steps = steps(aspect, &name, &source, &target);
        if !steps.is_empty() {
            self.lose(decided).await?;
        }
        let subject = Subject {
            name: name.clone(),
            uuid,
            to: None,
            created: None,
        };
        let label = match aspect {
            Aspect::Index(index) => index,
            Aspect::Option(option) => option,
        };
        for step in &steps {
            match self.execute(to, &subject, step).await? {
                Ran::Done => {}
                Ran::Refused(code, _) if is_gone(code, step) => {
                    self.must_be_gone(collection, to, &name, uuid).await?;
                }
                Ran::Refused(_, error) => {
                    let cluster = &self.cluster(to).name;
                    tracing::warn!(%cluster, namespace = %name, index = %label, %error, "an index or option cannot be brought over, see status");
                    let reason = error.reason();
                    let place = (name, uuid);
                    self.ddl.problems.add(to, &place, label, &reason).await?;
                    return Ok(Brought::Refused);
                }
            }
        }
        for side in Side::BOTH {
            let place = collections.place(collection, side);
            self.ddl.problems.clear(side, &place, label).await?;
        }
        collections.forget_indexes(collection);
        Ok(Brought::Over)
    }

    /// The definition on `side`; none where the collection is gone.
    ///
    /// # Errors
    /// Retryable where it has just been renamed; as the cluster says.
    pub(super) async fn read(
        &self,
        collection: &Namespace,
        side: Side,
    ) -> Result<Option<Definition>> {
        let (name, uuid) = self.shared.collections.place(collection, side);
        let found = read(self.cluster(side), &name, uuid).await?;
        if found.is_none() {
            self.must_be_gone(collection, side, &name, uuid).await?;
        }
        Ok(found)
    }

    /// A collection that is not there under `name` may have been renamed a moment ago, and may
    /// have its name back by now: only its UUID tells.
    ///
    /// # Errors
    /// Retryable where it is still there; as the cluster says.
    pub(super) async fn must_be_gone(
        &self,
        collection: &Namespace,
        side: Side,
        name: &Namespace,
        uuid: Option<Uuid>,
    ) -> Result<()> {
        self.see(side).await?;
        let collections = &self.shared.collections;
        let cluster = self.cluster(side);
        let (now, _) = collections.place(collection, side);
        let found = match uuid {
            Some(uuid) => name_of(cluster, name.database(), uuid).await?,
            None => None,
        };
        // No event may tell its name any more: in one-way mode those of a target are not followed.
        if let Some(found) = &found {
            collections.renamed_from(collection, side, &now, found);
        }
        match found.is_none() && now == *name {
            true => Ok(()),
            false => Err(Error::unreachable(format!(
                "{name} has just been renamed on {}",
                cluster.name
            ))),
        }
    }

    /// Runs one command on `side` between the two ends of an intent.
    ///
    /// # Errors
    /// What may pass, and what somebody has to see to: a missing privilege.
    pub(super) async fn execute(&self, side: Side, subject: &Subject, step: &Step) -> Result<Ran> {
        let mut command = step.command.clone();
        if let Some(uuid) = subject.uuid {
            command.insert("collectionUUID", uuid);
        }
        command.insert("writeConcern", doc! { "w": "majority" });
        let database = match command.contains_key("renameCollection") {
            true => "admin",
            false => subject.name.database(),
        };
        self.must_go_on(side)?;
        let intents = &self.ddl.intents;
        let id = intents.open(side, subject, step).await?;
        // From here on the reader holds back what somebody else makes under the name.
        if let Err(error) = self.may_run(side, subject).await {
            intents.withdraw(side, &id).await?;
            return Err(error);
        }
        let outcome = self
            .send(side, database, command, step, &subject.name)
            .await;
        let end = match outcome.as_ref().ok().and_then(time_of) {
            Some(end) => End::At(end),
            None => {
                let own = &self.own[side];
                End::By(self.insist(side, || own.latest_time()).await?)
            }
        };
        // Before the intent ends: until then the reader holds back what gives it another name.
        if let (Ok(_), Some(to), Some(uuid)) = (&outcome, &subject.to, subject.uuid) {
            self.shared.collections.renamed_uuid(side, uuid, to);
        }
        intents.close(side, &id, end).await?;
        match outcome {
            Ok(_) => {
                let counters = &self.shared.counters[side.other()];
                counters.totals().ddl_applied += 1;
                Ok(Ran::Done)
            }
            Err(error) if matches!(error.class, Class::Retry | Class::Operator) => Err(error),
            Err(error) => Ok(Ran::Refused(errors::code_of(&error), error)),
        }
    }

    /// The last look before a command: this process still holds the link, and the reader has met no
    /// counterpart of what `subject` creates one for.
    async fn may_run(&self, side: Side, subject: &Subject) -> Result<()> {
        self.must_hold(side).await?;
        let collections = &self.shared.collections;
        let created = subject.created.as_ref();
        match created.is_some_and(|one| collections.place(&one.collection, side).1.is_some()) {
            true => Err(Error::unreachable(format!(
                "{} has just been created on {}",
                subject.name,
                self.cluster(side).name
            ))),
            false => Ok(()),
        }
    }

    async fn send(
        &self,
        side: Side,
        database: &str,
        command: Document,
        step: &Step,
        name: &Namespace,
    ) -> Result<Document> {
        let mut cluster = self.cluster(side).clone();
        cluster.operation_timeout = COMMAND_TIME_MAX;
        let doing = format!("run {} for {name} on {}", verb(&command), cluster.name);
        let pipeline = super::pipeline_of(side.other()).as_str();
        tracing::info!(pipeline, namespace = %name, operation = step.operation, "bringing a change of a collection over");
        let reply = cluster.command(database, command, &doing).await?;
        errors::check_reply(&reply, &doing)?;
        Ok(reply)
    }
}

/// The collection or index is not there any more: nothing is left to change.
pub(super) fn is_gone(code: Option<i32>, step: &Step) -> bool {
    const INDEX_NOT_FOUND: i32 = 27;
    match code {
        Some(errors::NAMESPACE_NOT_FOUND | errors::COLLECTION_UUID_MISMATCH) => true,
        Some(INDEX_NOT_FOUND) => step.operation == "dropIndexes",
        _ => false,
    }
}

fn verb(command: &Document) -> &str {
    command.keys().next().map_or("a command", String::as_str)
}

fn time_of(reply: &Document) -> Option<Timestamp> {
    reply.get_timestamp("operationTime").ok()
}
