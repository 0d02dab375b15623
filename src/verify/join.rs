//! Two sides of a range brought together by key, without knowing the order of the index.

use std::collections::{HashMap, VecDeque};

use crate::change::{DocumentKey, Pair, Side};

/// SHA-256 of a document's bytes.
pub type Digest = [u8; 32];

/// A key whose documents differ, as far as was seen.
#[derive(Debug, Clone)]
pub struct Suspect {
    pub key: DocumentKey,
    /// Of the larger document.
    pub bytes: usize,
    /// The side that it was seen on, where no partner was.
    pub only_on: Option<Side>,
}

/// Meets equal documents and keeps what stands alone.
///
/// Both sides come in the same order, so once they meet at a key, what is still alone before it has
/// no partner. That order is never relied on for the outcome: whatever is handed out is only a
/// *suspect*, read again by key. So the buffer may be bounded, and a suspect handed out twice.
pub struct Join {
    pending: Pair<Pending>,
    ended: Pair<bool>,
    pending_max: usize,
    suspects: Vec<Suspect>,
}

struct Pending {
    side: Side,
    /// With the number of its arrival, its digest and its size.
    alone: HashMap<DocumentKey, (u64, Digest, usize)>,
    /// In order of arrival; keys that have met their partner since are passed over.
    order: VecDeque<(u64, DocumentKey)>,
    arrived: u64,
}

impl Join {
    /// Holds up to `pending_max` keys of each side.
    pub fn new(pending_max: usize) -> Self {
        Self {
            pending: Pair::new(Pending::of(Side::A), Pending::of(Side::B)),
            ended: Pair::default(),
            pending_max,
            suspects: Vec::new(),
        }
    }

    /// Which sides to read on: both, but for one that is ahead or at its end.
    pub fn wanted(&self) -> Pair<bool> {
        let wants = |side: Side| {
            let other = side.other();
            let ahead = self.pending[side].alone.len() > self.pending[other].alone.len();
            !self.ended[side] && (self.ended[other] || !ahead)
        };
        Pair::new(wants(Side::A), wants(Side::B))
    }

    /// Takes the next document of one side, with its digest and its size.
    pub fn push(&mut self, side: Side, key: DocumentKey, digest: Digest, bytes: usize) {
        let other = side.other();
        if let Some((arrived, digest_there, there)) = self.pending[other].alone.remove(&key) {
            self.pending[other].give_up_before(arrived, &mut self.suspects);
            self.pending[side].give_up_before(u64::MAX, &mut self.suspects);
            if digest != digest_there {
                self.suspects.push(Suspect {
                    key,
                    bytes: bytes.max(there),
                    only_on: None,
                });
            }
        } else if self.ended[other] {
            self.suspects.push(Suspect {
                key,
                bytes,
                only_on: Some(side),
            });
        } else {
            let found = (digest, bytes);
            self.pending[side].keep(key, found, self.pending_max, &mut self.suspects);
        }
    }

    /// One side has no more documents.
    pub fn end(&mut self, side: Side) {
        self.ended[side] = true;
        self.pending[side.other()].give_up_before(u64::MAX, &mut self.suspects);
        if self.ended[side.other()] {
            self.pending[side].give_up_before(u64::MAX, &mut self.suspects);
        }
    }

    /// Keys whose documents differ, or stand on one side alone, as far as was seen.
    pub fn take_suspects(&mut self) -> Vec<Suspect> {
        std::mem::take(&mut self.suspects)
    }
}

impl Pending {
    fn of(side: Side) -> Self {
        Self {
            side,
            alone: HashMap::new(),
            order: VecDeque::new(),
            arrived: 0,
        }
    }

    fn keep(
        &mut self,
        key: DocumentKey,
        (digest, bytes): (Digest, usize),
        pending_max: usize,
        suspects: &mut Vec<Suspect>,
    ) {
        self.arrived += 1;
        self.order.push_back((self.arrived, key.clone()));
        self.alone.insert(key, (self.arrived, digest, bytes));
        if self.order.len() > pending_max {
            self.give_up_before(self.arrived - pending_max as u64 / 2, suspects);
        }
    }

    fn give_up_before(&mut self, arrived: u64, suspects: &mut Vec<Suspect>) {
        while self.order.front().is_some_and(|(at, _)| *at < arrived) {
            let Some((at, key)) = self.order.pop_front() else {
                return;
            };
            if self.alone.get(&key).is_some_and(|(kept, ..)| *kept == at)
                && let Some((_, _, bytes)) = self.alone.remove(&key)
            {
                suspects.push(Suspect {
                    key,
                    bytes,
                    only_on: Some(self.side),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Namespace;
    use bson::rawdoc;

    fn key(id: i32) -> DocumentKey {
        DocumentKey::of(&Namespace::new("shop", "orders"), &rawdoc! { "_id": id }).unwrap()
    }

    /// Reads both sides as a range does and gives the suspects, sorted, and the most ever held.
    fn joined(a: &[(i32, u8)], b: &[(i32, u8)], pending_max: usize) -> (Vec<i32>, usize) {
        let mut join = Join::new(pending_max);
        let mut left = Pair::new(a.iter(), b.iter());
        let (mut suspects, mut held): (Vec<Suspect>, usize) = (Vec::new(), 0);
        while join.wanted() != Pair::new(false, false) {
            let wanted = join.wanted();
            for side in Side::BOTH.into_iter().filter(|side| wanted[*side]) {
                match left[side].next() {
                    Some((id, digest)) => join.push(side, key(*id), [*digest; 32], 10),
                    None => join.end(side),
                }
            }
            held = held.max(join.pending.a.order.len() + join.pending.b.order.len());
            suspects.extend(join.take_suspects());
        }
        let ids = suspects
            .iter()
            .map(|suspect| suspect.key.raw().get_i32("_id").unwrap());
        let mut ids: Vec<i32> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        (ids, held)
    }

    fn same(ids: impl Iterator<Item = i32>) -> Vec<(i32, u8)> {
        ids.map(|id| (id, 0)).collect()
    }

    #[test]
    fn equal_sides_have_no_suspects_and_need_no_room() {
        let all = same(0..1000);
        assert_eq!(joined(&all, &all, 100), (vec![], 1));
        assert_eq!(joined(&[], &[], 100), (vec![], 0));
    }

    #[test]
    fn what_differs_or_stands_alone_is_suspect_and_nothing_else() {
        let a = [(1, 0), (2, 0), (3, 0), (5, 0), (9, 0)];
        let b = [(1, 0), (2, 7), (4, 0), (5, 0), (6, 0)];
        assert_eq!(joined(&a, &b, 100).0, [2, 3, 4, 6, 9]);
        assert_eq!(joined(&a, &[], 100).0, [1, 2, 3, 5, 9]);
        assert_eq!(joined(&[], &b, 100).0, [1, 2, 4, 5, 6]);
    }

    #[test]
    fn a_long_run_on_one_side_is_bounded_and_no_difference_is_lost() {
        let missing = |from: i32, to: i32| same((0..from).chain(to..3000));
        let all = same(0..3000);
        for (from, to) in [(0, 2000), (500, 2500), (1000, 3000), (0, 3000)] {
            let wanted: Vec<i32> = (from..to).collect();
            for (a, b) in [(&all, missing(from, to)), (&missing(from, to), all.clone())] {
                let (found, held) = joined(a, &b, 100);
                assert!(held <= 200, "{held} held");
                assert!(wanted.iter().all(|id| found.contains(id)), "{from}..{to}");
            }
        }
    }

    #[test]
    fn sides_in_different_orders_lose_no_difference() {
        let a = same([3, 1, 2, 5, 4].into_iter());
        let b = [(1, 0), (2, 9), (3, 0), (4, 0)];
        let found = joined(&a, &b, 100).0;
        assert!(found.contains(&2) && found.contains(&5), "{found:?}");
    }
}
