//! Documents that a copy has read, and whether they are still what their cluster holds.
//!
//! A lane sends full state as of its decision. Where nothing was written to a document since the
//! copy has read it, what was read is that state, and it is not read a second time.

use std::collections::HashMap;

use bson::Timestamp;
use smallvec::smallvec;

use super::decide::{Action, Decision, Events, undecided};
use super::ledger::Ledger;
use super::plan::{Caution, Plan};
use super::requests::{Ticket, unread_write};
use crate::change::{DocumentKey, HeldDocument, Namespace, Side};
use crate::error::Result;
use crate::fault::Fault;

/// Written documents that are remembered at once, some 24 bytes each.
const WRITTEN_MAX: usize = 500_000;

/// A document of the source as a copy has read it.
#[derive(Debug, Clone)]
pub struct Copied {
    pub key: DocumentKey,
    /// About as large as the document.
    pub bytes: usize,
    /// Its content; none where it is read again.
    pub document: Option<HeldDocument>,
    /// The moment of the source's history it was read at: a complete time since the copy began.
    pub at: Timestamp,
    /// Done once nobody else holds it.
    pub ticket: Ticket,
}

/// The last writes to documents of a cluster since a moment, by the hash of the key: another
/// document with the same one is only read again.
#[derive(Debug)]
pub(super) struct Written {
    since: Timestamp,
    last: HashMap<u64, Timestamp>,
}

impl Written {
    fn since(since: Timestamp) -> Self {
        Self {
            since,
            last: HashMap::new(),
        }
    }

    pub fn note(&mut self, key: &DocumentKey, at: Timestamp) {
        if self.last.len() >= WRITTEN_MAX {
            *self = Self::since(at);
        }
        self.last.insert(key.stable_hash(), at);
    }

    /// Whether nothing was written to the document after `at`, as far as the history is known.
    fn is_untouched_since(&self, key: &DocumentKey, at: Timestamp) -> bool {
        let last = self.last.get(&key.stable_hash());
        at >= self.since && last.is_none_or(|last| *last <= at)
    }
}

impl Ledger {
    /// From here on the ledger knows which documents of `side` are written to. Gives the complete
    /// time that copies may read at, or at any later one.
    pub fn begin_copying(&mut self, side: Side) -> Timestamp {
        let cluster = &mut self.clusters[side];
        let now = cluster.complete.time;
        cluster.written.get_or_insert_with(|| Written::since(now));
        now
    }

    pub fn end_copying(&mut self, side: Side) {
        self.clusters[side].written = None;
    }

    /// An application's write, or tandem's own.
    pub(super) fn note_written(&mut self, side: Side, key: &DocumentKey, at: Timestamp) {
        if let Some(written) = &mut self.clusters[side].written {
            written.note(key, at);
        }
    }

    /// Whether nothing is known of a document that a reader or a lane would have to look at.
    fn is_unknown(&self, key: &DocumentKey) -> bool {
        !self.keys.contains_key(key) && !self.is_spooled(key)
    }

    /// A document that only a copy knows goes as it is. Of any other one this is what
    /// [`super::decide`] says of a write that is older than all others.
    pub(super) fn decide_copy(
        &self,
        plan: &Plan,
        copied: &Copied,
        caution: &Caution,
    ) -> Result<Decision> {
        let key = &copied.key;
        let is_plain = self.is_unknown(key) && !caution.full_state.contains(key);
        if !is_plain || caution.dead_letters.contains(key) {
            let unread = unread_write(key, plan.read_at.time);
            let mut decision = self.decide_key(plan, key, smallvec![unread], true)?;
            decision.fresh = is_plain;
            return Ok(decision);
        }
        let mut decision = undecided(key, Events::new());
        decision.action = Action::FullState;
        decision.fresh = true;
        let written = self.clusters[plan.pipeline.source()].written.as_ref();
        let is_good = |written: &Written| written.is_untouched_since(key, copied.at);
        if Fault::StaleCopy.is_on() || written.is_some_and(is_good) {
            decision.document = copied.document.clone();
        }
        Ok(decision)
    }

    /// Whether the commit of a decision settles nothing: nobody has written to the document.
    pub(super) fn leaves_nothing(&self, decision: &Decision) -> bool {
        decision.fresh && decision.events.is_empty() && self.is_unknown(&decision.key)
    }
}

impl Plan {
    /// Nothing is left of what a dropped collection held: what was read of it is not sent.
    pub fn forget_documents(&mut self, is_gone: impl Fn(&DocumentKey) -> bool) {
        // Asked once for neighbours of one collection.
        let mut last: Option<(Namespace, bool)> = None;
        let read = self
            .decisions
            .iter_mut()
            .filter(|one| one.document.is_some());
        for decision in read {
            let namespace = decision.key.namespace();
            let known = last.as_ref().filter(|(of, _)| of == namespace);
            let gone = match known {
                Some((_, gone)) => *gone,
                None => last.insert((namespace.clone(), is_gone(&decision.key))).1,
            };
            if gone {
                decision.document = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{
        AppliedThrough, ChangeEvent, Mode, Operation, Pair, PipelineId, Policy, Position, Rank,
        RawEvent, Version,
    };
    use crate::resolve::{BatchLimits, Next, Rules, is_unread};
    use bson::rawdoc;
    use std::sync::Arc;

    fn at(time: u32) -> Timestamp {
        Timestamp { time, increment: 1 }
    }

    fn key(id: i32) -> DocumentKey {
        let namespace = Namespace::new("shop", "orders");
        DocumentKey::of(&namespace, &rawdoc! { "_id": id }).unwrap()
    }

    #[test]
    fn what_was_read_is_good_until_somebody_writes_to_it() {
        let mut written = Written::since(at(5));
        assert!(written.is_untouched_since(&key(1), at(5)));
        assert!(!written.is_untouched_since(&key(1), at(4)), "nobody looked");
        written.note(&key(1), at(7));
        assert!(!written.is_untouched_since(&key(1), at(6)));
        assert!(written.is_untouched_since(&key(1), at(7)));
        assert!(written.is_untouched_since(&key(2), at(6)));
    }

    /// What the copy of a document comes to that b has written to, first by `operation`.
    fn copied_against(mode: Mode, operation: Operation) -> Decision {
        let rules = Rules {
            mode,
            policy: Policy::LastWriteWins,
        };
        let begun = Position::after_all_of(at(1), "");
        let checkpoints = || vec![AppliedThrough(begun.clone())];
        let checkpoints = Pair::new(checkpoints(), checkpoints());
        let mut ledger = Ledger::new(rules, checkpoints, Pair::new(at(1), at(1)));
        for side in Side::BOTH {
            ledger.own_writes_known(side);
        }
        if mode == Mode::TwoWay {
            ledger.hold(PipelineId::BToA);
        }
        for (time, operation) in [(2, operation), (3, Operation::Update)] {
            let event = ChangeEvent {
                position: Position::of_event(at(time), format!("{time:04}")),
                key: key(1),
                operation,
                version: Version {
                    wall_time_ms: 1,
                    rank: Rank::Wins,
                },
                wall_time_ms: 1,
                raw: RawEvent::of(rawdoc! {}, operation),
            };
            ledger.observe(Side::B, Arc::new(event)).unwrap();
        }
        for side in Side::BOTH {
            ledger.complete(side, Position::after_all_of(at(9), ""));
        }
        let copied = Copied {
            key: key(1),
            bytes: 1,
            document: None,
            at: ledger.begin_copying(Side::A),
            ticket: Ticket::default(),
        };
        ledger.request_copy(PipelineId::AToB, copied);
        let limits = BatchLimits {
            operations_max: 9,
            bytes_max: 9,
        };
        let next = ledger.plan(PipelineId::AToB, 0, limits, &Caution::default());
        match next.unwrap() {
            Next::Apply(mut plan) => plan.decisions.remove(0),
            other => panic!("nothing to apply: {other:?}"),
        }
    }

    #[test]
    fn a_document_that_was_brought_before_does_not_lose_to_a_write_on_top_of_it() {
        for mode in [Mode::TwoWay, Mode::OneWay { from: Side::A }] {
            for operation in [Operation::Update, Operation::Replace, Operation::Delete] {
                let decision = copied_against(mode, operation);
                assert_eq!(decision.action, Action::Skip);
                assert!(decision.conflict.is_none(), "after {operation:?}");
            }
            let decision = copied_against(mode, Operation::Insert);
            let lost: Vec<bool> = decision
                .losers(Side::A)
                .iter()
                .map(|it| is_unread(it))
                .collect();
            assert_eq!(lost, [true], "the document itself");
            let conflict = decision.conflict;
            assert_eq!(conflict.map(|conflict| conflict.winner), Some(Side::B));
        }
    }

    #[test]
    fn too_many_writes_make_everything_read_before_them_doubtful() {
        let mut written = Written::since(at(1));
        for id in 0..=WRITTEN_MAX as i32 {
            written.note(&key(id), at(9));
        }
        assert!(written.last.len() <= WRITTEN_MAX);
        assert!(!written.is_untouched_since(&key(-1), at(8)));
        assert!(written.is_untouched_since(&key(-1), at(9)));
    }
}
