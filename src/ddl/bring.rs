//! Makes a part of a collection's definition on one cluster as it is on the other.

use std::time::Duration;

use bson::{Document, Timestamp, doc};

use super::change::Aspect;
use super::definition::{Step, read, steps};
use super::intent::Subject;
use super::worker::Worker;
use crate::change::{Namespace, Side};
use crate::cluster::errors;
use crate::error::{Class, Error, Result};

/// What became of a command.
#[derive(Debug)]
pub(super) enum Ran {
    Done,
    /// Refused for good: the server's code, and what it said.
    Refused(Option<i32>, Error),
}

/// Longest time for one command: an index of a large collection takes that long, and is waited
/// for again after it.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(4 * 3600);

impl Worker {
    /// Makes one aspect on `to` as it is on the other cluster. Returns whether that took anything.
    ///
    /// # Errors
    /// As the clusters say; what a cluster refuses for good is listed and is no error.
    pub(super) async fn bring(
        &self,
        collection: &Namespace,
        aspect: &Aspect,
        to: Side,
    ) -> Result<bool> {
        let collections = &self.shared.collections;
        let (there, there_uuid) = collections.place(collection, to.other());
        let (name, uuid) = collections.place(collection, to);
        let source = read(self.cluster(to.other()), &there, there_uuid).await?;
        let target = read(self.cluster(to), &name, uuid).await?;
        let (Some(source), Some(target)) = (source, target) else {
            self.must_be_gone(collection, to.other(), &there).await?;
            self.must_be_gone(collection, to, &name).await?;
            return Ok(false);
        };
        if let Aspect::Index(index) = aspect
            && let Some(spec) = source.index(index)
            && (spec.get_bool("unique").unwrap_or(false)
                || spec.get_bool("prepareUnique").unwrap_or(false))
        {
            self.keep_in_one_lane(collection).await?;
        }
        let steps = steps(aspect, &name, &source, &target);
        let subject = Subject {
            name: name.clone(),
            uuid,
            to: None,
            collection: None,
        };
        let label = match aspect {
            Aspect::Index(index) => index,
            Aspect::Option(option) => option,
        };
        for step in &steps {
            match self.execute(to, &subject, step).await? {
                Ran::Done => {}
                Ran::Refused(code, _) if is_gone(code, step) => {
                    self.must_be_gone(collection, to, &name).await?;
                }
                Ran::Refused(_, error) => {
                    let cluster = &self.cluster(to).name;
                    tracing::warn!(%cluster, namespace = %name, index = %label, %error, "an index or option cannot be brought over, see status");
                    let reason = error.reason();
                    self.ddl.problems.add(to, &name, label, &reason).await?;
                    return Ok(true);
                }
            }
        }
        self.ddl.problems.clear(to, &name, label).await?;
        collections.forget_indexes(collection);
        Ok(!steps.is_empty())
    }

    /// A collection that is not there under `name` may have been renamed a moment ago.
    ///
    /// # Errors
    /// Retryable where it has; as the cluster says.
    pub(super) async fn must_be_gone(
        &self,
        collection: &Namespace,
        side: Side,
        name: &Namespace,
    ) -> Result<()> {
        self.see(side).await?;
        let (now, _) = self.shared.collections.place(collection, side);
        match now == *name {
            true => Ok(()),
            false => Err(Error::unreachable(format!(
                "{name} has just been renamed on {}",
                self.cluster(side).name
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
        self.must_hold(side).await?;
        let intents = &self.ddl.intents;
        let id = intents.open(side, subject, step).await?;
        let outcome = self
            .send(side, database, command, step, &subject.name)
            .await;
        let end = match outcome.as_ref().ok().and_then(time_of) {
            Some(end) => end,
            None => {
                let own = &self.own[side];
                self.insist(side, || own.operation_time()).await?
            }
        };
        let made = match step.operation == "create" && outcome.is_ok() {
            true => self.uuid_of(side, &subject.name).await,
            false => None,
        };
        // Before the intent ends: the reader meets what was written into it right after that.
        if let (Some(collection), Some(made)) = (&subject.collection, made) {
            let collections = &self.shared.collections;
            collections.set_counterpart(collection, side, made, &subject.name);
        }
        intents.close(side, &id, end, made).await?;
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

    async fn uuid_of(&self, side: Side, name: &Namespace) -> Option<bson::Uuid> {
        let listed = crate::pipeline::list(self.cluster(side), name).await;
        listed.ok().flatten().and_then(|listed| listed.uuid)
    }
}

/// The collection or index is not there any more: nothing is left to change.
pub(super) fn is_gone(code: Option<i32>, step: &Step) -> bool {
    const NAMESPACE_NOT_FOUND: i32 = 26;
    const INDEX_NOT_FOUND: i32 = 27;
    const COLLECTION_UUID_MISMATCH: i32 = 361;
    match code {
        Some(NAMESPACE_NOT_FOUND | COLLECTION_UUID_MISMATCH) => true,
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
