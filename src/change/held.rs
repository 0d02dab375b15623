//! A document of a larger one, a reply for example, that is held in memory as a whole.

use std::ops::{Deref, Range};
use std::sync::Arc;

use bson::{RawDocument, RawDocumentBuf};

use super::raw::part_of;

/// Cheap to clone; the whole lives for as long as any of its parts.
#[derive(Debug, Clone)]
pub struct HeldDocument {
    whole: Arc<RawDocumentBuf>,
    at: Range<usize>,
}

impl HeldDocument {
    /// What `part` is of `original`, in a copy of that; none where it is no part of it.
    pub fn in_copy(
        copy: &Arc<RawDocumentBuf>,
        original: &RawDocument,
        part: &RawDocument,
    ) -> Option<Self> {
        let at = part_of(original, part)?;
        let whole = copy.clone();
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
        let bytes = &self.whole.as_bytes()[self.at.clone()];
        RawDocument::from_bytes(bytes).expect("a part that was a document")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_part_is_what_it_was_in_the_whole_and_nothing_else_is_a_part() {
        let original = rawdoc! { "batch": [{ "_id": 1 }, { "_id": 2, "v": "x" }] };
        let copy = Arc::new(original.clone());
        let held = |part: &RawDocument| HeldDocument::in_copy(&copy, &original, part);
        for part in original.get_array("batch").unwrap() {
            let part = part.unwrap().as_document().unwrap();
            assert_eq!(&*held(part).unwrap(), part);
        }
        let other = rawdoc! { "_id": 1 };
        assert!(held(&other).is_none());
        assert_eq!(&*HeldDocument::alone(other.clone()), &*other);
    }
}
