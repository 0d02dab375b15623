//! What a lane has learnt from refusals about the events it tries again.

use std::collections::{HashMap, HashSet};

use bson::{DateTime, RawDocumentBuf, cstr};

use super::records::{Documents, LinkFacts, losing};
use crate::change::{
    ConflictKind, ConflictRecord, DocumentKey, LASTING_NAMESPACE, RecordStatus, record_id,
};
use crate::resolve::{BatchLimits, Caution, Plan};
use crate::target::WriteError;

/// Tries of one event, alone and with complete knowledge, before it is put aside.
const TRIES_MAX: u32 = 4;

/// How much of a full batch a lane takes, and what it must avoid.
#[derive(Debug)]
pub struct Trouble {
    limits: BatchLimits,
    operations_max: usize,
    /// Events that have to be written in the order of the source, document by document.
    in_order: usize,
    /// How many come before one that was refused all the same.
    cut: Option<usize>,
    caution: Caution,
    identity: HashSet<DocumentKey>,
    errors: HashMap<DocumentKey, (WriteError, u32)>,
}

impl Trouble {
    pub fn none(limits: BatchLimits) -> Self {
        Self {
            operations_max: limits.operations_max,
            limits,
            in_order: 0,
            cut: None,
            caution: Caution::default(),
            identity: HashSet::new(),
            errors: HashMap::new(),
        }
    }

    pub fn limits(&self) -> BatchLimits {
        BatchLimits {
            operations_max: self.cut.unwrap_or(usize::MAX).min(self.operations_max),
            bytes_max: self.limits.bytes_max,
        }
    }

    pub fn caution(&self) -> &Caution {
        &self.caution
    }

    pub fn needs_identity(&self, key: &DocumentKey) -> bool {
        self.identity.contains(key)
    }

    /// A batch was committed: forget its keys, take more next time.
    pub fn passed(&mut self, plan: &Plan) {
        for decision in &plan.decisions {
            self.caution.full_state.remove(&decision.key);
            self.caution.dead_letters.remove(&decision.key);
            self.identity.remove(&decision.key);
            self.errors.remove(&decision.key);
        }
        self.in_order = self.in_order.saturating_sub(plan.size());
        self.cut = None;
        let more = (self.operations_max * 2).max(2);
        self.operations_max = more.min(self.limits.operations_max);
    }

    /// A document of the batch was changed after the fence, or there were too many for one
    /// transaction: a smaller batch meets fewer of them.
    pub fn refused(&mut self, plan: &Plan) {
        let tried = plan.size().min(self.operations_max);
        self.operations_max = (tried / 2).max(1);
    }

    pub fn send_full_state(&mut self, keys: Vec<DocumentKey>) {
        self.caution.full_state.extend(keys);
    }

    pub fn send_identity(&mut self, key: DocumentKey) {
        self.caution.full_state.insert(key.clone());
        self.identity.insert(key);
    }

    /// Whether the next batch is written in the order of the source. It takes more commands than to
    /// bring each document to its last state, but meets no unique index that the source did not.
    pub fn keeps_order(&self) -> bool {
        self.in_order > 0
    }

    /// The server will not take a write of a batch of several: try again in order, then without what
    /// is refused, whose document is `key`, and that alone at last.
    pub fn take_apart(&mut self, plan: &Plan, key: Option<&DocumentKey>) {
        if !self.keeps_order() {
            self.in_order = plan.size();
            return;
        }
        let mut keys = plan.batch.iter().map(|event| Some(&event.key));
        let before = key.and_then(|_| keys.position(|of| of == key));
        self.cut = Some(before.unwrap_or(0).max(1));
    }

    /// The server will not take this event, alone and with everything before it applied.
    pub fn failed_alone(&mut self, key: &DocumentKey, error: WriteError) {
        let (last, tries) = self
            .errors
            .entry(key.clone())
            .or_insert_with(|| (error.clone(), 0));
        *last = error;
        *tries += 1;
        if *tries >= TRIES_MAX {
            self.caution.dead_letters.insert(key.clone());
        } else if *tries == TRIES_MAX - 1 {
            self.caution.full_state.insert(key.clone());
        }
    }

    /// The other document of each collision that a plan puts aside or leaves aside.
    pub fn collisions(&self, plan: &Plan) -> HashMap<DocumentKey, DocumentKey> {
        let other = |key: &DocumentKey| {
            let (error, _) = self.errors.get(key)?;
            DocumentKey::of(key.namespace(), error.other_key.as_ref()?)
        };
        let keys = plan.decisions.iter().map(|decision| &decision.key);
        keys.filter(|key| self.caution.dead_letters.contains(*key))
            .filter_map(|key| Some((key.clone(), other(key)?)))
            .collect()
    }

    /// Records of the events that a plan puts aside.
    pub fn dead_letter_records(
        &self,
        facts: &LinkFacts,
        plan: &Plan,
        of_source: &Documents,
        shown: impl Fn(&DocumentKey) -> DocumentKey,
    ) -> Vec<RawDocumentBuf> {
        let source = plan.pipeline.source();
        let mut records = Vec::new();
        for decision in &plan.decisions {
            let Some((error, tries)) = self.errors.get(&decision.key) else {
                continue;
            };
            if !plan.dead_letters.contains(&decision.key) {
                continue;
            }
            for event in &decision.events {
                let token = &event.position.token;
                let record = ConflictRecord {
                    id: record_id(&facts.link, &facts.replica_set_ids[source], token),
                    logged_at: DateTime::now(),
                    pipeline: plan.pipeline,
                    key: shown(&decision.key),
                    kind: ConflictKind::DeadLetter,
                    policy: facts.policy,
                    winner: None,
                    reason: error.code_name.clone(),
                    winning: None,
                    losing: losing(event, of_source.get(&decision.key)),
                    clock_skew_ms: None,
                    extra: details(error, *tries, &decision.key),
                    status: RecordStatus::Logged,
                };
                records.push(record.to_raw());
            }
        }
        records
    }
}

fn details(error: &WriteError, tries: u32, key: &DocumentKey) -> RawDocumentBuf {
    let mut extra = RawDocumentBuf::new();
    extra.append(cstr!("code"), error.code);
    match &error.index {
        Some(index) => extra.append(cstr!("index"), index.as_str()),
        None => extra.append(cstr!("index"), bson::RawBson::Null),
    }
    match &error.other_key {
        Some(key) => extra.append(cstr!("other_key"), key),
        None => extra.append(cstr!("other_key"), bson::RawBson::Null),
    }
    extra.append(cstr!("attempts"), tries as i32);
    extra.append(LASTING_NAMESPACE, key.namespace().as_str());
    extra
}
