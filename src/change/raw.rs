//! Raw BSON, taken apart and put together without looking into the values.

use std::io::Write;
use std::ops::{Deref, Range};

use bson::raw::CStr;
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

    /// The value, where it is a document or a list.
    fn nested(&self) -> Option<&'a RawDocument> {
        let (kind, value) = self.kind_and_value();
        let is_nested =
            [ElementType::EmbeddedDocument, ElementType::Array].map(|nested| nested as u8);
        let value = is_nested.contains(&kind).then_some(value)?;
        RawDocument::from_bytes(value).ok()
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
    each_element(document).collect()
}

/// As [`elements`], one after the other.
pub fn each_element(
    document: &RawDocument,
) -> impl Iterator<Item = bson::error::Result<RawElement<'_>>> {
    const LENGTH_PREFIX_BYTES: usize = 4;
    let bytes = document.as_bytes();
    let mut at = LENGTH_PREFIX_BYTES;
    document.iter_elements().map(move |element| {
        let element = element?;
        let name = element.key().as_str();
        let end = at + 1 + name.len() + 1 + element.size();
        let bytes = &bytes[at..end];
        at = end;
        Ok(RawElement { name, bytes })
    })
}

/// Whether documents and lists are nested in more than so many levels, the document itself included.
pub fn is_deeper_than(document: &RawDocument, levels: usize) -> bool {
    let Some(below) = levels.checked_sub(1) else {
        return true;
    };
    let parts = each_element(document).map_while(Result::ok);
    parts
        .filter_map(|part| part.nested())
        .any(|inner| is_deeper_than(inner, below))
}

/// Where in the bytes of a document a part of it stands; none where it is no part of it.
pub fn part_of(whole: &RawDocument, part: &RawDocument) -> Option<Range<usize>> {
    let (whole, part) = (whole.as_bytes(), part.as_bytes());
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    let end = start.checked_add(part.len())?;
    (end <= whole.len()).then_some(start..end)
}

/// A document of the given elements.
pub fn document_of<'a>(
    elements: impl IntoIterator<Item = &'a [u8], IntoIter: Clone>,
) -> RawDocumentBuf {
    const FRAME: [u8; 4] = [0; 4];
    let elements = elements.into_iter();
    let length: usize = elements.clone().map(<[u8]>::len).sum();
    let mut bytes = Vec::with_capacity(FRAME.len() + length + 1);
    bytes.extend_from_slice(&FRAME);
    for element in elements {
        bytes.extend_from_slice(element);
    }
    bytes.push(0);
    set_length(&mut bytes);
    RawDocumentBuf::from_bytes(bytes).expect("elements of a document make a document")
}

/// An empty document with room for so many bytes of elements.
pub fn with_room(bytes: usize) -> RawDocumentBuf {
    const EMPTY: [u8; 5] = [5, 0, 0, 0, 0];
    let mut document = Vec::with_capacity(EMPTY.len() + bytes);
    document.extend_from_slice(&EMPTY);
    RawDocumentBuf::from_bytes(document).expect("an empty document")
}

/// What a list needs for an element besides its value: type, index and the index's end.
pub const LIST_ELEMENT_BYTES_MAX: usize = 12;

/// A document with a list of documents at its end, put together in one piece. There is room left
/// for a few more fields: a list may be long, and is not to be moved for each of them.
pub fn with_list<D: Deref<Target = RawDocument>>(
    document: RawDocumentBuf,
    name: &CStr,
    items: &[D],
) -> RawDocumentBuf {
    const ROOM_BYTES: usize = 512;
    let bytes_of_items = items
        .iter()
        .map(|item| item.as_bytes().len() + LIST_ELEMENT_BYTES_MAX);
    let mut bytes = document.into_bytes();
    bytes.reserve_exact(bytes_of_items.sum::<usize>() + name.as_str().len() + ROOM_BYTES);
    bytes.pop();
    bytes.push(ElementType::Array as u8);
    bytes.extend_from_slice(name.as_str().as_bytes());
    bytes.push(0);
    let list = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    for (index, item) in items.iter().enumerate() {
        bytes.push(ElementType::EmbeddedDocument as u8);
        // A vector takes everything.
        let _ = write!(bytes, "{index}\0");
        bytes.extend_from_slice(item.as_bytes());
    }
    bytes.push(0);
    set_length(&mut bytes[list..]);
    bytes.push(0);
    set_length(&mut bytes);
    RawDocumentBuf::from_bytes(bytes).expect("a document and a list make a document")
}

pub(super) fn set_length(document: &mut [u8]) {
    let length = document.len() as i32;
    document[..4].copy_from_slice(&length.to_le_bytes());
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
    use bson::{RawArrayBuf, rawdoc};

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
    fn a_list_at_the_end_of_a_document_is_a_list_like_any_other() {
        for length in [0, 1, 12, 101] {
            let item = |number: i32| rawdoc! { "n": number };
            let items: Vec<RawDocumentBuf> = (0..length).map(item).collect();
            let mut expected = RawArrayBuf::new();
            for item in &items {
                expected.push(item.clone());
            }
            let whole = rawdoc! { "update": "orders", "ordered": true };
            let found = with_list(whole, bson::cstr!("updates"), &items);
            assert_eq!(
                found,
                rawdoc! { "update": "orders", "ordered": true, "updates": expected }
            );
        }
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
    fn levels_of_documents_and_lists_are_counted() {
        let document = rawdoc! { "s": "x", "n": { "l": [1, { "k": {} }] }, "d": 1.5 };
        assert!(is_deeper_than(&document, 4));
        assert!(!is_deeper_than(&document, 5));
        assert!(!is_deeper_than(&rawdoc! {}, 1));
    }

    #[test]
    fn a_renamed_element_keeps_its_value() {
        let document = rawdoc! { "_id": "key" };
        let parts = elements(&document).unwrap();
        let other = document_of([renamed(&parts[0], "q").as_slice()]);
        assert_eq!(other, rawdoc! { "q": "key" });
    }
}
