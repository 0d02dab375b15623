//! A document of a larger one, a reply for example, that is held in memory as a whole.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bson::{RawDocument, RawDocumentBuf};

use super::raw::part_of;

/// What documents are parts of.
pub type Whole = dyn AsRef<RawDocument> + Send + Sync;

/// Cheap to clone; the whole lives for as long as any of its parts.
#[derive(Clone)]
pub struct HeldDocument {
    whole: Arc<Whole>,
    at: Range<usize>,
}

impl HeldDocument {
    /// None where `part` is no part of `whole`.
    pub fn within(whole: &Arc<Whole>, part: &RawDocument) -> Option<Self> {
        let at = part_of((**whole).as_ref(), part)?;
        let whole = whole.clone();
        Some(Self { whole, at })
    }

    pub fn alone(document: RawDocumentBuf) -> Self {
        let at = 0..document.as_bytes().len();
        let whole = Arc::new(document);
        Self { whole, at }
    }
}

impl Deref for HeldDocument {
    type Target = RawDocument;

    fn deref(&self) -> &RawDocument {
        let bytes = &(*self.whole).as_ref().as_bytes()[self.at.clone()];
        RawDocument::from_bytes(bytes).expect("a part that was a document")
    }
}

impl fmt::Debug for HeldDocument {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_part_is_what_it_was_in_the_whole_and_nothing_else_is_a_part() {
        let batch = rawdoc! { "batch": [{ "_id": 1 }, { "_id": 2, "v": "x" }] };
        let whole: Arc<Whole> = Arc::new(batch);
        let held = |part: &RawDocument| HeldDocument::within(&whole, part);
        for part in (*whole).as_ref().get_array("batch").unwrap() {
            let part = part.unwrap().as_document().unwrap();
            assert_eq!(&*held(part).unwrap(), part);
        }
        let other = rawdoc! { "_id": 1 };
        assert!(held(&other).is_none());
        assert_eq!(&*HeldDocument::alone(other.clone()), &*other);
    }
}
