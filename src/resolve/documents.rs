//! Which of two documents stays where no event tells why they differ. Pure.

use bson::RawDocument;

use super::rules::Rules;
use crate::change::{Mode, Policy, Reason, Side};

/// The rules of a link for documents of which nobody knows when they were written.
#[derive(Debug, Clone)]
pub struct DocumentRules {
    pub rules: Rules,
    pub tie: Side,
    /// The field that holds a document's version, if any.
    pub version_field: Option<String>,
}

/// What a document was before a write to it.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// The server no longer keeps it.
    Unknown,
    Known(Option<&'a RawDocument>),
}

/// What is there of a key on both sides, each at its moment.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    pub source: Option<&'a RawDocument>,
    pub target: Option<&'a RawDocument>,
    /// The source's before its oldest write that has not arrived.
    pub base: Base<'a>,
    /// The target's before its oldest write that is on record as lost and still in it.
    pub target_base: Base<'a>,
}

/// What becomes of the two documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Byte for byte the same, or both absent.
    Same,
    /// Nothing but writes on their way makes them differ, and writes that have lost to these.
    OnItsWay,
    SourceStays(Reason),
    TargetStays,
    /// The target's stays although the source has written on top of another one: `from` says so.
    TargetStaysAgainstWrites,
    /// One-way: what is on b alone is left alone.
    LeftAlone,
}

impl DocumentRules {
    /// `from` is the side whose documents stay whatever the rules say; `is_newer` tells that the
    /// source has written since, and the target has not.
    pub(super) fn judge(
        &self,
        source: Side,
        from: Option<Side>,
        is_newer: bool,
        found: &Found<'_>,
    ) -> Verdict {
        if same(found.source, found.target) {
            return Verdict::Same;
        }
        if is_newer {
            return match (found.base, found.target_base) {
                (Base::Known(mine), Base::Known(theirs)) if same(mine, theirs) => Verdict::OnItsWay,
                _ if from == Some(source.other()) => Verdict::TargetStaysAgainstWrites,
                (Base::Known(_) | Base::Unknown, _) => Verdict::SourceStays(Reason::Later),
            };
        }
        let one_way = self.rules.mode.is_one_way();
        match (from, found.source, found.target) {
            (Some(side), ..) => self.stays(source, side, Reason::Preferred),
            (None, None, _) if one_way => Verdict::LeftAlone,
            (None, None, _) => Verdict::TargetStays,
            (None, Some(_), None) => Verdict::SourceStays(Reason::Later),
            (None, Some(mine), Some(theirs)) => {
                let (side, reason) = self.winner(source, mine, theirs);
                self.stays(source, side, reason)
            }
        }
    }

    fn stays(&self, source: Side, winner: Side, reason: Reason) -> Verdict {
        match winner == source {
            true => Verdict::SourceStays(reason),
            false => Verdict::TargetStays,
        }
    }

    fn winner(&self, source: Side, mine: &RawDocument, theirs: &RawDocument) -> (Side, Reason) {
        match (self.rules.mode, self.rules.policy) {
            (Mode::OneWay { from }, _) => return (from, Reason::Preferred),
            (Mode::TwoWay, Policy::Prefer(side)) => return (side, Reason::Preferred),
            (Mode::TwoWay, Policy::LastWriteWins) => {}
        }
        match (self.version_of(mine), self.version_of(theirs)) {
            (Some(mine), Some(theirs)) if mine > theirs => (source, Reason::Later),
            (Some(mine), Some(theirs)) if mine < theirs => (source.other(), Reason::Later),
            _ => (self.tie, Reason::Tie),
        }
    }

    /// A Date, or an int64 of ms since 1970, in the version field.
    pub(super) fn version_of(&self, document: &RawDocument) -> Option<i64> {
        let value = document.get(self.version_field.as_deref()?).ok()??;
        let date = value.as_datetime().map(|date| date.timestamp_millis());
        date.or_else(|| value.as_i64())
    }
}

fn same(one: Option<&RawDocument>, other: Option<&RawDocument>) -> bool {
    one.map(RawDocument::as_bytes) == other.map(RawDocument::as_bytes)
}

#[cfg(test)]
mod tests {
    use bson::{DateTime, RawDocumentBuf, rawdoc};

    use super::*;

    fn rules(mode: Mode, policy: Policy) -> DocumentRules {
        DocumentRules {
            rules: Rules { mode, policy },
            tie: Side::B,
            version_field: Some("at".to_owned()),
        }
    }

    fn last_write() -> DocumentRules {
        rules(Mode::TwoWay, Policy::LastWriteWins)
    }

    fn found<'a>(
        source: &'a Option<RawDocumentBuf>,
        target: &'a Option<RawDocumentBuf>,
    ) -> Found<'a> {
        Found {
            source: source.as_deref(),
            target: target.as_deref(),
            base: Base::Unknown,
            target_base: Base::Known(target.as_deref()),
        }
    }

    /// The side that stays, the same whichever pipeline is asked.
    fn stays(
        rules: &DocumentRules,
        from: Option<Side>,
        a: Option<RawDocumentBuf>,
        b: Option<RawDocumentBuf>,
    ) -> Option<Side> {
        let winner = |source: Side| {
            let (mine, theirs) = match source {
                Side::A => (&a, &b),
                Side::B => (&b, &a),
            };
            match rules.judge(source, from, false, &found(mine, theirs)) {
                Verdict::SourceStays(_) => Some(source),
                Verdict::TargetStays => Some(source.other()),
                _ => None,
            }
        };
        assert_eq!(winner(Side::A), winner(Side::B));
        winner(Side::A)
    }

    #[test]
    fn the_later_version_stays_and_without_two_valid_ones_the_tie_decides() {
        let at = |at: i64| Some(rawdoc! { "_id": 1, "at": DateTime::from_millis(at) });
        let other = |at: i64| Some(rawdoc! { "_id": 1, "at": at, "x": 1 });
        let bare = || Some(rawdoc! { "_id": 1, "at": "later" });
        let rules = last_write();
        assert_eq!(stays(&rules, None, at(2), other(1)), Some(Side::A));
        assert_eq!(stays(&rules, None, at(1), other(2)), Some(Side::B));
        assert_eq!(stays(&rules, None, at(2), other(2)), Some(Side::B));
        assert_eq!(stays(&rules, None, at(9), bare()), Some(Side::B));
        assert_eq!(stays(&rules, None, at(2), at(2)), None);
        let prefer = super::DocumentRules {
            rules: Rules {
                mode: Mode::TwoWay,
                policy: Policy::Prefer(Side::A),
            },
            ..rules
        };
        assert_eq!(stays(&prefer, None, at(1), other(2)), Some(Side::A));
    }

    #[test]
    fn what_is_missing_is_brought_unless_the_other_side_is_told_to_win() {
        let one = || Some(rawdoc! { "_id": 1 });
        let rules = last_write();
        assert_eq!(stays(&rules, None, one(), None), Some(Side::A));
        assert_eq!(stays(&rules, None, None, one()), Some(Side::B));
        assert_eq!(stays(&rules, Some(Side::A), None, one()), Some(Side::A));
    }

    #[test]
    fn one_way_a_stays_and_what_b_alone_has_is_left_alone() {
        let rules = rules(Mode::OneWay { from: Side::A }, Policy::Prefer(Side::B));
        let (a, b) = (
            Some(rawdoc! { "_id": 1 }),
            Some(rawdoc! { "_id": 1, "x": 1 }),
        );
        let judged = |source, target| rules.judge(Side::A, None, false, &found(source, target));
        assert_eq!(judged(&a, &b), Verdict::SourceStays(Reason::Preferred));
        assert_eq!(judged(&None, &b), Verdict::LeftAlone);
    }

    #[test]
    fn a_write_on_its_way_is_no_difference_and_one_on_another_document_is_newer() {
        let (old, new) = (
            Some(rawdoc! { "_id": 1 }),
            Some(rawdoc! { "_id": 1, "x": 1 }),
        );
        let other = Some(rawdoc! { "_id": 1, "x": 2 });
        let judged = |from, target, base| {
            let found = Found {
                base,
                ..found(&new, target)
            };
            last_write().judge(Side::A, from, true, &found)
        };
        let base = Base::Known(old.as_deref());
        assert_eq!(judged(None, &old, base), Verdict::OnItsWay);
        assert_eq!(judged(Some(Side::B), &old, base), Verdict::OnItsWay);
        let later = Verdict::SourceStays(Reason::Later);
        assert_eq!(judged(None, &other, base), later);
        assert_eq!(judged(None, &old, Base::Unknown), later);
        let against = Verdict::TargetStaysAgainstWrites;
        assert_eq!(judged(Some(Side::B), &other, base), against);
    }

    #[test]
    fn writes_on_record_as_lost_to_one_on_its_way_are_no_difference_either() {
        let (old, new, lost) = (
            Some(rawdoc! { "_id": 1 }),
            Some(rawdoc! { "_id": 1, "x": 1 }),
            Some(rawdoc! { "_id": 1, "x": 2 }),
        );
        let judged = |target_base| {
            let found = Found {
                base: Base::Known(old.as_deref()),
                target_base,
                ..found(&new, &lost)
            };
            last_write().judge(Side::A, None, true, &found)
        };
        let later = Verdict::SourceStays(Reason::Later);
        assert_eq!(judged(Base::Known(old.as_deref())), Verdict::OnItsWay);
        assert_eq!(judged(Base::Known(None)), later);
        assert_eq!(judged(Base::Unknown), later);
    }
}
