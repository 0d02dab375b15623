//! A change stream event as the server sent it, and where in it the content of the document is.

use std::ops::{Deref, Range};

use bson::{RawDocument, RawDocumentBuf};

use super::Operation;
use super::raw::part_of;

/// The bytes of an event. Its content is asked for several times on its way, behind everything else
/// that an event has, so its place is remembered.
#[derive(Debug, Clone, PartialEq)]
pub struct RawEvent {
    bytes: RawDocumentBuf,
    content: Option<Range<usize>>,
}

impl RawEvent {
    /// A copy of `event`. `content` is the part of it that [`RawEvent::content`] gives.
    pub fn with_content(event: &RawDocument, content: Option<&RawDocument>) -> Self {
        Self {
            content: content.and_then(|content| part_of(event, content)),
            bytes: event.to_owned(),
        }
    }

    /// An event that is kept whole, whose content is where its type says.
    pub fn of(bytes: RawDocumentBuf, operation: Operation) -> Self {
        let content = content_of(&bytes, operation);
        let content = content.and_then(|content| part_of(&bytes, content));
        Self { bytes, content }
    }

    /// The document after an insert or a replacement, the oplog's own difference of an update.
    pub fn content(&self) -> Option<&RawDocument> {
        let bytes = self.bytes.as_bytes().get(self.content.clone()?)?;
        RawDocument::from_bytes(bytes).ok()
    }

    /// All of the event.
    pub fn document(&self) -> &RawDocumentBuf {
        &self.bytes
    }
}

impl Deref for RawEvent {
    type Target = RawDocument;

    fn deref(&self) -> &RawDocument {
        &self.bytes
    }
}

/// The content of an event by its type (`operationType`).
fn content_of(event: &RawDocument, operation: Operation) -> Option<&RawDocument> {
    match operation {
        Operation::Insert | Operation::Replace => event.get_document("fullDocument").ok(),
        Operation::Update => {
            let description = event.get_document("rawUpdateDescription").ok()?;
            description.get_document("diff").ok()
        }
        Operation::Delete => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn the_content_of_an_event_is_found_again_in_its_copy() {
        let insert = rawdoc! { "_id": 1, "fullDocument": { "_id": 7, "v": 1 }, "ns": "x" };
        let update = rawdoc! { "rawUpdateDescription": { "v": 2, "diff": { "u": { "v": 2 } } } };
        let of = |event: &RawDocument, operation| {
            let copy = RawEvent::with_content(event, content_of(event, operation));
            assert_eq!(&*copy, event);
            let kept = RawEvent::of(event.to_owned(), operation);
            assert_eq!(kept.content(), copy.content());
            copy.content().map(RawDocument::to_owned)
        };
        assert_eq!(
            of(&insert, Operation::Insert),
            Some(rawdoc! { "_id": 7, "v": 1 })
        );
        assert_eq!(
            of(&update, Operation::Update),
            Some(rawdoc! { "u": { "v": 2 } })
        );
        assert_eq!(of(&insert, Operation::Delete), None);
        assert_eq!(of(&update, Operation::Replace), None);
    }

    #[test]
    fn the_content_of_another_event_is_none_of_this_one() {
        let (one, other) = (rawdoc! { "a": 1 }, rawdoc! { "a": 1 });
        assert_eq!(RawEvent::with_content(&one, Some(&other)).content(), None);
    }
}
