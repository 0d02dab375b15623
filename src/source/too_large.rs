//! Answers of a change stream that would be larger than the server sends, and the ways past them.

use super::stream::BATCH_EVENTS_MAX;
use crate::cluster::errors;
use crate::error::{Class, Error, ExitCode};

/// How many events come one by one before full answers are tried again.
const ONE_BY_ONE_EVENTS: u32 = 100;

/// What to try next.
#[derive(Debug, PartialEq, Eq)]
pub enum Way {
    /// Events that are too large together may come alone.
    OneByOne,
    /// One that is too large with its own token may come in a full answer that goes on to the end of
    /// the oplog behind it, since that one ends with a token of that place.
    WithWhatFollows,
    /// What is too large by itself never comes.
    Nowhere,
}

/// How a reader gets past answers that are too large.
#[derive(Debug, Default)]
pub struct TooLarge {
    /// How many more events come one by one.
    one_by_one: u32,
    /// Answers that were too large since the last event.
    in_a_row: u32,
}

impl TooLarge {
    /// Whether the server says that its answer would be too large: 16 MB, with the keys of the events
    /// and the token of the last one, which holds its key once more and twice as long.
    pub fn is_told_by(error: &Error) -> bool {
        errors::code_of(error) == Some(errors::OBJECT_TOO_LARGE)
    }

    pub fn next_way(&mut self) -> Way {
        self.in_a_row += 1;
        let (way, one_by_one) = match self.in_a_row {
            1 => (Way::OneByOne, ONE_BY_ONE_EVENTS),
            2 => (Way::WithWhatFollows, 0),
            _ => (Way::Nowhere, 0),
        };
        self.one_by_one = one_by_one;
        way
    }

    /// Events that an answer may have.
    pub fn events_max(&self) -> u32 {
        match self.one_by_one {
            0 => BATCH_EVENTS_MAX,
            _ => 1,
        }
    }

    /// After an answer with so many new events. Tells whether as many came one by one as were to, and
    /// full answers may be tried again; not before `all_whole`, since what is not is read again.
    pub fn passed(&mut self, events: usize, all_whole: bool) -> bool {
        if events > 0 {
            self.in_a_row = 0;
        }
        let done = self.one_by_one == 1 && all_whole;
        self.one_by_one = match self.one_by_one {
            1 if !done => 1,
            left => left.saturating_sub(1),
        };
        done
    }
}

/// What no way leads past.
pub fn not_deliverable(mut error: Error) -> Error {
    (error.exit, error.class) = (ExitCode::History, Class::Resync);
    error.hint(
        "a change there is larger than the server's streams can deliver (16 MB, its key counted several times): \
         make the document or its _id smaller, then `tandem resync`, which begins from now on and merges both sides",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_comes_alone_or_with_what_follows_or_never() {
        let mut too_large = TooLarge::default();
        assert_eq!(too_large.events_max(), BATCH_EVENTS_MAX);
        assert_eq!(too_large.next_way(), Way::OneByOne);
        assert_eq!(too_large.events_max(), 1);
        // What proves only that nothing happened is no way past it.
        assert!(!too_large.passed(0, true));
        assert_eq!(too_large.next_way(), Way::WithWhatFollows);
        assert_eq!(too_large.events_max(), BATCH_EVENTS_MAX);
        assert!(!too_large.passed(3, true));
        assert_eq!(too_large.next_way(), Way::OneByOne);
        assert_eq!(too_large.next_way(), Way::WithWhatFollows);
        assert_eq!(too_large.next_way(), Way::Nowhere);
    }

    #[test]
    fn full_answers_are_tried_again_between_two_transactions_alone() {
        let mut too_large = TooLarge::default();
        too_large.next_way();
        let again = (0..ONE_BY_ONE_EVENTS).filter(|_| too_large.passed(1, false));
        assert_eq!(again.count(), 0);
        assert_eq!(too_large.events_max(), 1);
        assert!(too_large.passed(1, true));
        assert_eq!(too_large.events_max(), BATCH_EVENTS_MAX);
        assert!(!too_large.passed(1, true));
    }
}
