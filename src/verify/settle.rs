//! When a difference that was seen is one, and when it is only lag.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bson::Timestamp;
use serde::Serialize;

use super::join::Digest;
use crate::change::{DocumentKey, Pair, Side};

/// Rounds of reading over which a document must stay as it is, on both sides, to count as at rest.
const ROUNDS_UNCHANGED_MIN: u64 = 3;

/// Why nothing can be said about a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was written again and again.
    Busy,
    /// The running link has not applied what was there when the document was read.
    Behind,
}

impl Reason {
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Busy => "written all the time",
            Reason::Behind => "the link has not caught up",
        }
    }
}

/// What the documents of one key have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Equal,
    Watched,
    Different,
    Unsettled(Reason),
}

/// What is there of a document on each side; none where it is absent.
pub type Seen = Pair<Option<Digest>>;

/// One key under watch.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The range it was found in.
    pub piece: usize,
    since: Instant,
    /// The round in which it was read first.
    first: Option<u64>,
    seen: Option<Seen>,
    /// The round in which what is seen now was seen first.
    same_since: u64,
    /// The first round by which the link had passed that one.
    passed_in: Option<u64>,
}

impl Watch {
    pub fn new(piece: usize, now: Instant) -> Self {
        Self {
            piece,
            since: now,
            first: None,
            seen: None,
            same_since: 0,
            passed_in: None,
        }
    }

    /// Judges what round number `round` has seen.
    ///
    /// A difference must stay the same from one round to a later one, such that the link has in
    /// between applied everything there was in the first (`passed`, a round; the last one where no
    /// link runs), and from then on once more: a document that arrived may have been deleted before
    /// it was read again, with that delete on its way. So lag is never a difference.
    ///
    /// The time limit holds once there were rounds enough to tell, however long they take, and then
    /// gives up on what has just changed once more; whatever is at rest is read until that shows.
    pub fn judge(
        &mut self,
        seen: Seen,
        round: u64,
        passed: Option<u64>,
        now: Instant,
        settle_time_max: Duration,
    ) -> Verdict {
        if seen.a == seen.b {
            return Verdict::Equal;
        }
        let has_changed = self.seen.is_some_and(|before| before != seen);
        if self.seen != Some(seen) {
            self.seen = Some(seen);
            self.same_since = round;
            self.passed_in = None;
        }
        let at_rest = round >= self.same_since + ROUNDS_UNCHANGED_MIN;
        let has_passed = |then: u64| passed.is_some_and(|passed| passed >= then);
        match self.passed_in {
            Some(then) if at_rest && has_passed(then) => return Verdict::Different,
            None if has_passed(self.same_since) => self.passed_in = Some(round),
            Some(_) | None => {}
        }
        let first = *self.first.get_or_insert(round);
        let had_rounds = round >= first + ROUNDS_UNCHANGED_MIN;
        let is_late = had_rounds && now.duration_since(self.since) >= settle_time_max;
        match is_late {
            true if at_rest => Verdict::Unsettled(Reason::Behind),
            true if has_changed => Verdict::Unsettled(Reason::Busy),
            true | false => Verdict::Watched,
        }
    }
}

/// All keys under watch, and the times of the rounds in which they were read.
#[derive(Default)]
pub struct Settling {
    pub watched: HashMap<DocumentKey, Watch>,
    pub round: u64,
    /// The clusters' operation times after the reads of a round; at most as many as rounds fit
    /// into the time that a key is watched.
    times: Vec<(u64, Pair<Timestamp>)>,
    passed: Option<u64>,
}

impl Settling {
    /// The last round whose times the link had passed; `applied` is, by source, up to where the
    /// link has applied everything, none of a side that no pipeline reads.
    pub fn passed_by(&mut self, applied: Pair<Option<Timestamp>>) -> Option<u64> {
        let covers = |times: &Pair<Timestamp>| {
            let side = |side: Side| applied[side].is_none_or(|applied| applied > times[side]);
            side(Side::A) && side(Side::B)
        };
        let reached = self.times.iter().rposition(|(_, times)| covers(times));
        if let Some(at) = reached {
            self.passed = Some(self.times[at].0);
            self.times.drain(..=at);
        }
        self.passed
    }

    /// A round is over: whatever it has read was there at `times`.
    pub fn round_over(&mut self, times: Pair<Timestamp>) {
        self.times.push((self.round, times));
        self.round += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn seen(a: u8, b: u8) -> Seen {
        Pair::new(Some([a; 32]), (b > 0).then_some([b; 32]))
    }

    /// The verdicts over rounds a second apart.
    fn judged(rounds: &[(Seen, Option<u64>)]) -> Vec<Verdict> {
        judged_within(LIMIT, 1, rounds)
    }

    /// The verdicts over rounds so many seconds apart.
    fn judged_within(limit: Duration, apart: u64, rounds: &[(Seen, Option<u64>)]) -> Vec<Verdict> {
        let start = Instant::now();
        let mut watch = Watch::new(0, start);
        let verdicts = (0..).zip(rounds).map(|(round, (seen, passed))| {
            let now = start + Duration::from_secs(round * apart);
            watch.judge(*seen, round, *passed, now, limit)
        });
        verdicts.collect()
    }

    #[test]
    fn what_becomes_equal_was_lag() {
        let found = judged(&[
            (seen(1, 0), Some(9)),
            (seen(1, 0), Some(9)),
            (seen(1, 1), Some(9)),
        ]);
        assert_eq!(found, [Verdict::Watched, Verdict::Watched, Verdict::Equal]);
    }

    #[test]
    fn what_stays_different_is_a_difference_once_the_link_has_passed() {
        use Verdict::{Different, Watched};
        let without_link: Vec<_> = (0..4).map(|_| (seen(1, 2), Some(u64::MAX))).collect();
        assert_eq!(
            judged(&without_link),
            [Watched, Watched, Watched, Different]
        );
        let mut behind: Vec<_> = (0..6).map(|_| (seen(1, 2), None)).collect();
        behind.extend([(seen(1, 2), Some(0)), (seen(1, 2), Some(6))]);
        assert_eq!(judged(&behind)[5..], [Watched, Watched, Different]);
    }

    #[test]
    fn what_looks_the_same_after_it_had_arrived_is_no_difference_yet() {
        // It arrives on b after round 0, is deleted there before round 1, and that is on its way.
        let mut rounds = vec![(seen(1, 0), None)];
        rounds.extend((1..6).map(|_| (seen(1, 0), Some(0))));
        assert!(!judged(&rounds).contains(&Verdict::Different));
    }

    #[test]
    fn a_document_that_is_written_all_the_time_is_no_difference() {
        let rounds: Vec<_> = (1..12).map(|n| (seen(n, 200), Some(u64::MAX))).collect();
        let found = judged(&rounds);
        assert!(!found.contains(&Verdict::Different));
        assert_eq!(found.last(), Some(&Verdict::Unsettled(Reason::Busy)));
    }

    #[test]
    fn what_is_at_rest_is_judged_however_short_the_time_and_however_long_the_rounds() {
        use Verdict::{Different, Unsettled, Watched};
        let settled = Some(u64::MAX);
        for (limit, apart) in [(Duration::ZERO, 0), (Duration::ZERO, 1), (LIMIT, 20)] {
            let at_rest = [(seen(1, 2), settled); 4];
            let found = judged_within(limit, apart, &at_rest);
            assert_eq!(found, [Watched, Watched, Watched, Different]);
            let behind = [(seen(1, 2), None); 4];
            let found = judged_within(limit, apart, &behind);
            assert_eq!(found[2..], [Watched, Unsettled(Reason::Behind)]);
            // It arrives in part, and the rest never does.
            let mut in_part = vec![(seen(1, 0), settled), (seen(1, 0), settled)];
            in_part.extend([(seen(1, 2), settled); 4]);
            let found = judged_within(limit, apart, &in_part);
            assert_eq!(found[..5], [Watched; 5]);
            assert_eq!(found[5], Different);
            let busy: Vec<_> = (1..5).map(|n| (seen(n, 200), settled)).collect();
            let found = judged_within(limit, apart, &busy);
            assert_eq!(found[2..], [Watched, Unsettled(Reason::Busy)]);
        }
    }

    #[test]
    fn a_link_that_does_not_catch_up_leaves_it_open() {
        let rounds: Vec<_> = (0..11).map(|_| (seen(1, 2), None)).collect();
        let found = judged(&rounds);
        assert_eq!(found.last(), Some(&Verdict::Unsettled(Reason::Behind)));
    }

    #[test]
    fn a_round_is_passed_only_when_every_pipeline_has_passed_it() {
        let time = |time| Timestamp { time, increment: 0 };
        let mut settling = Settling::default();
        for at in 1..=3 {
            settling.round_over(Pair::new(time(at * 10), time(at * 10)));
        }
        assert_eq!(
            settling.passed_by(Pair::new(Some(time(25)), Some(time(10)))),
            None
        );
        assert_eq!(
            settling.passed_by(Pair::new(Some(time(25)), Some(time(30)))),
            Some(1)
        );
        assert_eq!(
            settling.passed_by(Pair::new(Some(time(25)), Some(time(30)))),
            Some(1)
        );
        assert_eq!(settling.passed_by(Pair::new(Some(time(31)), None)), Some(2));
    }
}
