//! A query of documents, asked of the events of their inserts. Pure.

use bson::raw::CString;
use bson::{RawArray, RawBsonRef, RawDocument, RawDocumentBuf};

/// Larger ones would make the command of the stream too large, all together.
const QUERY_BYTES_MAX: usize = 16 * 1024;

/// Documents and arrays within each other. The server allows a hundred, and some are added.
const DEPTH_MAX: usize = 40;

/// Operators that look at nothing but the value they stand at, wherever that is.
const OPERATORS: [&str; 18] = [
    "$eq",
    "$ne",
    "$gt",
    "$gte",
    "$lt",
    "$lte",
    "$in",
    "$nin",
    "$exists",
    "$type",
    "$size",
    "$mod",
    "$regex",
    "$options",
    "$bitsAllSet",
    "$bitsAllClear",
    "$bitsAnySet",
    "$bitsAnyClear",
];

const LOGIC: [&str; 3] = ["$and", "$or", "$nor"];

/// The same query of an insert's `fullDocument`. None where it may mean something else there, or
/// nobody has looked whether it does.
pub fn of_insert(query: &RawDocument) -> Option<RawDocumentBuf> {
    let fits = query.as_bytes().len() <= QUERY_BYTES_MAX;
    if !fits || !is_flat(RawBsonRef::Document(query), DEPTH_MAX) {
        return None;
    }
    within_event(query)
}

fn within_event(query: &RawDocument) -> Option<RawDocumentBuf> {
    let mut moved = RawDocumentBuf::new();
    for element in query {
        let (name, value) = element.ok()?;
        match value {
            RawBsonRef::Array(parts) if LOGIC.contains(&name.as_str()) => {
                let mut all = bson::RawArrayBuf::new();
                for part in parts {
                    all.push(within_event(part.ok()?.as_document()?)?);
                }
                moved.append(name, all);
            }
            value if is_path(name.as_str()) && is_known_test(value) => {
                let path = format!("fullDocument.{}", name.as_str());
                moved.append(CString::try_from(path).ok()?, value);
            }
            _ => return None,
        }
    }
    Some(moved)
}

/// A field by its names, without a sign that means something to a server.
fn is_path(name: &str) -> bool {
    let mut parts = name.split('.');
    parts.all(|part| !part.is_empty() && !part.starts_with('$'))
        && name.split('.').count() < DEPTH_MAX
}

/// What stands at a field, or in `$all`: a value, or operators.
fn is_known_test(value: RawBsonRef<'_>) -> bool {
    match value {
        RawBsonRef::Document(inner) if begins_with_operator(inner) => are_known_operators(inner),
        _ => true,
    }
}

fn are_known_operators(operators: &RawDocument) -> bool {
    let mut each = operators.into_iter();
    each.all(|element| match element {
        Ok((name, value)) => is_known_operator(name.as_str(), value),
        Err(_) => false,
    })
}

fn is_known_operator(name: &str, value: RawBsonRef<'_>) -> bool {
    match (name, value) {
        ("$not", RawBsonRef::Document(inner)) => are_known_operators(inner),
        ("$not", RawBsonRef::RegularExpression(_)) => true,
        ("$elemMatch", RawBsonRef::Document(inner)) => is_known_of_element(inner),
        ("$all", RawBsonRef::Array(items)) => each_of(items, is_known_test),
        (name, _) => OPERATORS.contains(&name),
    }
}

/// Operators about an element of an array, or a query of its fields. Neither names a field from the
/// document's beginning, so both stay as they are.
fn is_known_of_element(inner: &RawDocument) -> bool {
    let mut each = inner.into_iter();
    each.all(|element| match element {
        Ok((name, RawBsonRef::Array(parts))) if LOGIC.contains(&name.as_str()) => {
            each_of(parts, |part| {
                part.as_document().is_some_and(is_known_of_element)
            })
        }
        Ok((name, value)) if name.as_str().starts_with('$') => {
            is_known_operator(name.as_str(), value)
        }
        Ok((name, value)) => is_path(name.as_str()) && is_known_test(value),
        Err(_) => false,
    })
}

fn each_of(items: &RawArray, holds: impl Fn(RawBsonRef<'_>) -> bool) -> bool {
    let mut items = items.into_iter();
    items.all(|item| item.is_ok_and(&holds))
}

fn begins_with_operator(inner: &RawDocument) -> bool {
    let first = inner.into_iter().next();
    matches!(first, Some(Ok((name, _))) if name.as_str().starts_with('$'))
}

fn is_flat(value: RawBsonRef<'_>, depth: usize) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    match value {
        RawBsonRef::Document(inner) => {
            let mut each = inner.into_iter();
            each.all(|element| element.is_ok_and(|(_, value)| is_flat(value, depth)))
        }
        RawBsonRef::Array(items) => each_of(items, |item| is_flat(item, depth)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    #[test]
    fn paths_lead_into_the_event_and_values_stay() {
        for (query, expected) in [
            (
                rawdoc! { "region": "EU", "a.0.b": { "$gte": 1, "$lt": 2 } },
                rawdoc! { "fullDocument.region": "EU", "fullDocument.a.0.b": { "$gte": 1, "$lt": 2 } },
            ),
            (
                rawdoc! { "$or": [{ "a": 1 }, { "$nor": [{ "b": { "c": 1, "$d": 2 } }] }], "e": {} },
                rawdoc! {
                    "$or": [
                        { "fullDocument.a": 1 },
                        { "$nor": [{ "fullDocument.b": { "c": 1, "$d": 2 } }] },
                    ],
                    "fullDocument.e": {},
                },
            ),
            (
                rawdoc! { "a": { "$elemMatch": { "$or": [{ "b": 1 }, { "c": { "$gt": 1 } }] } } },
                rawdoc! { "fullDocument.a": { "$elemMatch": { "$or": [{ "b": 1 }, { "c": { "$gt": 1 } }] } } },
            ),
            (
                rawdoc! { "a": { "$all": [{ "$elemMatch": { "$in": [1] } }], "$not": { "$size": 2 } } },
                rawdoc! { "fullDocument.a": { "$all": [{ "$elemMatch": { "$in": [1] } }], "$not": { "$size": 2 } } },
            ),
        ] {
            assert_eq!(of_insert(&query), Some(expected), "{query:?}");
        }
    }

    #[test]
    fn what_may_mean_something_else_in_an_event_is_not_asked_there() {
        for query in [
            rawdoc! { "$expr": { "$gt": ["$a", 1] } },
            rawdoc! { "a": 1, "$jsonSchema": {} },
            rawdoc! { "a": 1, "$comment": "why" },
            rawdoc! { "$and": [{ "a": 1 }, { "$expr": true }] },
            rawdoc! { "$and": 1 },
            rawdoc! { "$or": [1] },
            rawdoc! { "a": { "$geoWithin": {} } },
            rawdoc! { "a": { "$gt": 1, "$near": [0, 0] } },
            rawdoc! { "a": { "$not": { "$geoWithin": {} } } },
            rawdoc! { "a": { "$not": 1 } },
            rawdoc! { "a": { "$elemMatch": { "b": 1, "$where": "1" } } },
            rawdoc! { "a": { "$elemMatch": { "$or": [{ "b": { "$near": 1 } }] } } },
            rawdoc! { "a": { "$elemMatch": 1 } },
            rawdoc! { "a": { "$all": [{ "$elemMatch": { "$geoWithin": {} } }] } },
            rawdoc! { "a": { "$ref": "c", "$id": 1 } },
            rawdoc! { "a.$id": 1 },
            rawdoc! { "": 1 },
            rawdoc! { "a..b": 1 },
            rawdoc! { ".a": 1 },
            rawdoc! { "a": "x".repeat(QUERY_BYTES_MAX) },
        ] {
            assert_eq!(of_insert(&query), None, "{query:?}");
        }
        let mut deep = rawdoc! { "a": 1 };
        for _ in 0..DEPTH_MAX {
            deep = rawdoc! { "$and": [deep] };
        }
        assert_eq!(of_insert(&deep), None);
        let mut long = RawDocumentBuf::new();
        long.append(CString::try_from(["a"; 60].join(".")).unwrap(), 1);
        assert_eq!(of_insert(&long), None);
    }
}
