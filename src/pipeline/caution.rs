//! What a lane has learnt from refusals about the events it tries again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bson::{DateTime, RawDocumentBuf, cstr};

use super::records::{Documents, LinkFacts, losing};
use crate::change::{
    ConflictKind, ConflictRecord, DocumentKey, LASTING_NAMESPACE, RecordStatus, record_id,
};
use crate::resolve::{BatchLimits, Caution, Decision, Plan};
use crate::target::WriteError;

/// Tries of one event, alone and with complete knowledge, before it is put aside.
const TRIES_MAX: u32 = 4;

/// How many times as many operations a transaction takes at most where they are about so many
/// collections that each command carries few of them.
const SPREAD_MAX: usize = 8;

/// A lane stays by itself for 64 batches at most.
const APART_MAX_POWER: u32 = 6;

/// How much of a full batch a lane takes, and what it must avoid.
#[derive(Debug)]
pub struct Trouble {
    limits: BatchLimits,
    /// More than the limit only where they are about many collections.
    operations_max: usize,
    /// Events that have to be written in the order of the source, document by document.
    in_order: usize,
    /// How many come before one that was refused all the same.
    cut: Option<usize>,
    /// A transaction of several lanes with this one among them was refused, and which of them that
    /// was about is not known: so many batches it stays by itself.
    apart: u32,
    /// How many such refusals there were since one was committed.
    joint_refusals: u32,
    /// A document of it once took longer than a transaction may; its transactions may take longer since.
    takes_long: bool,
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
            apart: 0,
            joint_refusals: 0,
            takes_long: false,
            caution: Caution::default(),
            identity: HashSet::new(),
            errors: HashMap::new(),
        }
    }

    pub fn limits(&self) -> BatchLimits {
        BatchLimits {
            operations_max: self.spread_operations_max().min(self.limits.operations_max),
            bytes_max: self.limits.bytes_max,
        }
    }

    /// How many operations a batch may take that is about many collections.
    pub fn spread_operations_max(&self) -> usize {
        self.cut.unwrap_or(usize::MAX).min(self.operations_max)
    }

    pub fn caution(&self) -> &Caution {
        &self.caution
    }

    pub fn needs_identity(&self, key: &DocumentKey) -> bool {
        self.identity.contains(key)
    }

    /// A batch was committed whose statements took `time` of `time_max`: forget its keys, take more
    /// next time.
    pub fn passed(
        &mut self,
        decisions: &[Decision],
        size: usize,
        time: Duration,
        time_max: Duration,
    ) {
        for decision in decisions {
            self.caution.full_state.remove(&decision.key);
            self.caution.dead_letters.remove(&decision.key);
            self.identity.remove(&decision.key);
            self.errors.remove(&decision.key);
        }
        self.in_order = self.in_order.saturating_sub(size);
        self.cut = None;
        self.apart = self.apart.saturating_sub(1);
        self.resize(size, time, time_max);
    }

    /// Where half of the time was enough, twice as much will fit too. A short batch grows in any case,
    /// if slowly: what takes long may be the way to the server, whatever goes there at once.
    fn resize(&mut self, size: usize, time: Duration, time_max: Duration) {
        let (usual, took_long) = (self.limits.operations_max, time >= time_max / 2);
        let most = usual.saturating_mul(SPREAD_MAX);
        self.operations_max = match self.operations_max {
            short if short < usual && took_long => (short + short / 8 + 1).min(usual),
            short if short < usual => short.saturating_mul(2).min(usual),
            _ if took_long => usual,
            full if size >= full => full.saturating_mul(2).min(most),
            enough => enough,
        };
    }

    /// Whether its events may go into one transaction with those of other lanes: not while anything
    /// is known of them that only a transaction of their own heeds.
    pub fn may_join(&self) -> bool {
        let is_full = self.operations_max >= self.limits.operations_max && self.cut.is_none();
        let keys = self.errors.len() + self.identity.len() + self.caution.dead_letters.len();
        is_full && !self.keeps_order() && self.apart == 0 && keys == 0 && !self.takes_long
    }

    pub fn takes_long(&mut self) {
        self.takes_long = true;
    }

    /// A transaction with events of other lanes was refused. Where that goes on, each lane is by
    /// itself for ever longer.
    pub fn refused_jointly(&mut self) {
        self.apart = 1 << self.joint_refusals.min(APART_MAX_POWER);
        self.joint_refusals += 1;
    }

    /// Such a one was committed.
    pub fn passed_jointly(&mut self) {
        self.joint_refusals = 0;
    }

    /// A document of the batch was changed after the fence, or there were too many for one
    /// transaction: a smaller batch meets fewer of them.
    pub fn refused(&mut self, plan: &Plan) {
        let tried = plan.size().min(self.operations_max);
        self.operations_max = (tried / 2).max(1);
    }

    pub fn send_full_state(&mut self, key: DocumentKey) {
        self.caution.full_state.insert(key);
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

#[cfg(test)]
mod tests {
    use super::*;

    const TIME_MAX: Duration = Duration::from_secs(2);

    fn of_a_thousand() -> Trouble {
        Trouble::none(BatchLimits {
            operations_max: 1000,
            bytes_max: 1,
        })
    }

    fn sizes(trouble: &Trouble) -> (usize, usize) {
        let usual = trouble.limits().operations_max;
        (usual, trouble.spread_operations_max())
    }

    #[test]
    fn full_batches_that_take_little_time_grow_where_they_are_about_many_collections() {
        let mut trouble = of_a_thousand();
        assert_eq!(sizes(&trouble), (1000, 1000));
        for expected in [2000, 4000, 8000, 8000] {
            let size = trouble.spread_operations_max();
            trouble.resize(size, TIME_MAX / 4, TIME_MAX);
            assert_eq!(sizes(&trouble), (1000, expected));
        }
    }

    #[test]
    fn a_lane_stays_by_itself_for_twice_as_long_after_each_joint_refusal_until_one_has_passed() {
        let mut trouble = of_a_thousand();
        let apart = |trouble: &mut Trouble| {
            let mut batches = 0;
            while !trouble.may_join() {
                trouble.passed(&[], 1, Duration::ZERO, TIME_MAX);
                batches += 1;
            }
            batches
        };
        for expected in [1, 2, 4, 8, 16, 32, 64, 64] {
            trouble.refused_jointly();
            assert_eq!(apart(&mut trouble), expected);
        }
        trouble.passed_jointly();
        trouble.refused_jointly();
        assert_eq!(apart(&mut trouble), 1);
        trouble.takes_long();
        assert!(!trouble.may_join());
    }

    #[test]
    fn batches_that_were_not_full_say_nothing_about_larger_ones() {
        let mut trouble = of_a_thousand();
        trouble.resize(999, Duration::ZERO, TIME_MAX);
        assert_eq!(sizes(&trouble), (1000, 1000));
    }

    #[test]
    fn a_short_batch_grows_slowly_where_twice_its_time_would_be_too_long() {
        let mut trouble = of_a_thousand();
        trouble.operations_max = 64;
        trouble.resize(64, TIME_MAX * 6 / 10, TIME_MAX);
        assert_eq!(sizes(&trouble), (73, 73));
        trouble.resize(73, TIME_MAX * 4 / 10, TIME_MAX);
        assert_eq!(sizes(&trouble), (146, 146));
        trouble.operations_max = 1;
        for _ in 0..100 {
            trouble.resize(1, TIME_MAX, TIME_MAX);
        }
        assert_eq!(sizes(&trouble), (1000, 1000));
    }

    #[test]
    fn a_large_batch_that_took_long_is_followed_by_a_usual_one() {
        let mut trouble = of_a_thousand();
        trouble.operations_max = 8000;
        trouble.resize(8000, TIME_MAX / 2, TIME_MAX);
        assert_eq!(sizes(&trouble), (1000, 1000));
    }

    #[test]
    fn what_comes_before_a_refused_event_is_taken_alone_whatever_it_is_about() {
        let mut trouble = of_a_thousand();
        trouble.operations_max = 8000;
        trouble.cut = Some(7);
        assert_eq!(sizes(&trouble), (7, 7));
    }
}
