//! What a DDL event changes, so that two of them can be compared and each be brought over. Pure.

use bson::{RawDocument, Uuid};

use crate::change::Namespace;
use crate::source::DdlEvent;

/// A part of a collection's definition, changed by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// The index of this name.
    Index(String),
    /// An option that `collMod` can change; the three of a validator go together.
    Option(String),
}

/// What a DDL event does to its collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Create,
    Define(Vec<Aspect>),
    /// A view was created, changed or dropped; it holds no documents.
    View,
    Drop,
    Rename {
        from: Namespace,
        to: Namespace,
        drop_target: Option<Uuid>,
    },
    DropDatabase,
    /// It changes nothing that is replicated.
    Nothing,
    Unsupported(&'static str),
}

pub const VALIDATOR: &str = "validator";

impl Change {
    pub fn of(event: &DdlEvent) -> Change {
        let description = event.raw.get_document("operationDescription").ok();
        let is_view = event.collection_uuid.is_none();
        match event.operation.as_str() {
            "create" if is_view && is_time_series(description) => {
                Change::Unsupported("it is a time series")
            }
            "create" | "modify" | "drop" if is_view => Change::View,
            "create" => Change::Create,
            "drop" => Change::Drop,
            "createIndexes" | "dropIndexes" => Change::of_aspects(indexes(description)),
            "modify" => Change::of_aspects(modified(description)),
            "rename" => match (names(&event.raw, "ns"), names(&event.raw, "to")) {
                (Some(from), Some(to)) => Change::Rename {
                    from,
                    to,
                    drop_target: description.and_then(drop_target),
                },
                _ => Change::Nothing,
            },
            "dropDatabase" => Change::DropDatabase,
            _ => Change::Nothing,
        }
    }

    fn of_aspects(aspects: Vec<Aspect>) -> Change {
        match aspects.is_empty() {
            true => Change::Nothing,
            false => Change::Define(aspects),
        }
    }
}

/// The indexes that an event of `createIndexes` or `dropIndexes` is about.
pub fn index_names(event: &DdlEvent) -> Vec<String> {
    let description = event.raw.get_document("operationDescription").ok();
    let named = |aspect| match aspect {
        Aspect::Index(name) => Some(name),
        Aspect::Option(_) => None,
    };
    indexes(description).into_iter().filter_map(named).collect()
}

fn is_time_series(description: Option<&RawDocument>) -> bool {
    let source = description.and_then(|description| description.get_str("viewOn").ok());
    source.is_some_and(|source| source.starts_with("system.buckets."))
}

fn indexes(description: Option<&RawDocument>) -> Vec<Aspect> {
    let listed = description.and_then(|description| description.get_array("indexes").ok());
    let specs = listed.into_iter().flatten().flatten();
    let names = specs.filter_map(|spec| spec.as_document()?.get_str("name").ok());
    names.map(|name| Aspect::Index(name.to_owned())).collect()
}

fn modified(description: Option<&RawDocument>) -> Vec<Aspect> {
    let mut aspects = Vec::new();
    for (name, value) in description.into_iter().flatten().flatten() {
        let aspect = match (name.as_str(), value.as_document()) {
            ("index", Some(index)) => match index.get_str("name") {
                Ok(name) => Aspect::Index(name.to_owned()),
                Err(_) => continue,
            },
            ("validator" | "validationLevel" | "validationAction", _) => {
                Aspect::Option(VALIDATOR.to_owned())
            }
            (name, _) => Aspect::Option(name.to_owned()),
        };
        if !aspects.contains(&aspect) {
            aspects.push(aspect);
        }
    }
    aspects
}

fn names(raw: &RawDocument, field: &str) -> Option<Namespace> {
    let names = raw.get_document(field).ok()?;
    let (database, collection) = (names.get_str("db").ok()?, names.get_str("coll").ok()?);
    Some(Namespace::new(database, collection))
}

fn drop_target(description: &RawDocument) -> Option<Uuid> {
    let binary = description.get_binary("dropTarget").ok()?;
    binary.to_binary().to_uuid().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Position;
    use bson::{RawDocumentBuf, Timestamp, rawdoc};

    fn event(operation: &str, uuid: Option<Uuid>, more: RawDocumentBuf) -> DdlEvent {
        let time = Timestamp {
            time: 1,
            increment: 1,
        };
        let mut raw = rawdoc! { "ns": { "db": "shop", "coll": "orders" } };
        for part in more.iter() {
            let (name, value) = part.unwrap();
            raw.append(name, bson::RawBson::from(value));
        }
        DdlEvent {
            operation: operation.to_owned(),
            namespace: Namespace::new("shop", "orders"),
            to: None,
            collection_uuid: uuid,
            position: Position::of_event(time, "82"),
            wall_time_ms: 1,
            raw,
        }
    }

    fn described(operation: &str, description: RawDocumentBuf) -> Change {
        let uuid = Some(Uuid::from_bytes([1; 16]));
        Change::of(&event(
            operation,
            uuid,
            rawdoc! { "operationDescription": description },
        ))
    }

    #[test]
    fn an_index_change_is_about_the_indexes_it_names() {
        let made = described(
            "createIndexes",
            rawdoc! { "indexes": [{ "name": "x" }, { "name": "y" }] },
        );
        let hidden = described(
            "modify",
            rawdoc! { "index": { "name": "y", "hidden": true } },
        );
        let dropped = described("dropIndexes", rawdoc! { "indexes": [{ "name": "z" }] });
        let index = |name: &str| Aspect::Index(name.into());
        assert_eq!(made, Change::Define(vec![index("x"), index("y")]));
        assert_eq!(hidden, Change::Define(vec![index("y")]));
        assert_eq!(dropped, Change::Define(vec![index("z")]));
    }

    #[test]
    fn the_parts_of_a_validator_are_one_decision_and_an_empty_change_is_none() {
        let level = described("modify", rawdoc! { "validationLevel": "off" });
        let rule = described(
            "modify",
            rawdoc! { "validator": { "x": 1 }, "validationAction": "warn" },
        );
        assert_eq!(
            level,
            Change::Define(vec![Aspect::Option(VALIDATOR.into())])
        );
        assert_eq!(rule, level);
        assert_eq!(described("modify", rawdoc! {}), Change::Nothing);
    }

    #[test]
    fn what_has_no_uuid_is_a_view_and_a_view_of_buckets_a_time_series() {
        let view = rawdoc! { "operationDescription": { "viewOn": "orders", "pipeline": [] } };
        assert_eq!(Change::of(&event("create", None, view)), Change::View);
        assert_eq!(Change::of(&event("drop", None, rawdoc! {})), Change::View);
        let series = rawdoc! { "operationDescription": { "viewOn": "system.buckets.x" } };
        assert!(matches!(
            Change::of(&event("create", None, series)),
            Change::Unsupported(_)
        ));
    }
}
