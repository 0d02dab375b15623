//! A plan as one transaction on its target: the writes at the fence, records, notes, checkpoint.

use bson::{RawDocumentBuf, Timestamp, rawdoc};
use tandem::change::{DocumentKey, Pair, SharedEvent, Side};
use tandem::resolve::{
    Action, Base, BatchLimits, Decision, DocumentRules, Found, LostWrite, Plan, Settle, Share,
};

use crate::cluster::{
    Change, Checkpoint, Cluster, Document, Entry, Logged, Paid, Writes, id_before, timestamp,
};
use crate::options::{Broken, Options};

/// Why nothing was committed.
#[derive(Debug)]
pub enum Refused {
    /// A document was changed after the fence.
    WriteConflict,
    /// An update met no document.
    Missing(DocumentKey),
}

struct Write {
    key: usize,
    document: Document,
    seen: Writes,
    effective: bool,
    full_state: bool,
}

pub fn key_index(keys: &[DocumentKey], key: &DocumentKey) -> usize {
    keys.iter()
        .position(|known| known == key)
        .expect("a known key")
}

/// The source's and the target's document as the decision sees them come to the same.
fn identical(clusters: &Pair<Cluster>, plan: &Plan, key: usize) -> bool {
    let (source, target) = (plan.pipeline.source(), plan.pipeline.target());
    clusters[source]
        .read_at(key, plan.read_at.time.time)
        .document
        == clusters[target].read_at(key, plan.fence.time.time).document
}

/// The losers of a decision, which go on record where both sides do not come to the same.
fn losers(
    clusters: &Pair<Cluster>,
    keys: &[DocumentKey],
    plan: &Plan,
    decision: &Decision,
) -> Vec<LostWrite> {
    let Some(conflict) = &decision.conflict else {
        return Vec::new();
    };
    let cluster = &clusters[conflict.winner.other()];
    let lost = decision.losers(plan.pipeline.source()).into_iter();
    let lost = lost.map(|event| LostWrite {
        record: id_of(cluster, keys, event).to_string().into(),
        at: event.position.time,
    });
    lost.collect()
}

/// All writes of the side that loses nothing where both sides come to the same.
fn met(clusters: &Pair<Cluster>, keys: &[DocumentKey], plan: &Plan, decision: &Decision) -> Writes {
    let Some(conflict) = &decision.conflict else {
        return 0;
    };
    let events = match conflict.winner == plan.pipeline.source() {
        true => &conflict.theirs,
        false => &conflict.mine,
    };
    let cluster = &clusters[conflict.winner.other()];
    let ids = events.iter().map(|event| id_of(cluster, keys, event));
    ids.fold(0, |all, id| all | (1 << id))
}

/// The write that an event tells of, or what was there before the start.
pub fn id_of(cluster: &Cluster, keys: &[DocumentKey], event: &SharedEvent) -> usize {
    match cluster.find_local(event) {
        Some(write) => write.id,
        None => id_before(cluster.side, key_index(keys, &event.key)),
    }
}

/// Tells the plan where both sides have come to the same document.
pub fn agree(clusters: &Pair<Cluster>, keys: &[DocumentKey], plan: &mut Plan) {
    let copy = plan.clone();
    plan.agree(|key| identical(clusters, &copy, key_index(keys, key)));
}

/// Settles what the plan has left open, with the documents as they were.
pub fn settle(clusters: &Pair<Cluster>, keys: &[DocumentKey], plan: &mut Plan, options: &Options) {
    let (source, target) = (plan.pipeline.source(), plan.pipeline.target());
    let rules = DocumentRules {
        rules: options.rules,
        tie: options.tie,
        version_field: None,
    };
    let raw = |side: Side, key: usize, at: Timestamp| {
        let time = at.time - u32::from(at.increment == 0);
        let [x, y] = clusters[side].read_at(key, time).document?;
        Some(rawdoc! { "x": i32::from(x), "y": i32::from(y) })
    };
    let mut found = Vec::new();
    for decision in &plan.decisions {
        let key = key_index(keys, &decision.key);
        let settle = decision.settle.as_deref();
        let base = settle.and_then(Settle::base_at);
        let base = base.filter(|_| options.broken != Broken::Base);
        let target_base = settle.and_then(Settle::target_base_at);
        found.push((
            decision.key.clone(),
            raw(source, key, plan.read_at.time),
            raw(target, key, plan.fence.time),
            base.map(|at| raw(source, key, at)),
            target_base.map(|at| raw(target, key, at)),
        ));
    }
    fn known(base: &Option<Option<RawDocumentBuf>>) -> Base<'_> {
        match base {
            Some(base) => Base::Known(base.as_deref()),
            None => Base::Unknown,
        }
    }
    plan.settle(&rules, |key| {
        let this = found.iter().find(|(other, ..)| other == key);
        let (_, source, target, base, target_base) = this.expect("every key was read");
        Found {
            source: source.as_deref(),
            target: target.as_deref(),
            base: known(base),
            target_base: known(target_base),
        }
    });
}

/// Gives the losing writes of the plan their records' ids, as the transaction will write them.
pub fn fill_in_records(clusters: &Pair<Cluster>, keys: &[DocumentKey], plan: &mut Plan) {
    for decision in plan.decisions.clone() {
        let losers = losers(clusters, keys, plan, &decision);
        if losers.is_empty() || identical(clusters, plan, key_index(keys, &decision.key)) {
            continue;
        }
        plan.records.insert(decision.key.clone(), losers);
    }
}

fn write_of(
    clusters: &Pair<Cluster>,
    plan: &Plan,
    decision: &Decision,
    key: usize,
    broken: Broken,
) -> Result<Option<Write>, Refused> {
    let (source, target) = (plan.pipeline.source(), plan.pipeline.target());
    let before = clusters[target].read_at(key, plan.fence.time.time);
    let (document, seen) = match decision.action {
        Action::Skip => return Ok(None),
        Action::FullState => {
            let state = if broken == Broken::ExactRead {
                clusters[source].now(key)
            } else {
                // What a copy hands over says when it was read.
                let handed = decision.document.as_ref();
                let handed = handed.map(|document| document.get_i64("read_at").expect("a time"));
                let at = handed.map_or(plan.read_at.time.time, |at| at as u32);
                clusters[source].read_at(key, at)
            };
            (state.document, state.seen)
        }
        Action::Deltas => {
            let mut state = (before.document, before.seen);
            for event in &decision.events {
                let write = clusters[source].local(event);
                let missing = state.0.is_none() && matches!(write.change, Change::Update { .. });
                if missing {
                    return Err(Refused::Missing(decision.key.clone()));
                }
                state = (write.change.after(state.0), state.1 | write.seen);
            }
            state
        }
    };
    Ok(Some(Write {
        key,
        document,
        seen,
        effective: document != before.document,
        full_state: decision.action == Action::FullState,
    }))
}

/// Commits a plan, or nothing of it.
pub fn commit(
    clusters: &mut Pair<Cluster>,
    keys: &[DocumentKey],
    plan: &Plan,
    broken: Broken,
) -> Result<(), Refused> {
    let target = plan.pipeline.target();
    let fence = plan.fence.time.time;
    let mut writes = Vec::new();
    for decision in &plan.decisions {
        let key = key_index(keys, &decision.key);
        writes.extend(write_of(clusters, plan, decision, key, broken)?);
    }
    for write in &writes {
        let checked = write.effective || broken != Broken::ForcedCheck;
        if checked && broken != Broken::Fence && clusters[target].changed_at[write.key] > fence {
            return Err(Refused::WriteConflict);
        }
    }
    let same: Vec<(Document, Writes)> = plan
        .decisions
        .iter()
        .filter(|decision| !plan.records.contains_key(&decision.key))
        .map(|decision| {
            let mut writes = met(clusters, keys, plan, decision);
            let key = key_index(keys, &decision.key);
            let before = (1 << id_before(Side::A, key)) | (1 << id_before(Side::B, key));
            if writes != 0 {
                let source = clusters[target.other()].read_at(key, plan.read_at.time.time);
                let seen = source.seen | clusters[target].read_at(key, fence).seen;
                writes |= seen & before;
            }
            if decision.settle.is_some() && identical(clusters, plan, key) {
                writes |= before;
            }
            (clusters[target].read_at(key, fence).document, writes)
        })
        .collect();
    let cluster = &mut clusters[target];
    for (document, writes) in same {
        cluster.came_to_the_same(document, writes);
    }
    cluster.time += 1;
    let mut written = Vec::new();
    for write in &writes {
        store(cluster, write, fence);
        if write.effective || broken != Broken::ForcedCheck {
            cluster.changed_at[write.key] = cluster.time;
            written.push(write.key);
        }
    }
    for decision in &plan.decisions {
        let key = key_index(keys, &decision.key);
        note(cluster, plan, decision, key, broken);
    }
    for share in &plan.shares {
        cluster.checkpoints[share.lane] = Checkpoint::of(share);
        forget_included(cluster, keys, share);
    }
    cluster.log.push(Logged {
        time: cluster.time,
        entry: Entry::Own {
            pipeline: plan.pipeline,
            lane: plan.leader(),
            keys: written,
        },
    });
    Ok(())
}

fn store(cluster: &mut Cluster, write: &Write, fence: u32) {
    if write.effective {
        return cluster.set(write.key, write.document, write.seen);
    }
    // Both sides had come to the same state by themselves.
    let now = cluster.now(write.key);
    if cluster.changed_at[write.key] <= fence {
        if write.full_state {
            cluster.came_to_the_same(now.document, write.seen ^ now.seen);
        }
        cluster.remember(write.key, now.document, write.seen | now.seen);
    }
}

fn note(cluster: &mut Cluster, plan: &Plan, decision: &Decision, key: usize, broken: Broken) {
    let records = plan.records.get(&decision.key);
    for lost in records.into_iter().flatten() {
        cluster
            .records
            .entry(lost.record.parse().expect("a number"))
            .or_insert(false);
    }
    for record in &decision.overturned {
        let id: usize = record.parse().expect("a number");
        if let Some(overturned) = cluster.records.get_mut(&id) {
            *overturned = true;
        }
    }
    let notes = &mut cluster.notes[key];
    if let Some((_, lost)) = &mut notes.owed
        && !decision.overturned.is_empty()
    {
        lost.retain(|write| write.at > plan.read_at.time);
    }
    if let Some(value) = &decision.leave_note {
        let mut lost = notes.owed.take().map_or(Vec::new(), |(_, lost)| lost);
        lost.extend(records.into_iter().flatten().cloned());
        notes.owed = Some((value.clone(), lost));
    }
    if decision.replaces_lost() {
        notes.paid = Some(Paid {
            value: decision.pays_note.clone(),
            replaced_through: plan.fence.time,
        });
    }
    if decision.leaves_included() && broken != Broken::Included {
        notes.included = Some(plan.read_at.time.time);
    }
}

/// `included` has done its work once the lane's checkpoint is past it.
fn forget_included(cluster: &mut Cluster, keys: &[DocumentKey], share: &Share) {
    let lanes = cluster.checkpoints.len();
    for (key, notes) in keys.iter().zip(&mut cluster.notes) {
        let passed = |time: u32| share.through.covers(timestamp(time));
        if key.lane(lanes) == share.lane && notes.included.is_some_and(passed) {
            notes.included = None;
        }
    }
}

/// The writes of a lane that its checkpoint passes over in going from one place to another.
pub fn passed_by<'a>(
    source: &'a Cluster,
    keys: &'a [DocumentKey],
    lane: usize,
    lanes: usize,
    from: &'a Checkpoint,
    to: &'a Checkpoint,
) -> impl Iterator<Item = usize> + 'a {
    let writes = source.local_writes();
    writes
        .filter(move |write| keys[write.key].lane(lanes) == lane)
        .filter(move |write| !from.passes(&write.event) && to.passes(&write.event))
        .map(|write| write.id)
}

/// So many operations of any size.
pub fn limits(operations_max: usize) -> BatchLimits {
    BatchLimits {
        operations_max,
        bytes_max: 1 << 20,
    }
}
