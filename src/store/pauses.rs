//! Which pipelines an operator has paused, since when, and who did it.

use serde::{Deserialize, Serialize};

use super::Store;
use crate::change::{Pair, PipelineId};
use crate::error::Result;

const PAUSES: &str = "pauses";

/// A pause of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Paused {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// The operator and the host, or what of tandem did it.
    pub by: String,
}

/// The pauses of a link. The store and both clusters keep them; the newest word counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pauses {
    /// How often they were changed.
    pub number: i64,
    /// By the pipeline's source.
    pub pipelines: Pair<Option<Paused>>,
}

impl Pauses {
    /// None where the pipeline is not paused.
    pub fn of(&self, pipeline: PipelineId) -> Option<&Paused> {
        self.pipelines[pipeline.source()].as_ref()
    }

    /// The newer one of two. Where two hosts have changed them without knowing of each other, what
    /// one of them has paused stays paused.
    pub fn newer(self, other: Self) -> Self {
        match self.number.cmp(&other.number) {
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Equal => {
                let (mine, theirs) = (self.pipelines, other.pipelines);
                Self {
                    number: self.number,
                    // The earlier one of two; from either side it is the same.
                    pipelines: Pair::new(both(mine.a, theirs.a), both(mine.b, theirs.b)),
                }
            }
        }
    }
}

fn both(mine: Option<Paused>, theirs: Option<Paused>) -> Option<Paused> {
    match (mine, theirs) {
        (Some(mine), Some(theirs)) => Some(mine.min(theirs)),
        (mine, theirs) => mine.or(theirs),
    }
}

impl Store {
    /// # Errors
    /// As the store says.
    pub fn pauses(&self) -> Result<Pauses> {
        let found = self.read_json(&self.0.link, PAUSES)?;
        Ok(found.unwrap_or_default())
    }

    /// On disk when it returns.
    ///
    /// # Errors
    /// As the store says.
    pub fn save_pauses(&self, pauses: &Pauses) -> Result<()> {
        self.write_json(&self.0.link, PAUSES, pauses)?;
        self.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paused(number: i64, a: Option<i64>, b: Option<i64>) -> Pauses {
        let one = |at_ms| Paused {
            at_ms,
            by: "somebody".to_owned(),
        };
        Pauses {
            number,
            pipelines: Pair::new(a.map(one), b.map(one)),
        }
    }

    #[test]
    fn the_newer_word_counts_from_either_side() {
        let (old, new) = (paused(1, Some(1), None), paused(2, None, None));
        assert_eq!(old.clone().newer(new.clone()), new);
        assert_eq!(new.clone().newer(old), new);
    }

    #[test]
    fn of_two_words_of_one_number_what_either_has_paused_stays_paused() {
        let (one, other) = (paused(3, Some(5), None), paused(3, Some(4), Some(6)));
        let both = paused(3, Some(4), Some(6));
        assert_eq!(one.clone().newer(other.clone()), both);
        assert_eq!(other.newer(one), both);
    }
}
