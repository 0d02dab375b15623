//! An event as bytes, and back. Pure.

use std::sync::Arc;

use bson::{RawDocument, RawDocumentBuf, cstr, rawdoc};

use crate::change::{
    ChangeEvent, DocumentKey, Namespace, Operation, Position, Rank, RawEvent, SharedEvent, Version,
};

/// One document: it begins with its length.
pub(super) fn stored(event: &ChangeEvent) -> RawDocumentBuf {
    let mut stored = rawdoc! {
        "time": event.position.time,
        "token": event.position.token.as_ref(),
        "namespace": event.key.namespace().as_str(),
        "operation": event.operation.as_str(),
        "version": event.version.wall_time_ms,
        "wins": event.version.rank == Rank::Wins,
        "wall_time": event.wall_time_ms,
    };
    stored.append(cstr!("key"), event.key.raw());
    stored.append(cstr!("raw"), &*event.raw);
    stored
}

/// None for what was never written by [`stored`].
pub(super) fn read_event(bytes: Vec<u8>) -> Option<SharedEvent> {
    let stored = RawDocumentBuf::from_bytes(bytes).ok()?;
    let namespace = Namespace::parse(stored.get_str("namespace").ok()?)?;
    let part = |name: &str| -> Option<&RawDocument> { stored.get_document(name).ok() };
    let operation = Operation::parse(stored.get_str("operation").ok()?)?;
    Some(Arc::new(ChangeEvent {
        position: Position::of_event(
            stored.get_timestamp("time").ok()?,
            stored.get_str("token").ok()?,
        ),
        key: DocumentKey::of(&namespace, part("key")?)?,
        operation,
        version: Version {
            wall_time_ms: stored.get_i64("version").ok()?,
            rank: match stored.get_bool("wins").ok()? {
                true => Rank::Wins,
                false => Rank::Loses,
            },
        },
        wall_time_ms: stored.get_i64("wall_time").ok()?,
        raw: RawEvent::of(part("raw")?.to_owned(), operation),
    }))
}
