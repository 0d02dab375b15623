//! Conflict records larger than the server stores: documents split off, and put back in.

use bson::{RawBson, RawBsonRef, RawDocument, RawDocumentBuf, cstr, rawdoc};

use super::raw::{document_of, elements, renamed};

/// The largest document a server stores, less what a later status takes.
const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024 - 64 * 1024;

/// Bytes of a document in one chunk: two fit into one command.
const CHUNK_BYTES_MAX: usize = 8 * 1024 * 1024 - 16 * 1024;

/// What may be split off, in this order until the rest fits, and what then stands in its place: the
/// number of its chunks.
const PARTS: [(&str, &str, &str); 3] = [
    ("winning", "document", "document_chunks"),
    ("losing", "change", "change_chunks"),
    ("losing", "document", "document_chunks"),
];

/// A record as a cluster takes it.
#[derive(Debug)]
pub struct SplitRecord {
    pub record: RawDocumentBuf,
    /// Documents of `conflict_chunks`.
    pub chunks: Vec<RawDocumentBuf>,
}

/// Splits off whole documents until the rest can be stored. Most records come back as they are.
///
/// # Errors
/// Where the record is no BSON.
pub fn split_record(record: &RawDocument) -> bson::error::Result<SplitRecord> {
    let mut split = SplitRecord {
        record: record.to_owned(),
        chunks: Vec::new(),
    };
    for (side, field, count) in PARTS {
        if split.record.as_bytes().len() <= RECORD_BYTES_MAX {
            break;
        }
        let Ok(Some(RawBsonRef::Document(inner))) = split.record.get(side) else {
            continue;
        };
        let Ok(Some(RawBsonRef::Document(large))) = inner.get(field) else {
            continue;
        };
        let name = format!("{side}.{field}");
        let chunks = chunks_of(record, &name, large.as_bytes());
        let counted = rawdoc! { "n": chunks.len() as i32 };
        let counted = renamed(&elements(&counted)?[0], count);
        let inner = replaced(inner, field, &counted)?;
        split.record = with_side(&split.record, side, &inner)?;
        split.chunks.extend(chunks);
    }
    Ok(split)
}

/// The `_id`s of a record's chunks, in the order that [`joined_record`] takes them.
pub fn chunk_ids(record: &RawDocument) -> Vec<RawDocumentBuf> {
    let id = record.get_str("_id").unwrap_or_default();
    let mut ids = Vec::new();
    for (side, field, count) in PARTS {
        let inner = record.get_document(side).ok();
        let count = inner.and_then(|inner| inner.get_i32(count).ok());
        let name = format!("{side}.{field}");
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
    for (side, field, count) in PARTS {
        let Ok(inner) = whole.get_document(side) else {
            continue;
        };
        let Ok(chunks) = inner.get_i32(count) else {
            continue;
        };
        let name = format!("{side}.{field}");
        let mut bytes = Vec::new();
        for number in 0..chunks {
            bytes.extend(data(&chunk_id(id, &name, number))?);
        }
        let document = RawDocumentBuf::from_bytes(bytes).ok()?;
        let element = rawdoc! { "d": document };
        let element = renamed(&elements(&element).ok()?[0], field);
        let inner = replaced(inner, count, &element).ok()?;
        whole = with_side(&whole, side, &inner).ok()?;
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

fn with_side(
    record: &RawDocument,
    side: &str,
    inner: &RawDocument,
) -> bson::error::Result<RawDocumentBuf> {
    let element = rawdoc! { "d": inner.to_owned() };
    let element = renamed(&elements(&element)?[0], side);
    replaced(record, side, &element)
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
    fn a_missing_chunk_is_noticed() {
        let mut split = split_record(&record(1, 1, 16 * MB - 40)).unwrap();
        split.chunks.pop();
        assert_eq!(joined(&split), None);
    }
}
