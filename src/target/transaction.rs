//! One batch as one transaction: the writes, the records, the notes and the checkpoint.

use std::collections::HashMap;
use std::sync::Arc;

use bson::{DateTime, Document, RawDocumentBuf, Timestamp, cstr, rawdoc};

use super::checkpoint::CheckpointMove;
use super::command::{commands, write_command};
use super::notes::{Note, note_statement};
use super::reply::{Counts, Refusal, counts, operation_time, refusal};
use super::session::{Snapshot, TagSession};
use super::touch::{remove_stand_ins, stand_ins, touch_present};
use super::write_set::{CollectionInfo, CollectionWrites, Group, WriteSet};
use crate::change::{DocumentKey, KeySet, Namespace, split_record};
use crate::cluster::errors;
use crate::error::{Error, Result};
use crate::fault::Fault;

/// Everything that one transaction writes.
pub struct Batch<'a> {
    pub link: &'a str,
    /// The database of tandem's own state.
    pub database: &'a str,
    pub writes: WriteSet,
    pub collections: HashMap<Namespace, CollectionInfo>,
    /// Raw conflict records, `_id` first.
    pub records: Vec<RawDocumentBuf>,
    /// Ids of records and the status they get.
    pub statuses: Vec<(Arc<str>, &'static str)>,
    pub notes: Vec<(DocumentKey, Note)>,
    /// Of every lane that it takes something of.
    pub checkpoints: Vec<CheckpointMove<'a>>,
}

/// An open transaction.
pub struct Transaction<'a> {
    pub(super) session: &'a mut TagSession,
}

const UPDATE: &bson::raw::CStr = cstr!("update");
const INSERT: &bson::raw::CStr = cstr!("insert");
const DELETE: &bson::raw::CStr = cstr!("delete");

/// The document would grow past 16 MB (17419): it cannot take a scratch field.
const DOCUMENT_TOO_LARGE: i32 = 17419;

impl<'a> Transaction<'a> {
    pub fn begin(session: &'a mut TagSession, snapshot: Snapshot) -> Self {
        session.begin(snapshot);
        Self { session }
    }

    /// Goes on with the transaction that was begun last on the session.
    pub fn resume(session: &'a mut TagSession) -> Self {
        Self { session }
    }

    /// Starts at the server's present and returns a time that its snapshot is not later than.
    ///
    /// # Errors
    /// The refusal of the first read.
    pub async fn snapshot_time(
        &mut self,
        database: &str,
    ) -> std::result::Result<Timestamp, Refusal> {
        let command = rawdoc! { "find": "checkpoints", "filter": {}, "limit": 1 };
        let reply = self.run(database, command).await?;
        operation_time(&reply)
            .ok_or_else(|| Refusal::Failed(Error::bug("a reply without an operation time")))
    }

    /// Writes the whole batch, its checkpoints last.
    ///
    /// # Errors
    /// The first refusal; the transaction is dead then and has to be aborted.
    pub async fn write(&mut self, batch: &Batch<'_>) -> std::result::Result<(), Refusal> {
        for writes in &batch.writes.collections {
            let Some(collection) = batch.collections.get(&writes.namespace) else {
                return Err(Refusal::Failed(Error::bug(
                    "a write into an unpaired collection",
                )));
            };
            self.write_collection(writes, collection, &batch.writes.needs_document)
                .await?;
        }
        if !Fault::LateRecords.is_on() {
            self.write_records(batch).await?;
        }
        self.write_notes(batch).await?;
        self.move_checkpoints(batch).await
    }

    async fn write_collection(
        &mut self,
        writes: &CollectionWrites,
        collection: &CollectionInfo,
        needs_document: &[DocumentKey],
    ) -> std::result::Result<(), Refusal> {
        let namespace = &collection.name;
        let removed = self
            .send(DELETE, namespace, collection, &writes.deletes)
            .await?;
        if removed.matched < writes.deletes.keys.len() && !Fault::NoTouch.is_on() {
            self.touch_absent(namespace, collection, &distinct(&writes.deletes.keys))
                .await?;
        }
        self.send(INSERT, namespace, collection, &writes.inserts)
            .await?;
        let updated = self
            .send(UPDATE, namespace, collection, &writes.updates)
            .await?;
        let keys = || distinct(&writes.updates.keys);
        if updated.matched < writes.updates.keys.len() {
            let needing: KeySet = needs_document.iter().cloned().collect();
            let missed = keys().into_iter().filter(|key| needing.contains(key));
            let missed: Vec<DocumentKey> = missed.collect();
            if missed.is_empty() {
                return Err(Refusal::Failed(Error::bug(format!(
                    "a replacement of a document of {namespace} matched nothing"
                ))));
            }
            return Err(Refusal::FullStateNeeded(missed));
        }
        if updated.effective < writes.updates.keys.len() && !Fault::NoTouch.is_on() {
            self.touch_present(namespace, collection, &keys()).await?;
        }
        Ok(())
    }

    async fn touch_absent(
        &mut self,
        namespace: &Namespace,
        collection: &CollectionInfo,
        keys: &[DocumentKey],
    ) -> std::result::Result<(), Refusal> {
        let owned = |statements| Group {
            statements,
            keys: keys.to_vec(),
        };
        self.send(
            INSERT,
            namespace,
            collection,
            &owned(stand_ins(keys, collection)),
        )
        .await
        .map_err(Refusal::of_a_touch)?;
        self.send(
            DELETE,
            namespace,
            collection,
            &owned(remove_stand_ins(keys)),
        )
        .await?;
        Ok(())
    }

    async fn touch_present(
        &mut self,
        namespace: &Namespace,
        collection: &CollectionInfo,
        keys: &[DocumentKey],
    ) -> std::result::Result<(), Refusal> {
        let twice = keys
            .iter()
            .flat_map(|key| [key.clone(), key.clone()])
            .collect();
        let group = Group {
            statements: touch_present(keys),
            keys: twice,
        };
        match self.send(UPDATE, namespace, collection, &group).await {
            Err(Refusal::Impossible { error, .. }) if error.code == DOCUMENT_TOO_LARGE => {
                Err(match error.key {
                    Some(key) => Refusal::IdentityNeeded(key),
                    None => Refusal::Failed(Error::bug("a touch of no document")),
                })
            }
            other => other.map(|_| ()),
        }
    }

    async fn send(
        &mut self,
        verb: &'static bson::raw::CStr,
        namespace: &Namespace,
        collection: &CollectionInfo,
        group: &Group,
    ) -> std::result::Result<Counts, Refusal> {
        let mut total = Counts::default();
        let mut keys = group.keys.as_slice();
        for statements in commands(&group.statements) {
            let command = write_command(
                verb,
                namespace.collection(),
                Some(collection.uuid),
                statements,
            );
            let reply = self.run(namespace.database(), command).await?;
            let (of_these, of_others) = keys.split_at(statements.len());
            total += counts(&reply, of_these, &self.session.doing("write to"))?;
            keys = of_others;
        }
        Ok(total)
    }

    async fn write_records(&mut self, batch: &Batch<'_>) -> std::result::Result<(), Refusal> {
        let (mut statements, mut chunks) = (Vec::new(), Vec::new());
        for record in &batch.records {
            let split = split_record(record).map_err(|error| {
                Refusal::Failed(Error::bug("a record that cannot be read").caused_by(error))
            })?;
            statements.push(first_wins(&split.record));
            chunks.extend(split.chunks.iter().map(first_wins));
        }
        self.own_update(batch.database, "conflict_chunks", &chunks)
            .await?;
        for (id, status) in &batch.statuses {
            statements.push(
                rawdoc! { "q": { "_id": id.as_ref() }, "u": { "$set": { "status": *status } } },
            );
        }
        self.own_update(batch.database, "conflicts", &statements)
            .await
            .map(|_| ())
    }

    async fn write_notes(&mut self, batch: &Batch<'_>) -> std::result::Result<(), Refusal> {
        let statement = |(key, note): &(DocumentKey, Note)| note_statement(batch.link, key, note);
        let statements: Vec<RawDocumentBuf> = batch.notes.iter().map(statement).collect();
        self.own_update(batch.database, "keys", &statements)
            .await
            .map(|_| ())
    }

    async fn move_checkpoints(&mut self, batch: &Batch<'_>) -> std::result::Result<(), Refusal> {
        let now = DateTime::now();
        let moves = batch.checkpoints.iter().map(|one| one.statement(now));
        let statements: Vec<RawDocumentBuf> = moves.collect();
        let moved = self
            .own_update(batch.database, "checkpoints", &statements)
            .await?;
        if moved.matched == statements.len() {
            Ok(())
        } else {
            Err(Refusal::Fenced)
        }
    }

    pub(super) async fn own_update(
        &mut self,
        database: &str,
        collection: &str,
        statements: &[RawDocumentBuf],
    ) -> std::result::Result<Counts, Refusal> {
        let mut total = Counts::default();
        for statements in commands(statements) {
            let command = write_command(UPDATE, collection, None, statements);
            let reply = self.run(database, command).await?;
            total += counts(&reply, &[], &self.session.doing("write to"))?;
        }
        Ok(total)
    }

    async fn run(
        &mut self,
        database: &str,
        command: RawDocumentBuf,
    ) -> std::result::Result<Document, Refusal> {
        let doing = self.session.doing("write to");
        self.session
            .run(database, command)
            .await
            .map_err(|error| refusal(error, &doing))
    }

    pub async fn abort(self) {
        self.session.abort().await;
    }

    /// Commits with majority. Returns when it took place: the `operationTime` of the reply is the
    /// time of the transaction's entry in the oplog, as long as no commit is sent twice.
    ///
    /// # Errors
    /// The outcome is unknown then: ask [`super::settle()`].
    pub async fn commit(self) -> Result<Timestamp> {
        let doing = self.session.doing("commit on");
        let reply = self
            .session
            .commit()
            .await
            .map_err(|error| errors::classify(error, &doing))?;
        match reply.get_document("writeConcernError") {
            Ok(_) => Err(Error::unreachable(format!(
                "cannot {doing}: no majority yet"
            ))),
            Err(_) => operation_time(&reply)
                .ok_or_else(|| Error::bug("a reply without an operation time")),
        }
    }
}

impl Refusal {
    /// A stand-in that collides says nothing about the document it stands for.
    fn of_a_touch(self) -> Refusal {
        match self {
            Refusal::Duplicate { at, error } => Refusal::Unseen {
                at,
                code: error.code,
            },
            other => other,
        }
    }
}

/// Inserts a document that may be there already.
fn first_wins(record: &RawDocumentBuf) -> RawDocumentBuf {
    let id = record.get("_id").ok().flatten();
    let id = id.unwrap_or(bson::RawBsonRef::Null);
    let mut body = RawDocumentBuf::new();
    for (name, value) in record
        .iter()
        .flatten()
        .filter(|(name, _)| name.as_str() != "_id")
    {
        body.append(name, value);
    }
    rawdoc! { "q": { "_id": id }, "u": { "$setOnInsert": body }, "upsert": true }
}

fn distinct(keys: &[DocumentKey]) -> Vec<DocumentKey> {
    let mut seen = KeySet::default();
    keys.iter()
        .filter(|key| seen.insert((*key).clone()))
        .cloned()
        .collect()
}
