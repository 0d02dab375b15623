//! Conflict records larger or deeper than the server stores: documents split off, and put back in.

use bson::{RawBson, RawBsonRef, RawDocument, RawDocumentBuf, cstr, rawdoc};

use super::raw::{document_of, elements, is_deeper_than, renamed};

/// The largest document a server stores, less what a later status takes.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024 - 64 * 1024;

/// How deep a document may be that stands in a record. Servers store 180 levels (`maxBSONDepth` less
/// 20), of an application's document as of a record that holds it some levels further down.
pub const LEVELS_MAX: usize = 100;

/// Bytes of a document in one chunk: two fit into one command.
const CHUNK_BYTES_MAX: usize = 8 * 1024 * 1024 - 16 * 1024;

/// What may be split off: where it is too deep, and else in this order until the rest fits. What then
/// stands in its place is the number of its chunks.
const PARTS: [Part; 4] = [
    Part::new("winning", "document", "document_chunks"),
    Part::new("losing", "change", "change_chunks"),
    Part::new("losing", "document", "document_chunks"),
    Part::new("", "document_key", "document_key_chunks"),
];

struct Part {
    /// The document of the record that has the field; empty: the record itself.
    side: &'static str,
    field: &'static str,
    count: &'static str,
}

impl Part {
    const fn new(side: &'static str, field: &'static str, count: &'static str) -> Self {
        Self { side, field, count }
    }

    fn name(&self) -> String {
        match self.side {
            "" => self.field.to_owned(),
            side => format!("{side}.{}", self.field),
        }
    }

    fn around<'a>(&self, record: &'a RawDocument) -> Option<&'a RawDocument> {
        match self.side {
            "" => Some(record),
            side => record.get_document(side).ok(),
        }
    }

    /// The record with other elements around the field.
    fn put_back(
        &self,
        record: &RawDocument,
        inner: RawDocumentBuf,
    ) -> bson::error::Result<RawDocumentBuf> {
        if self.side.is_empty() {
            return Ok(inner);
        }
        let element = rawdoc! { "d": inner };
        let element = renamed(&elements(&element)?[0], self.side);
        replaced(record, self.side, &element)
    }
}

/// A record as a cluster takes it.
#[derive(Debug)]
pub struct SplitRecord {
    pub record: RawDocumentBuf,
    /// Documents of `conflict_chunks`.
    pub chunks: Vec<RawDocumentBuf>,
}

/// Splits off whole documents so that the rest can be stored. Most records come back as they are.
///
/// # Errors
/// Where the record is no BSON.
pub fn split_record(record: &RawDocument) -> bson::error::Result<SplitRecord> {
    let mut split = SplitRecord {
        record: record.to_owned(),
        chunks: Vec::new(),
    };
    for part in PARTS {
        let Some(inner) = part.around(&split.record) else {
            continue;
        };
        let Ok(Some(RawBsonRef::Document(large))) = inner.get(part.field) else {
            continue;
        };
        let fits = split.record.as_bytes().len() <= RECORD_BYTES_MAX;
        if fits && !is_deeper_than(large, LEVELS_MAX) {
            continue;
        }
        let chunks = chunks_of(record, &part.name(), large.as_bytes());
        let counted = rawdoc! { "n": chunks.len() as i32 };
        let counted = renamed(&elements(&counted)?[0], part.count);
        let inner = replaced(inner, part.field, &counted)?;
        split.record = part.put_back(&split.record, inner)?;
        split.chunks.extend(chunks);
    }
    Ok(split)
}

/// The `_id`s of a record's chunks, in the order that [`joined_record`] takes them.
pub fn chunk_ids(record: &RawDocument) -> Vec<RawDocumentBuf> {
    let id = record.get_str("_id").unwrap_or_default();
    let mut ids = Vec::new();
    for part in PARTS {
        let inner = part.around(record);
        let count = inner.and_then(|inner| inner.get_i32(part.count).ok());
        let name = part.name();
        ids.extend((0..count.unwrap_or(0)).map(|number| chunk_id(id, &name, number)));
    }
    ids
}

/// The whole record again, byte for byte. `data` gives the bytes of a chunk.
///
/// None where a chunk is missing or the chunks make no document.
pub fn joined_record(
    record: &RawDocument,
    mut data: impl FnMut(&RawDocument) -> Option<Vec<u8>>,
) -> Option<RawDocumentBuf> {
    let id = record.get_str("_id").ok()?;
    let mut whole = record.to_owned();
    for part in PARTS {
        let Some(inner) = part.around(&whole) else {
            continue;
        };
        let Ok(chunks) = inner.get_i32(part.count) else {
            continue;
        };
        let name = part.name();
        let mut bytes = Vec::new();
        for number in 0..chunks {
            bytes.extend(data(&chunk_id(id, &name, number))?);
        }
        let document = RawDocumentBuf::from_bytes(bytes).ok()?;
        let element = rawdoc! { "d": document };
        let element = renamed(&elements(&element).ok()?[0], part.field);
        let inner = replaced(inner, part.count, &element).ok()?;
        whole = part.put_back(&whole, inner).ok()?;
    }
    Some(whole)
}

fn chunk_id(record: &str, part: &str, number: i32) -> RawDocumentBuf {
    rawdoc! { "record": record, "part": part, "n": number }
}

fn chunks_of(record: &RawDocument, part: &str, bytes: &[u8]) -> Vec<RawDocumentBuf> {
    let id = record.get_str("_id").unwrap_or_default();
    let logged_at = record.get_datetime("logged_at").ok();
    let pieces = bytes.chunks(CHUNK_BYTES_MAX).enumerate();
    let chunk = |(number, piece): (usize, &[u8])| {
        let mut chunk = rawdoc! { "_id": chunk_id(id, part, number as i32) };
        let logged_at = logged_at.map_or(RawBson::Null, RawBson::DateTime);
        chunk.append(cstr!("logged_at"), logged_at);
        let data = bson::Binary {
            subtype: bson::spec::BinarySubtype::Generic,
            bytes: piece.to_vec(),
        };
        chunk.append(cstr!("data"), data);
        chunk
    };
    pieces.map(chunk).collect()
}

/// The document with the element `name` replaced by another one in its place.
fn replaced(document: &RawDocument, name: &str, by: &[u8]) -> bson::error::Result<RawDocumentBuf> {
    let parts = elements(document)?;
    let parts = parts.iter().map(|part| match part.name == name {
        true => by,
        false => part.bytes,
    });
    Ok(document_of(parts))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const MB: usize = 1024 * 1024;

    fn record(winning: usize, change: usize, losing: usize) -> RawDocumentBuf {
        let of = |bytes: usize| rawdoc! { "_id": 1, "$s": "x".repeat(bytes), "n": 1.0 };
        rawdoc! {
            "_id": "0a",
            "logged_at": bson::DateTime::from_millis(1),
            "winning": { "operation": "insert", "document": of(winning), "z": 1 },
            "losing": { "change": of(change), "document": of(losing) },
            "status": "logged",
        }
    }

    fn joined(split: &SplitRecord) -> Option<RawDocumentBuf> {
        let chunks: HashMap<Vec<u8>, Vec<u8>> = split
            .chunks
            .iter()
            .map(|chunk| {
                let id = chunk.get_document("_id").unwrap().as_bytes().to_vec();
                (id, chunk.get_binary("data").unwrap().bytes.to_vec())
            })
            .collect();
        joined_record(&split.record, |id| chunks.get(id.as_bytes()).cloned())
    }

    #[test]
    fn a_record_split_and_joined_is_the_same_byte_for_byte() {
        for (winning, change, losing, chunks) in [
            (1, 1, 1, 0),
            (4 * MB, 6 * MB, 7 * MB, 1),
            (MB, 16 * MB, MB, 4),
            (16 * MB - 40, 16 * MB - 40, 16 * MB - 40, 9),
        ] {
            let whole = record(winning, change, losing);
            let split = split_record(&whole).unwrap();
            assert_eq!(split.chunks.len(), chunks);
            assert!(split.record.as_bytes().len() <= RECORD_BYTES_MAX);
            let ids = chunk_ids(&split.record);
            let of = |chunk: &RawDocumentBuf| chunk.get_document("_id").unwrap().to_owned();
            assert_eq!(ids, split.chunks.iter().map(of).collect::<Vec<_>>());
            assert_eq!(joined(&split), Some(whole));
        }
    }

    #[test]
    fn what_is_nested_too_deep_for_a_record_is_split_off_and_comes_back_the_same() {
        let nested = |levels: usize| {
            let innermost = rawdoc! { "n": 1 };
            (1..levels).fold(innermost, |inner, level| match level % 2 {
                0 => rawdoc! { "d": inner },
                _ => rawdoc! { "l": [inner] },
            })
        };
        for (levels, chunks) in [(60, 0), (80, 4), (118, 4)] {
            let whole = rawdoc! {
                "_id": "0a",
                "document_key": { "_id": nested(levels) },
                "winning": { "document": nested(levels) },
                "losing": { "change": nested(levels), "document": nested(levels) },
            };
            let split = split_record(&whole).unwrap();
            assert_eq!(split.chunks.len(), chunks);
            assert!(!is_deeper_than(&split.record, LEVELS_MAX + 2));
            assert_eq!(joined(&split), Some(whole));
        }
    }

    #[test]
    fn a_missing_chunk_is_noticed() {
        let mut split = split_record(&record(1, 1, 16 * MB - 40)).unwrap();
        split.chunks.pop();
        assert_eq!(joined(&split), None);
    }
}
