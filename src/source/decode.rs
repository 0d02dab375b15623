//! From a raw change stream event to what it means for the link. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bson::spec::BinarySubtype;
use bson::{RawBinaryRef, RawBsonRef, RawDocument, RawDocumentBuf, Timestamp, Uuid};

use crate::change::{
    ChangeEvent, Deletes, DocumentKey, Filters, Namespace, NamespaceFilter, Operation, Position,
    Rank, RawEvent, SharedEvent, Side, Version,
};
use crate::error::{Error, Result};
use crate::fault::Fault;

/// What one event of a cluster's stream means for the link.
#[derive(Debug, Clone)]
pub enum Observed {
    /// An application's write to an included document.
    Local(SharedEvent),
    /// A write of tandem itself; only seen without the origin filter.
    Own(DocumentKey),
    /// A change of an included collection itself; rare, and large.
    Ddl(Box<DdlEvent>),
    /// Anything else; it only tells how far the stream has come.
    Passing,
}

/// A change of a collection, a database or an index.
#[derive(Debug, Clone)]
pub struct DdlEvent {
    /// The event's `operationType`.
    pub operation: String,
    pub namespace: Namespace,
    /// Where a rename leads to.
    pub to: Option<Namespace>,
    pub collection_uuid: Option<Uuid>,
    pub position: Position,
    pub wall_time_ms: i64,
    pub raw: RawDocumentBuf,
}

/// One event with its place in the stream.
#[derive(Debug, Clone)]
pub struct Decoded {
    pub position: Position,
    pub wall_time_ms: i64,
    /// One write outside of any transaction: no other event of this time can follow. A DDL event
    /// never is, since one inside a transaction looks like any other.
    pub single_write: bool,
    /// The collection it is about (`collectionUUID`); none for views, databases and state of ours.
    pub collection: Option<Uuid>,
    pub observed: Observed,
}

/// Reads the events of one cluster.
pub struct Decoder {
    side: Side,
    rank: Rank,
    filter: NamespaceFilter,
    /// Of a source, by the names that collections have there; a target has none.
    filters: Filters,
    version_field: Option<String>,
    tags: HashSet<Uuid>,
    /// Namespaces seen so far, by the bytes of the event's `ns`; none: not included.
    names: HashMap<Vec<u8>, Option<Namespace>>,
}

/// Collections of one cluster remembered by the bytes of their names.
const NAMES_MAX: usize = 20_000;

#[derive(Default)]
struct Parts<'a> {
    token: Option<&'a str>,
    operation: Option<&'a str>,
    time: Option<Timestamp>,
    wall_time_ms: Option<i64>,
    namespace: Option<&'a RawDocument>,
    key: Option<&'a RawDocument>,
    full: Option<&'a RawDocument>,
    update: Option<&'a RawDocument>,
    session: Option<Uuid>,
    in_transaction: bool,
    uuid: Option<Uuid>,
    to: Option<&'a RawDocument>,
}

impl Decoder {
    /// `tags` are all session ids of tandem on this cluster.
    pub fn new(
        side: Side,
        tie: Side,
        filter: NamespaceFilter,
        filters: Filters,
        version_field: Option<String>,
        tags: HashSet<Uuid>,
    ) -> Self {
        Self {
            side,
            rank: Rank::of(side, tie),
            filter,
            filters,
            version_field,
            tags,
            names: HashMap::new(),
        }
    }

    /// # Errors
    /// An event that lacks what every event has, or of a type that tandem does not know.
    pub fn decode(&mut self, raw: &RawDocument) -> Result<Decoded> {
        let parts = Parts::read(raw).map_err(|error| malformed().caused_by(error))?;
        let (Some(time), Some(token), Some(operation)) = (parts.time, parts.token, parts.operation)
        else {
            return Err(malformed());
        };
        let position = Position::of_event(time, token);
        let wall_time_ms = parts.wall_time_ms.unwrap_or(i64::from(time.time) * 1000);
        let single_write = Operation::parse(operation).is_some() && !parts.in_transaction;
        let observed = match Operation::parse(operation) {
            Some(operation) => self.document_event(&parts, operation, &position, wall_time_ms, raw),
            None => self.ddl_event(&parts, operation, &position, wall_time_ms, raw)?,
        };
        Ok(Decoded {
            position,
            wall_time_ms,
            single_write,
            collection: parts.uuid,
            observed,
        })
    }

    fn document_event(
        &mut self,
        parts: &Parts<'_>,
        operation: Operation,
        position: &Position,
        wall_time_ms: i64,
        raw: &RawDocument,
    ) -> Observed {
        let Some(names) = parts.namespace else {
            return Observed::Passing;
        };
        let Some(namespace) = self.included(names) else {
            return Observed::Passing;
        };
        let Some(key) = parts.key.and_then(|key| DocumentKey::of(&namespace, key)) else {
            return Observed::Passing;
        };
        let is_own = parts.session.is_some_and(|id| self.tags.contains(&id));
        if is_own && !Fault::NoOrigin.is_on() {
            return Observed::Own(key);
        }
        if operation == Operation::Delete && self.filters.deletes(&namespace) == Deletes::Ignored {
            return Observed::Passing;
        }
        let version = Version {
            wall_time_ms: self.version_of(parts).unwrap_or(wall_time_ms),
            rank: self.rank,
        };
        Observed::Local(Arc::new(ChangeEvent {
            position: position.clone(),
            key,
            operation,
            version,
            wall_time_ms,
            raw: match self.filters.selects(&namespace) {
                true => RawEvent::of(without_content(raw), operation),
                false => RawEvent::with_content(raw, parts.content(operation)),
            },
        }))
    }

    fn ddl_event(
        &mut self,
        parts: &Parts<'_>,
        operation: &str,
        position: &Position,
        wall_time_ms: i64,
        raw: &RawDocument,
    ) -> Result<Observed> {
        const KNOWN: [&str; 13] = [
            "create",
            "drop",
            "rename",
            "dropDatabase",
            "createIndexes",
            "dropIndexes",
            "modify",
            "shardCollection",
            "reshardCollection",
            "refineCollectionShardKey",
            "invalidate",
            "endOfTransaction",
            "migrateChunkToNewShard",
        ];
        if !KNOWN.contains(&operation) {
            return Err(Error::bug(format!("unknown change event type {operation}"))
                .hint("this server is newer than this version of tandem knows"));
        }
        let namespace = parts.namespace.and_then(|names| match operation {
            "dropDatabase" => Some(Namespace::new(names.get_str("db").ok()?, "*")),
            _ => self.included(names),
        });
        let to = parts.to.and_then(|names| self.included(names));
        let Some(namespace) = namespace.or(to.clone()) else {
            return Ok(Observed::Passing);
        };
        Ok(Observed::Ddl(Box::new(DdlEvent {
            operation: operation.to_owned(),
            namespace,
            to,
            collection_uuid: parts.uuid,
            position: position.clone(),
            wall_time_ms,
            raw: raw.to_owned(),
        })))
    }

    fn included(&mut self, names: &RawDocument) -> Option<Namespace> {
        if let Some(known) = self.names.get(names.as_bytes()) {
            return known.clone();
        }
        let namespace = match (names.get_str("db"), names.get_str("coll")) {
            (Ok(database), Ok(collection)) => Some(Namespace::new(database, collection)),
            _ => None,
        };
        let included = namespace.filter(|name| self.filter.includes(self.side, name));
        if self.names.len() >= NAMES_MAX {
            self.names.clear();
        }
        self.names
            .insert(names.as_bytes().to_vec(), included.clone());
        included
    }

    /// The version field as the event alone tells it: a Date, or an int64 of ms.
    fn version_of(&self, parts: &Parts<'_>) -> Option<i64> {
        let field = self.version_field.as_deref()?;
        let value = match parts.full {
            Some(document) => document.get(field).ok()??,
            None => set_by(parts.update?, field)?,
        };
        value
            .as_datetime()
            .map(|time| time.timestamp_millis())
            .or_else(|| value.as_i64())
    }
}

impl<'a> Parts<'a> {
    fn content(&self, operation: Operation) -> Option<&'a RawDocument> {
        match operation {
            Operation::Insert | Operation::Replace => self.full,
            Operation::Update => self.update,
            Operation::Delete => None,
        }
    }

    fn read(raw: &'a RawDocument) -> bson::error::Result<Self> {
        let mut parts = Parts::default();
        for element in raw.iter_elements() {
            let element = element?;
            let name = element.key().as_str();
            match name {
                "_id" => {
                    let id = element.value()?.as_document();
                    parts.token = id.and_then(|id| id.get_str("_data").ok());
                }
                "operationType" => parts.operation = element.value()?.as_str(),
                "clusterTime" => parts.time = element.value()?.as_timestamp(),
                "wallTime" => {
                    let time = element.value()?.as_datetime();
                    parts.wall_time_ms = time.map(|time| time.timestamp_millis());
                }
                "ns" => parts.namespace = element.value()?.as_document(),
                "to" => parts.to = element.value()?.as_document(),
                "documentKey" => parts.key = element.value()?.as_document(),
                "fullDocument" => parts.full = element.value()?.as_document(),
                "rawUpdateDescription" => {
                    let description = element.value()?.as_document();
                    parts.update = description.and_then(|raw| raw.get_document("diff").ok());
                }
                "txnNumber" => parts.in_transaction = true,
                "lsid" => {
                    let id = element.value()?.as_document();
                    parts.session = id.and_then(|id| uuid(id, "id"));
                }
                "collectionUUID" => {
                    let binary = element.value()?.as_binary();
                    parts.uuid = binary.and_then(uuid_of);
                }
                _ => {}
            }
        }
        Ok(parts)
    }
}

/// What an update's difference sets a top-level field to, in its place or as a new field.
fn set_by<'a>(difference: &'a RawDocument, field: &str) -> Option<RawBsonRef<'a>> {
    ["u", "i"].iter().find_map(|part| {
        let fields = difference.get_document(part).ok()?;
        fields.get(field).ok()?
    })
}

/// An event of a collection with a filter: its documents are always sent as they are read, and what
/// is not to be replicated must not go on record either.
fn without_content(raw: &RawDocument) -> RawDocumentBuf {
    const CONTENT: [&str; 3] = ["fullDocument", "updateDescription", "rawUpdateDescription"];
    let mut left = RawDocumentBuf::new();
    for element in raw.iter_elements().flatten() {
        if !CONTENT.contains(&element.key().as_str())
            && let Ok(value) = element.value()
        {
            left.append(element.key(), value);
        }
    }
    left
}

fn uuid(document: &RawDocument, name: &str) -> Option<Uuid> {
    uuid_of(document.get_binary(name).ok()?)
}

fn uuid_of(binary: RawBinaryRef<'_>) -> Option<Uuid> {
    let bytes = binary.bytes.try_into().ok()?;
    (binary.subtype == BinarySubtype::Uuid).then(|| Uuid::from_bytes(bytes))
}

fn malformed() -> Error {
    Error::bug("a change event that lacks its token, time or type")
}

#[cfg(test)]
mod tests;
