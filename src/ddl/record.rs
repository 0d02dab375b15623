//! The record of a DDL event that was not brought over, or lost against another one.

use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};

use crate::change::{ConflictKind, Namespace, PipelineId, RecordStatus, Side, record_id};
use crate::error::{Error, Result};
use crate::link::own::Own;
use crate::pipeline::{LinkFacts, Shared, insist};
use crate::source::DdlEvent;

/// Who won over a DDL event, and why.
#[derive(Debug, Clone, Copy)]
pub struct Won<'a> {
    pub side: Side,
    pub event: &'a DdlEvent,
    pub reason: &'a str,
}

/// Puts an event of `side` on record there and in the local store. The first record of an event
/// stands. `reason` says why it has no counterpart. Returns how many are new here.
///
/// It is written again until the cluster has answered: another attempt of the caller may find that
/// nothing is left to be done, and leave the record out.
///
/// # Errors
/// What no retry helps against; as the store says.
pub async fn put_on_record(
    shared: &Shared,
    own: &Own,
    side: Side,
    event: &DdlEvent,
    won: Option<Won<'_>>,
    reason: &str,
) -> Result<usize> {
    let namespace = shared.collections.on_a(side, &event.namespace);
    let record = record(&shared.facts, side, &namespace, event, won, reason)?;
    let whole = RawDocumentBuf::try_from(&record)
        .map_err(|error| Error::bug("a record that cannot be written").caused_by(error))?;
    let raw = shared.facts.redaction.record(&whole);
    let mut body = Document::try_from(raw.clone())
        .map_err(|error| Error::bug("a record that cannot be read").caused_by(error))?;
    let id = body.remove("_id");
    let statement = doc! { "q": { "_id": id }, "u": { "$setOnInsert": body }, "upsert": true };
    insist(|| own.update("conflicts", vec![statement.clone()])).await?;
    shared.store.put_records(&[raw])
}

fn record(
    facts: &LinkFacts,
    side: Side,
    namespace: &Namespace,
    event: &DdlEvent,
    won: Option<Won<'_>>,
    reason: &str,
) -> Result<Document> {
    let change = Document::try_from(event.raw.clone())
        .map_err(|error| Error::bug("an event that cannot be read").caused_by(error))?;
    let winning = won.map(|won| {
        doc! {
            "operation": &won.event.operation,
            "cluster_time": won.event.position.time,
            "wall_time": DateTime::from_millis(won.event.wall_time_ms),
            "version": won.event.wall_time_ms,
            "document": Bson::Null,
        }
    });
    Ok(doc! {
        "_id": record_id(&facts.link, &facts.replica_set_ids[side], &event.position.token),
        "logged_at": DateTime::now(),
        "pipeline": PipelineId::from_source(side).as_str(),
        "namespace": namespace.as_str(),
        "document_key": Bson::Null,
        "kind": ConflictKind::Ddl.as_str(),
        "policy": facts.policy,
        "winner": won.map(|won| facts.names[won.side].clone()),
        "winner_cluster": won.map(|won| won.side.as_str()),
        "reason": won.map_or(reason, |won| won.reason),
        "winning": winning,
        "losing": {
            "operation": &event.operation,
            "cluster_time": event.position.time,
            "wall_time": DateTime::from_millis(event.wall_time_ms),
            "version": event.wall_time_ms,
            "change": change,
            "document": Bson::Null,
        },
        "clock_skew_ms": Bson::Null,
        "status": RecordStatus::Logged.as_str(),
    })
}
