//! From a decided plan to everything that its transaction writes. Pure.

use std::collections::HashMap;

use bson::Timestamp;

use super::Known;
use super::caution::Trouble;
use super::records::Records;
use crate::change::{DocumentKey, Namespace, Pair, Side};
use crate::resolve::{Action, Decision, Plan};
use crate::target::{
    Batch, Checkpoint, CheckpointMove, CollectionInfo, Met, Note, Refusal, WriteSet,
};

pub type Infos = HashMap<Namespace, CollectionInfo>;

/// Keys whose whole document on the source is needed.
pub fn wanted_of_source(plan: &Plan) -> Vec<DocumentKey> {
    let wanted = |decision: &&Decision| {
        (decision.action == Action::FullState && decision.document.is_none())
            || decision.conflict.is_some()
            || is_open(decision)
            || plan.dead_letters.contains(&decision.key)
    };
    let decisions = plan.decisions.iter().filter(wanted);
    decisions.map(|decision| decision.key.clone()).collect()
}

/// Keys that would not be sent as full state, of collections where only that is right: with a
/// collation, several of them may mean one document, which only the server can tell, and what it
/// finds under a key is right whichever of them it is; with a filter, only the server can tell
/// whether a document is in it, and what it finds is in it.
pub fn parts_of_whole(
    plan: &Plan,
    collections: &HashMap<Namespace, Pair<CollectionInfo>>,
    is_filtered: impl Fn(&Namespace) -> bool,
) -> Vec<DocumentKey> {
    let source = plan.pipeline.source();
    let parts = plan.decisions.iter().filter(|decision| {
        let Some(pair) = collections.get(decision.key.namespace()) else {
            return false;
        };
        let is_collated = pair.a.collated || pair.b.collated;
        match decision.action {
            Action::Deltas => is_collated || is_filtered(&pair[source].name),
            Action::FullState | Action::Skip => decision.fresh && is_collated,
        }
    });
    parts.map(|decision| decision.key.clone()).collect()
}

/// Keys that would be deleted because the source's documents are gone, or not in the filter.
pub fn absent(plan: &Plan, known: &Known) -> Vec<DocumentKey> {
    let is_absent = |decision: &&Decision| {
        decision.action == Action::FullState
            && decision.document.is_none()
            && !known.of_source.contains_key(&decision.key)
    };
    let absent = plan.decisions.iter().filter(is_absent);
    absent.map(|decision| decision.key.clone()).collect()
}

/// Keys in conflict, or to be settled: their documents on the target are compared, and go on
/// record where they lose.
pub fn contested(plan: &Plan) -> Vec<DocumentKey> {
    let decisions = plan.decisions.iter();
    let contested = decisions.filter(|d| d.conflict.is_some() || is_open(d));
    contested.map(|decision| decision.key.clone()).collect()
}

fn is_open(decision: &Decision) -> bool {
    decision
        .settle
        .as_ref()
        .is_some_and(|settle| settle.is_open())
}

pub fn infos_of(collections: &HashMap<Namespace, Pair<CollectionInfo>>, side: Side) -> Infos {
    collections
        .iter()
        .map(|(namespace, pair)| (namespace.clone(), pair[side].clone()))
        .collect()
}

/// The transaction of a plan.
///
/// # Errors
/// Keys whose deltas cannot be put into operators need full state.
pub fn batch<'a>(
    place: &Place<'a>,
    trouble: &Trouble,
    plan: &'a Plan,
    known: Known,
    records: &Records,
) -> Result<Batch<'a>, Refusal> {
    let mut writes = WriteSet::default();
    let mut in_order = Vec::new();
    for decision in &plan.decisions {
        let read = || known.of_source.get(&decision.key);
        let read = || read().map(|document| document.as_ref());
        let document = decision.document.as_deref().or_else(read);
        match (decision.action, document) {
            (Action::Skip, _) => {}
            (Action::Deltas, _) if trouble.keeps_order() => {
                let first = met(&known, decision);
                let met = (0..).map(|at| if at == 0 { first } else { Met::Anything });
                in_order.extend(decision.events.iter().zip(met));
            }
            (Action::Deltas, _) => {
                let met = met(&known, decision);
                writes.add_deltas(&decision.key, &decision.events, met);
            }
            (Action::FullState, Some(document)) if trouble.needs_identity(&decision.key) => {
                writes.add_with_new_identity(&decision.key, document);
            }
            (Action::FullState, Some(document)) if decision.fresh => match &decision.document {
                Some(held) => writes.add_copy(&decision.key, held),
                None => writes.add_copy(&decision.key, document),
            },
            (Action::FullState, document) => writes.add_full_state(&decision.key, document),
        }
    }
    in_order.sort_by(|(one, _), (other, _)| one.position.cmp(&other.position));
    for (event, met) in in_order {
        writes.add_in_order(event, met);
    }
    if !writes.full_state_needed.is_empty() {
        return Err(Refusal::FullStateNeeded(writes.full_state_needed));
    }
    let of_decisions = plan.decisions.iter().flat_map(|d| notes(place, plan, d));
    let passed = place.included.iter().map(|(key, through)| {
        let note = Note::IncludedPassed { through: *through };
        (key.clone(), note)
    });
    let noted = of_decisions.chain(passed);
    let moves = place.checkpoints.iter().zip(&plan.shares);
    let moves = moves.map(|(from, share)| CheckpointMove {
        from,
        to: &share.through,
        ahead: share.ahead.as_ref(),
    });
    Ok(Batch {
        link: place.link,
        database: place.database,
        writes,
        collections: known.collections,
        records: records.raw.clone(),
        statuses: known.statuses,
        notes: noted.collect(),
        checkpoints: moves.collect(),
    })
}

/// What the first event of a document finds on the target.
fn met(known: &Known, decision: &Decision) -> Met {
    match known.keeps_deleted.contains(decision.key.namespace()) {
        true => Met::Anything,
        false => Met::Nothing,
    }
}

/// Where a batch belongs.
pub struct Place<'a> {
    pub link: &'a str,
    pub database: &'a str,
    /// Of each share of the plan.
    pub checkpoints: Vec<&'a Checkpoint>,
    pub one_way: bool,
    /// `included` notes that the checkpoints pass.
    pub included: Vec<(DocumentKey, Timestamp)>,
}

fn notes(place: &Place<'_>, plan: &Plan, decision: &Decision) -> Vec<(DocumentKey, Note)> {
    let mut notes = Vec::new();
    if let Some(value) = &decision.leave_note {
        let lost = plan.records.get(&decision.key).into_iter().flatten();
        notes.push(Note::Owed {
            value: value.clone(),
            lost: lost.map(|lost| (lost.record.clone(), lost.at)).collect(),
        });
    }
    if !decision.overturned.is_empty() {
        notes.push(Note::Overturned {
            through: plan.read_at.time,
        });
    }
    if decision.replaces_lost() {
        notes.push(Note::Paid {
            value: decision.pays_note.clone(),
            replaced_through: plan.fence.time,
        });
    }
    if decision.leaves_included() {
        notes.push(Note::Included {
            through: plan.read_at.time,
        });
    }
    if place.one_way && decision.conflict.is_some() {
        notes.push(Note::Unwitnessed);
    }
    if plan.dead_letters.contains(&decision.key) {
        notes.push(Note::Dead);
    }
    if decision.revives {
        notes.push(Note::Revived);
    }
    let key = &decision.key;
    notes.into_iter().map(|note| (key.clone(), note)).collect()
}
