//! From decided conflicts to the records that the transaction puts on the target. Pure.

use std::collections::HashMap;

use bson::{DateTime, RawDocumentBuf, rawdoc};

use crate::change::{
    ConflictKind, ConflictRecord, DocumentKey, Losing, Operation, Pair, PipelineId, RecordStatus,
    Redaction, SharedEvent, Winning, record_id,
};
use crate::resolve::{Conflict, Decision, LostWrite, Plan, is_unread};

/// What records say about the link itself.
#[derive(Debug, Clone)]
pub struct LinkFacts {
    pub link: String,
    pub names: Pair<String>,
    pub replica_set_ids: Pair<String>,
    /// `last-write-wins`, `prefer-a`, `prefer-b` or `one-way`.
    pub policy: &'static str,
    /// What no record may hold.
    pub redaction: Redaction,
    /// How large the conflict log may become here; none: without end.
    pub log_bytes_max: Option<u64>,
}

/// Documents by key; a missing one is absent on its cluster.
pub type Documents = HashMap<DocumentKey, RawDocumentBuf>;

/// The records of a plan.
#[derive(Debug, Default)]
pub struct Records {
    pub raw: Vec<RawDocumentBuf>,
    pub lost: HashMap<DocumentKey, Vec<LostWrite>>,
    /// Conflicts whose documents are the same on both sides: nothing was lost.
    pub identical: u64,
}

/// `of_source` and `of_target` hold the documents of all keys in conflict; `shown` gives a key as
/// people know it.
pub fn records(
    facts: &LinkFacts,
    plan: &Plan,
    of_source: &Documents,
    of_target: &Documents,
    skew_ms: Option<i64>,
    now: DateTime,
    shown: impl Fn(&DocumentKey) -> DocumentKey,
) -> Records {
    let mut records = Records::default();
    for decision in &plan.decisions {
        let Some(conflict) = &decision.conflict else {
            continue;
        };
        if decision.same {
            records.identical += 1;
            continue;
        }
        let source = of_source.get(&decision.key);
        let target = of_target.get(&decision.key);
        let documents = match plan.pipeline {
            PipelineId::AToB => Pair::new(source, target),
            PipelineId::BToA => Pair::new(target, source),
        };
        for mut record in of_conflict(facts, plan, decision, conflict, documents, skew_ms, now) {
            record.key = shown(&decision.key);
            let lost = records.lost.entry(decision.key.clone()).or_default();
            lost.push(LostWrite {
                record: record.id.as_str().into(),
                at: record.losing.cluster_time,
            });
            records.raw.push(record.to_raw());
        }
    }
    records
}

fn of_conflict(
    facts: &LinkFacts,
    plan: &Plan,
    decision: &Decision,
    conflict: &Conflict,
    documents: Pair<Option<&RawDocumentBuf>>,
    clock_skew_ms: Option<i64>,
    logged_at: DateTime,
) -> Vec<ConflictRecord> {
    let loser = conflict.winner.other();
    let (winners, losers) = match conflict.winner == plan.pipeline.source() {
        true => (&conflict.mine, &conflict.theirs),
        false => (&conflict.theirs, &conflict.mine),
    };
    let winning = winning(winners, documents[conflict.winner]);
    // Tells whether this transaction has written the winner's document, too.
    let settled_by = rawdoc! { "settled_by": plan.pipeline.as_str() };
    let kind = kind(net(winners), net(losers));
    // Of a document that was copied in vain nothing is lost where it is gone by now.
    let is_nothing = |event: &&SharedEvent| is_unread(event) && documents[loser].is_none();
    let lost = decision.losers(plan.pipeline.source()).into_iter();
    lost.filter(|event| !is_nothing(event))
        .map(|event| ConflictRecord {
            id: record_id(
                &facts.link,
                &facts.replica_set_ids[loser],
                &event.position.token,
            ),
            logged_at,
            pipeline: PipelineId::from_source(loser),
            key: decision.key.clone(),
            kind,
            policy: facts.policy,
            winner: Some((facts.names[conflict.winner].clone(), conflict.winner)),
            reason: conflict.reason.as_str().to_owned(),
            winning: winning.clone(),
            losing: losing(event, documents[loser]),
            clock_skew_ms,
            extra: settled_by.clone(),
            status: RecordStatus::Logged,
        })
        .collect()
}

fn winning(events: &[SharedEvent], document: Option<&RawDocumentBuf>) -> Option<Winning> {
    let newest = events.iter().max_by_key(|event| event.version)?;
    Some(Winning {
        operation: newest.operation,
        cluster_time: newest.position.time,
        wall_time: DateTime::from_millis(newest.wall_time_ms),
        version_ms: newest.version.wall_time_ms,
        document: document.cloned(),
    })
}

/// A losing event with its side's whole document.
pub fn losing(event: &SharedEvent, document: Option<&RawDocumentBuf>) -> Losing {
    Losing {
        operation: event.operation,
        cluster_time: event.position.time,
        wall_time: DateTime::from_millis(event.wall_time_ms),
        version_ms: event.version.wall_time_ms,
        change: Some(event.raw.document().clone()),
        document: document.cloned(),
    }
}

/// What a side's writes come to, taken together.
fn net(events: &[SharedEvent]) -> Operation {
    match (events.first(), events.last()) {
        (_, Some(last)) if last.operation == Operation::Delete => Operation::Delete,
        (Some(first), _) if first.operation == Operation::Insert => Operation::Insert,
        _ => Operation::Update,
    }
}

fn kind(winner: Operation, loser: Operation) -> ConflictKind {
    match (winner, loser) {
        (_, Operation::Delete) => ConflictKind::DeleteOriginDiffers,
        (Operation::Delete, _) => ConflictKind::UpdateDeleted,
        (Operation::Insert, Operation::Insert) => ConflictKind::InsertExists,
        (Operation::Insert | Operation::Update | Operation::Replace, _) => {
            ConflictKind::UpdateOriginDiffers
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_from_what_both_sides_did() {
        use Operation::{Delete, Insert, Replace, Update};
        for (winner, loser, expected) in [
            (Insert, Insert, ConflictKind::InsertExists),
            (Update, Update, ConflictKind::UpdateOriginDiffers),
            (Replace, Insert, ConflictKind::UpdateOriginDiffers),
            (Delete, Update, ConflictKind::UpdateDeleted),
            (Update, Delete, ConflictKind::DeleteOriginDiffers),
        ] {
            assert_eq!(kind(winner, loser), expected, "{winner:?} {loser:?}");
        }
    }
}
