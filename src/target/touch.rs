//! The forced check: writes that leave no trace in a document but conflict like any other.
//!
//! A write that changes nothing takes no lock, so the server would not notice an unseen change.

use bson::{RawDocumentBuf, Uuid, cstr, rawdoc};

use super::statements::{Statement, delete, keyed, update};
use super::write_set::CollectionInfo;
use crate::change::DocumentKey;

/// A field that no application uses; set and unset in one transaction.
const SCRATCH_FIELD: &bson::raw::CStr = cstr!("__tandem_touch");

/// Sets and unsets a scratch field of documents that are there.
pub fn touch_present(keys: &[DocumentKey]) -> Vec<Statement> {
    let set = rawdoc! { "$set": { SCRATCH_FIELD: true } };
    let unset = rawdoc! { "$unset": { SCRATCH_FIELD: "" } };
    let any = RawDocumentBuf::new();
    keys.iter()
        .flat_map(|key| [update(key, &any, &set), update(key, &any, &unset)])
        .map(Statement::from)
        .collect()
}

/// Inserts stand-ins for documents that are absent. A missing field counts as null in a unique
/// index, so its first field gets a value that nothing else has.
pub fn stand_ins(keys: &[DocumentKey], collection: &CollectionInfo) -> Vec<Statement> {
    let stand_ins = keys.iter().map(|key| stand_in(key, collection));
    stand_ins.map(Statement::from).collect()
}

fn stand_in(key: &DocumentKey, collection: &CollectionInfo) -> RawDocumentBuf {
    let mut fields = RawDocumentBuf::new();
    for path in collection
        .unique_fields
        .iter()
        .filter(|path| *path != "_id")
    {
        nest(&mut fields, path);
    }
    keyed(key, &fields)
}

/// Adds a fresh value under a path; a second path through the same first field is left to it.
fn nest(fields: &mut RawDocumentBuf, path: &str) {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    let Ok(name) = <&bson::raw::CStr>::try_from(first) else {
        return;
    };
    if matches!(fields.get(first), Ok(Some(_))) {
        return;
    }
    if rest.is_empty() {
        fields.append(name, bson::Binary::from(Uuid::new()));
    } else {
        let mut inner = RawDocumentBuf::new();
        nest(&mut inner, rest);
        fields.append(name, inner);
    }
}

/// Removes the stand-ins again.
pub fn remove_stand_ins(keys: &[DocumentKey]) -> Vec<Statement> {
    keys.iter().map(delete).map(Statement::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Namespace;

    #[test]
    fn a_stand_in_has_a_value_of_its_own_for_every_unique_index() {
        let key = DocumentKey::of(&Namespace::new("s", "c"), &rawdoc! { "_id": 1 }).unwrap();
        let collection = CollectionInfo {
            name: crate::change::Namespace::new("shop", "orders"),
            uuid: Uuid::new(),
            unique_fields: vec!["sku".into(), "a.b".into(), "a.c".into()],
            collated: false,
        };
        let document = stand_in(&key, &collection);
        assert_eq!(document.get_i32("_id").unwrap(), 1);
        assert!(document.get("sku").unwrap().is_some());
        let nested = document.get_document("a").unwrap();
        assert!(nested.get("b").unwrap().is_some());
    }
}
