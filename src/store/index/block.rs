//! Rows and blocks of the index, as bytes; pure.

use std::collections::BTreeMap;

use bson::raw::{CStr, cstr};
use bson::{RawBsonRef, RawDocument, RawDocumentBuf};
use sha2::{Digest, Sha256};

/// Rows of a block. With more of them each record that is added rewrites more; with fewer there are
/// more entries.
pub(super) const ROWS_MAX: usize = 32;
/// The fields that many records share the values of, all of them texts.
const FACETS: [&CStr; 6] = [
    cstr!("namespace"),
    cstr!("kind"),
    cstr!("winner"),
    cstr!("winner_cluster"),
    cstr!("status"),
    cstr!("pipeline"),
];
/// Stands for a document that no digest tells.
pub(super) const ANY_DOCUMENT: u32 = 0;

const FACETS_BYTES: usize = 8;
const DOCUMENT_BYTES: usize = 4;
const LENGTH_BYTES: usize = 2;

/// What the index says of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// The record's key in the log.
    pub key: &'a [u8],
    /// Names the values in [`facets_of`].
    pub facets: u64,
    /// See [`document_of`].
    pub document: u32,
}

impl Row<'_> {
    pub fn encoded(&self) -> Vec<u8> {
        let length = u16::try_from(self.key.len()).expect("a key is a time and an id");
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend(self.key);
        bytes.extend(self.facets.to_be_bytes());
        bytes.extend(self.document.to_be_bytes());
        bytes
    }
}

/// The rows of a block; None for one that makes no sense, with which it ends.
pub(super) fn rows(mut bytes: &[u8]) -> impl Iterator<Item = Option<Row<'_>>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let row = split_row(&mut bytes);
        if row.is_none() {
            bytes = &[];
        }
        Some(row)
    })
}

fn split_row<'a>(bytes: &mut &'a [u8]) -> Option<Row<'a>> {
    let mut take = |length: usize| {
        let (taken, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(taken)
    };
    let length = u16::from_be_bytes(take(LENGTH_BYTES)?.try_into().ok()?);
    Some(Row {
        key: take(usize::from(length))?,
        facets: u64::from_be_bytes(take(FACETS_BYTES)?.try_into().ok()?),
        document: u32::from_be_bytes(take(DOCUMENT_BYTES)?.try_into().ok()?),
    })
}

/// A block while it is changed: rows as bytes by their keys.
#[derive(Debug, Default)]
pub(super) struct Block(BTreeMap<Vec<u8>, Vec<u8>>);

impl Block {
    /// None where it makes no sense.
    pub fn decoded(bytes: &[u8]) -> Option<Self> {
        let row = |row: Option<Row<'_>>| row.map(|row| (row.key.to_vec(), row.encoded()));
        rows(bytes).map(row).collect::<Option<_>>().map(Self)
    }

    pub fn encoded(&self) -> Vec<u8> {
        self.0.values().flatten().copied().collect()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn remove(&mut self, key: &[u8]) {
        self.0.remove(key);
    }

    /// Puts a row in its place. Returns what is too much for one block, with the key it begins at:
    /// the row alone where it is the last one, so that a log that only grows has full blocks.
    pub fn put(&mut self, row: Row<'_>) -> Option<(Vec<u8>, Block)> {
        self.0.insert(row.key.to_vec(), row.encoded());
        if self.0.len() <= ROWS_MAX {
            return None;
        }
        let last = self.0.keys().next_back()?.clone();
        let from = match last == row.key {
            true => last,
            false => self.0.keys().nth(ROWS_MAX / 2)?.clone(),
        };
        let rest = self.0.split_off(&from);
        Some((from, Block(rest)))
    }
}

/// What a record shares with others, in a record's own form, and the name of these values.
pub(super) fn facets_of(record: &RawDocument) -> (u64, RawDocumentBuf) {
    let mut facets = RawDocumentBuf::new();
    for name in FACETS {
        if let Ok(text) = record.get_str(name.as_str()) {
            facets.append(name, text);
        }
    }
    (digest(facets.as_bytes()), facets)
}

/// Tells the document that a record is about, by an `_id` that is a text, an ObjectId or a whole
/// number; others are not told apart.
pub(super) fn document_of(record: &RawDocument) -> u32 {
    let key = record.get_document("document_key").ok();
    match key.and_then(|key| key.get("_id").ok().flatten()) {
        Some(RawBsonRef::String(text)) => document(text),
        Some(RawBsonRef::ObjectId(id)) => document(&id.to_hex()),
        Some(RawBsonRef::Int32(number)) => document(&number.to_string()),
        Some(RawBsonRef::Int64(number)) => document(&number.to_string()),
        _ => ANY_DOCUMENT,
    }
}

/// Of an `_id` as text.
pub(super) fn document(id: &str) -> u32 {
    (digest(id.as_bytes()) as u32).max(ANY_DOCUMENT + 1)
}

fn digest(bytes: &[u8]) -> u64 {
    let hash = Sha256::digest(bytes);
    u64::from_be_bytes(std::array::from_fn(|at| hash[at]))
}
