//! Statements of `insert`, `update` and `delete` commands, put together from raw BSON.

use std::ops::Deref;

use bson::raw::RawElement;
use bson::spec::ElementType;
use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, cstr, rawdoc};

use crate::change::{DocumentKey, HeldDocument, SharedEvent, document_of, elements, with_room};

/// What a statement has beside what it is put together from, with room to spare.
pub(super) const FRAME_BYTES: usize = 64;

/// One statement of a command; of an `insert` it is the document itself.
#[derive(Debug, Clone)]
pub enum Statement {
    Made(RawDocumentBuf),
    /// The document that an event brought (`fullDocument`), where the event has it.
    Brought(SharedEvent),
    /// A document that a copy has read.
    Copied(HeldDocument),
}

impl Deref for Statement {
    type Target = RawDocument;

    fn deref(&self) -> &RawDocument {
        match self {
            Statement::Made(statement) => statement,
            Statement::Brought(event) => event.full_document().expect("an event with a document"),
            Statement::Copied(document) => document,
        }
    }
}

impl From<RawDocumentBuf> for Statement {
    fn from(statement: RawDocumentBuf) -> Self {
        Statement::Made(statement)
    }
}

impl From<&RawDocument> for Statement {
    fn from(document: &RawDocument) -> Self {
        Statement::Made(document.to_owned())
    }
}

impl From<&HeldDocument> for Statement {
    fn from(document: &HeldDocument) -> Self {
        Statement::Copied(document.clone())
    }
}

/// A document to be removed by its key.
pub fn delete(key: &DocumentKey) -> RawDocumentBuf {
    let mut statement = with_room(key.raw().as_bytes().len() + FRAME_BYTES);
    statement.append(cstr!("q"), key.raw());
    statement.append(cstr!("limit"), 1);
    statement
}

/// The document becomes `document`, whether it was there or not; it must not be there unless
/// `document` survives a replacement.
pub fn replace(key: &DocumentKey, document: &RawDocument) -> RawDocumentBuf {
    let bytes = key.raw().as_bytes().len() + document.as_bytes().len();
    let mut statement = with_room(bytes + FRAME_BYTES);
    statement.append(cstr!("q"), key.raw());
    if survives_replacement(document) {
        statement.append(cstr!("u"), document);
    } else {
        statement.append(cstr!("u"), literal_replacement(document));
    }
    statement.append(cstr!("upsert"), true);
    statement
}

/// An update by operators; matches nothing where the document does not meet `conditions`.
pub fn update(
    key: &DocumentKey,
    conditions: &RawDocument,
    operators: &RawDocument,
) -> RawDocumentBuf {
    let parts = [key.raw(), conditions, operators];
    let bytes: usize = parts.iter().map(|part| part.as_bytes().len()).sum();
    let mut statement = with_room(bytes + FRAME_BYTES);
    match conditions.is_empty() {
        true => statement.append(cstr!("q"), key.raw()),
        false => statement.append(cstr!("q"), keyed(key, conditions)),
    }
    statement.append(cstr!("u"), operators);
    statement
}

/// Whether an `insert` command stores the document as it is. The server replaces a top-level
/// `Timestamp(0, 0)` by the present time.
pub fn survives_insert(document: &RawDocument) -> bool {
    const EMPTY: Timestamp = Timestamp {
        time: 0,
        increment: 0,
    };
    let is_empty = |element: RawElement<'_>| {
        element.element_type() == ElementType::Timestamp
            && element
                .value()
                .is_ok_and(|v| v.as_timestamp() == Some(EMPTY))
    };
    !document.iter_elements().flatten().any(is_empty)
}

/// Whether a replacement-style update takes the document: no top-level `$` names either.
pub fn survives_replacement(document: &RawDocument) -> bool {
    survives_insert(document)
        && !document
            .iter_elements()
            .flatten()
            .any(|element| element.key().as_str().starts_with('$'))
}

/// `[{ $replaceWith: { $literal: document } }]`, which stores any document byte for byte where there
/// is none. Of one that is there the server takes the difference, and ends by an invariant where one
/// of the two has a name twice (seen in 6.0).
fn literal_replacement(document: &RawDocument) -> RawArrayBuf {
    let mut literal = RawDocumentBuf::new();
    literal.append(cstr!("$literal"), document);
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(rawdoc! { "$replaceWith": literal });
    pipeline
}

/// `{ _id: … }` of the key, extended by further fields.
pub fn keyed(key: &DocumentKey, fields: &RawDocument) -> RawDocumentBuf {
    let id = key.element_named("_id");
    let rest = elements(fields).expect("our own document is whole");
    document_of(std::iter::once(id.as_slice()).chain(rest.iter().map(|field| field.bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Namespace;

    fn key() -> DocumentKey {
        DocumentKey::of(&Namespace::new("shop", "orders"), &rawdoc! { "_id": 1 }).unwrap()
    }

    #[test]
    fn an_empty_timestamp_at_the_top_is_replaced_by_a_literal() {
        let empty = Timestamp {
            time: 0,
            increment: 0,
        };
        let plain = rawdoc! { "_id": 1, "deep": { "t": empty } };
        let special = rawdoc! { "_id": 1, "t": empty };
        assert!(replace(&key(), &plain).get_document("u").is_ok());
        assert!(replace(&key(), &special).get_array("u").is_ok());
        assert!(!survives_insert(&special));
    }

    #[test]
    fn names_that_look_like_operators_are_replaced_by_a_literal() {
        let document = rawdoc! { "_id": 1, "$set": 1 };
        assert!(replace(&key(), &document).get_array("u").is_ok());
        assert!(survives_insert(&document));
    }
}
