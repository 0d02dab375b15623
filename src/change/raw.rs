//! Raw BSON, taken apart and put together without looking into the values.

use bson::spec::ElementType;
use bson::{RawDocument, RawDocumentBuf};

/// How deep values are looked into. Servers take 250 levels at most (`maxBSONDepth`), so what is
/// deeper was made to exhaust a stack.
pub const DEPTH_MAX: usize = 300;

/// An element as it stands in a document: its name and all of its bytes (type, name and value).
#[derive(Debug, Clone, Copy)]
pub struct RawElement<'a> {
    pub name: &'a str,
    pub bytes: &'a [u8],
}

impl<'a> RawElement<'a> {
    /// The type byte and the value's bytes, without the name.
    pub fn kind_and_value(&self) -> (u8, &'a [u8]) {
        (self.bytes[0], &self.bytes[self.name.len() + 2..])
    }

    /// The value, where it is a document.
    pub fn document(&self) -> Option<&'a RawDocument> {
        match self.kind_and_value() {
            (kind, value) if kind == ElementType::EmbeddedDocument as u8 => {
                RawDocument::from_bytes(value).ok()
            }
            _ => None,
        }
    }
}

/// The elements of a document, in order. Values are not validated, so text that is not UTF-8 passes.
///
/// # Errors
/// Where the document's frame is broken.
pub fn elements(document: &RawDocument) -> bson::error::Result<Vec<RawElement<'_>>> {
    const LENGTH_PREFIX_BYTES: usize = 4;
    let bytes = document.as_bytes();
    let mut at = LENGTH_PREFIX_BYTES;
    let mut found = Vec::new();
    for element in document.iter_elements() {
        let element = element?;
        let name = element.key().as_str();
        let end = at + 1 + name.len() + 1 + element.size();
        found.push(RawElement {
            name,
            bytes: &bytes[at..end],
        });
        at = end;
    }
    Ok(found)
}

/// A document of the given elements.
pub fn document_of<'a>(elements: impl IntoIterator<Item = &'a [u8]>) -> RawDocumentBuf {
    let mut bytes = vec![0; 4];
    for element in elements {
        bytes.extend_from_slice(element);
    }
    bytes.push(0);
    let length = bytes.len() as i32;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    RawDocumentBuf::from_bytes(bytes).expect("elements of a document make a document")
}

/// A document of one element with another name.
pub fn renamed(element: &RawElement<'_>, name: &str) -> Vec<u8> {
    let (kind, value) = element.kind_and_value();
    let mut bytes = Vec::with_capacity(name.len() + value.len() + 2);
    bytes.push(kind);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(value);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_document_taken_apart_and_put_together_is_the_same() {
        let document = rawdoc! { "_id": 1, "s": "x", "n": { "m": [1, 2, { "k": bson::RawBson::Null }] }, "d": 1.5 };
        let parts = elements(&document).unwrap();
        assert_eq!(
            parts.iter().map(|e| e.name).collect::<Vec<_>>(),
            ["_id", "s", "n", "d"]
        );
        assert_eq!(document_of(parts.iter().map(|e| e.bytes)), document);
    }

    #[test]
    fn only_a_document_is_taken_for_one() {
        let document = rawdoc! { "n": { "m": 1 }, "l": [1], "s": "x" };
        let parts = elements(&document).unwrap();
        let inner = rawdoc! { "m": 1 };
        assert_eq!(parts[0].document(), Some(inner.as_ref()));
        assert_eq!((parts[1].document(), parts[2].document()), (None, None));
    }

    #[test]
    fn a_renamed_element_keeps_its_value() {
        let document = rawdoc! { "_id": "key" };
        let parts = elements(&document).unwrap();
        let other = document_of([renamed(&parts[0], "q").as_slice()]);
        assert_eq!(other, rawdoc! { "q": "key" });
    }
}
