//! What the server leaves out of a stream since the filters of the link say so. Pure.
//!
//! Whatever cannot be told of an event alone passes, and is left out when it is read.

mod query;

use std::collections::BTreeMap;

use bson::{RawArrayBuf, RawDocumentBuf, Uuid, rawdoc};

use crate::change::{Deletes, Filter, Filters, Namespace, expression_of, fixed_database};

/// Collections whose inserts the server judges, and filters whose deletes it drops: the server goes
/// through them for each event, and they must not make the command too large.
const CONDITIONS_MAX: usize = 100;

/// A collection whose values are compared by the simple collation, as a stream compares them. That
/// stays so for its UUID.
#[derive(Debug, Clone)]
pub struct SimpleCollection {
    /// What its cluster calls it now.
    pub name: Namespace,
    pub uuid: Uuid,
}

/// What passes, as conditions that all have to hold.
#[derive(Debug, Clone, Default)]
pub struct LeftOut {
    conditions: Vec<RawDocumentBuf>,
}

impl LeftOut {
    /// By filters of the cluster's own names. Of other collections only deletes are left out.
    pub fn of(filters: &Filters, collections: &[SimpleCollection]) -> Self {
        let mut conditions = Vec::new();
        let numbered = || filters.iter().enumerate();
        let deletes = numbered().filter_map(|(number, filter)| deletes(filters, number, filter));
        conditions.extend(deletes.take(CONDITIONS_MAX));
        let mut room = CONDITIONS_MAX;
        for (number, filter) in numbered() {
            let of_filter = collections
                .iter()
                .filter(|one| filters.number_of(&one.name) == Some(number));
            conditions.extend(inserts(filter, of_filter, &mut room));
        }
        Self { conditions }
    }

    pub fn is_nothing(&self) -> bool {
        self.conditions.is_empty()
    }

    /// For `$and`.
    pub(super) fn conditions(&self) -> RawArrayBuf {
        let mut all = RawArrayBuf::new();
        for condition in &self.conditions {
            all.push(condition.clone());
        }
        all
    }
}

/// Whatever but the deletes that a filter ignores. None where it ignores none, and where its pattern
/// is not a name or a whole database, or another filter comes first for some of it.
fn deletes(filters: &Filters, number: usize, filter: &Filter) -> Option<RawDocumentBuf> {
    let typed = filter.namespace();
    let is_open = filters.are_renamed() || expression_of(typed).is_some();
    if filter.deletes == Deletes::Replicated || is_open {
        return None;
    }
    let (database, elsewhere) = match typed.strip_suffix(".*") {
        Some(database) if !database.contains(['.', '*']) => {
            let others = named_before(filters, number, database)?;
            (database, rawdoc! { "$in": others })
        }
        _ => {
            let name = name_of(filter).filter(|name| filters.number_of(name) == Some(number))?;
            (
                typed.split('.').next()?,
                rawdoc! { "$ne": name.collection() },
            )
        }
    };
    Some(any_of([
        rawdoc! { "operationType": { "$ne": "delete" } },
        rawdoc! { "ns.db": { "$ne": database } },
        rawdoc! { "ns.coll": elsewhere },
    ]))
}

/// The collections of a database whose deletes are replicated by filters that come first; none where
/// these are not all names.
fn named_before(filters: &Filters, number: usize, database: &str) -> Option<RawArrayBuf> {
    let mut named = RawArrayBuf::new();
    for earlier in filters.iter().take(number) {
        let of = fixed_database(earlier.namespace());
        if earlier.deletes == Deletes::Ignored || of.is_some_and(|of| of != database) {
            continue;
        }
        named.push(name_of(earlier)?.collection());
    }
    Some(named)
}

/// The one collection that a filter is about.
fn name_of(filter: &Filter) -> Option<Namespace> {
    let typed = filter.namespace();
    let is_name = !typed.contains('*') && expression_of(typed).is_none();
    Namespace::parse(typed).filter(|_| is_name)
}

/// Whatever but inserts of documents that a filter leaves out, one condition for each database. An
/// update, a replacement or a delete may take a document out of the filter, so it always passes; an
/// insert was preceded by one of these, or by nothing.
fn inserts<'a>(
    filter: &Filter,
    collections: impl Iterator<Item = &'a SimpleCollection>,
    room: &mut usize,
) -> Vec<RawDocumentBuf> {
    let query = filter.selection.filter.as_deref();
    let Some(query) = query.and_then(query::of_insert) else {
        return Vec::new();
    };
    let mut databases: BTreeMap<&str, (RawArrayBuf, RawArrayBuf)> = BTreeMap::new();
    for one in collections.take(*room) {
        let (names, uuids) = databases.entry(one.name.database()).or_default();
        names.push(one.name.collection());
        uuids.push(bson::Binary::from(one.uuid));
        *room -= 1;
    }
    let condition = |(database, (names, uuids)): (&str, (RawArrayBuf, RawArrayBuf))| {
        any_of([
            rawdoc! { "operationType": { "$ne": "insert" } },
            rawdoc! { "ns.db": { "$ne": database } },
            // By name, since a renamed collection has another filter, and by UUID, since a new one
            // of the same name may have another collation.
            rawdoc! { "ns.coll": { "$nin": names } },
            rawdoc! { "collectionUUID": { "$nin": uuids } },
            query.clone(),
        ])
    };
    databases.into_iter().map(condition).collect()
}

fn any_of<const N: usize>(conditions: [RawDocumentBuf; N]) -> RawDocumentBuf {
    let mut any = RawArrayBuf::new();
    for condition in conditions {
        any.push(condition);
    }
    rawdoc! { "$or": any }
}

#[cfg(test)]
mod tests;
