//! A document put together from raw BSON in one piece of memory.

use bson::spec::ElementType;
use bson::{RawDocument, RawDocumentBuf};
use smallvec::SmallVec;

use super::raw::{RawElement, set_length};

/// Appends elements, within nested documents too. Names come out of documents or are our own, so
/// none has a zero byte.
#[derive(Debug)]
pub struct RawWriter {
    bytes: Vec<u8>,
    /// Where the documents begin that are not closed yet, the outermost first.
    open: SmallVec<[usize; 4]>,
}

const LENGTH_BYTES: usize = 4;

impl RawWriter {
    /// An empty document, with room for so many bytes.
    pub fn with_room(bytes: usize) -> Self {
        let mut writer = Self {
            bytes: Vec::with_capacity(LENGTH_BYTES + bytes + 1),
            open: SmallVec::new(),
        };
        writer.begin();
        writer
    }

    /// What follows is within a document of this name, until it is closed.
    pub fn open(&mut self, name: &str) {
        self.head(ElementType::EmbeddedDocument as u8, name);
        self.begin();
    }

    pub fn close(&mut self) {
        let start = self.open.pop().expect("a document was opened");
        self.bytes.push(0);
        set_length(&mut self.bytes[start..]);
    }

    /// An element under a name that may be another one than its own.
    pub fn element(&mut self, name: &str, element: &RawElement<'_>) {
        let (kind, value) = element.kind_and_value();
        self.head(kind, name);
        self.bytes.extend_from_slice(value);
    }

    /// All elements of a document.
    pub fn elements_of(&mut self, document: &RawDocument) {
        let bytes = document.as_bytes();
        self.bytes
            .extend_from_slice(&bytes[LENGTH_BYTES..bytes.len() - 1]);
    }

    pub fn document(&mut self, name: &str, document: &RawDocument) {
        self.head(ElementType::EmbeddedDocument as u8, name);
        self.bytes.extend_from_slice(document.as_bytes());
    }

    pub fn flag(&mut self, name: &str, value: bool) {
        self.head(ElementType::Boolean as u8, name);
        self.bytes.push(u8::from(value));
    }

    /// An empty string.
    pub fn empty_text(&mut self, name: &str) {
        self.head(ElementType::String as u8, name);
        self.bytes.extend_from_slice(&[1, 0, 0, 0, 0]);
    }

    /// The document, with all that is open closed.
    pub fn finish(mut self) -> RawDocumentBuf {
        while !self.open.is_empty() {
            self.close();
        }
        RawDocumentBuf::from_bytes(self.bytes).expect("elements of documents make a document")
    }

    fn begin(&mut self) {
        self.open.push(self.bytes.len());
        self.bytes.extend_from_slice(&[0; LENGTH_BYTES]);
    }

    fn head(&mut self, kind: u8, name: &str) {
        self.bytes.push(kind);
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::raw::elements;
    use bson::rawdoc;

    #[test]
    fn what_is_written_piece_by_piece_is_the_document_meant() {
        let other = rawdoc! { "a": 1, "b": { "c": [1, 2] } };
        let parts = elements(&other).unwrap();
        let mut writer = RawWriter::with_room(0);
        writer.open("q");
        writer.elements_of(&other);
        writer.open("x.y");
        writer.flag("$exists", false);
        writer.close();
        writer.close();
        writer.open("u");
        writer.document("doc", &rawdoc! {});
        writer.empty_text("gone");
        writer.element("b.c", &parts[1]);
        assert_eq!(
            writer.finish(),
            rawdoc! {
                "q": { "a": 1, "b": { "c": [1, 2] }, "x.y": { "$exists": false } },
                "u": { "doc": {}, "gone": "", "b.c": { "c": [1, 2] } },
            }
        );
    }
}
