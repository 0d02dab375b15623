//! The part of the server's query and expression language that tandem uses; anything else panics.

use std::cmp::Ordering;

use bson::{Bson, DateTime, Document};

/// Whether a document meets a filter at the server's present time.
pub fn matches(document: &Document, filter: &Document, now: DateTime) -> bool {
    filter.iter().all(|(name, wanted)| match name.as_str() {
        "$or" => list(wanted)
            .iter()
            .any(|one| matches(document, sub(one), now)),
        "$expr" => expression(wanted, document, now).as_bool() == Some(true),
        path => condition_holds(at(document, path), wanted),
    })
}

pub fn condition_holds(found: Option<&Bson>, wanted: &Bson) -> bool {
    match wanted {
        Bson::Document(operators) if operators.keys().any(|name| name.starts_with('$')) => {
            operators
                .iter()
                .all(|(operator, value)| meets(found, operator, value))
        }
        value => found == Some(value),
    }
}

fn meets(found: Option<&Bson>, operator: &str, value: &Bson) -> bool {
    let ordered = |wanted: &[Ordering]| {
        found
            .and_then(|found| compare(found, value))
            .is_some_and(|order| wanted.contains(&order))
    };
    match operator {
        "$eq" => found == Some(value),
        "$ne" => found != Some(value),
        "$in" => list(value).iter().any(|one| found == Some(one)),
        "$nin" => !list(value).iter().any(|one| found == Some(one)),
        "$exists" => found.is_some() == value.as_bool().expect("$exists takes a bool"),
        "$lt" => ordered(&[Ordering::Less]),
        "$gte" => ordered(&[Ordering::Greater, Ordering::Equal]),
        "$lte" => ordered(&[Ordering::Less, Ordering::Equal]),
        other => panic!("the simulation knows no query operator {other}"),
    }
}

pub fn compare(one: &Bson, other: &Bson) -> Option<Ordering> {
    match (one, other) {
        (Bson::Timestamp(one), Bson::Timestamp(other)) => Some(one.cmp(other)),
        (Bson::DateTime(one), Bson::DateTime(other)) => Some(one.cmp(other)),
        (Bson::Int64(one), Bson::Int64(other)) => Some(one.cmp(other)),
        (Bson::Int32(one), Bson::Int32(other)) => Some(one.cmp(other)),
        (Bson::String(one), Bson::String(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

/// The value under a dotted path through documents.
pub fn at<'a>(document: &'a Document, path: &str) -> Option<&'a Bson> {
    match path.split_once('.') {
        None => document.get(path),
        Some((first, rest)) => at(document.get(first)?.as_document()?, rest),
    }
}

/// An aggregation expression as tandem's lease uses it.
pub fn expression(value: &Bson, document: &Document, now: DateTime) -> Bson {
    match value {
        Bson::String(name) if name == "$$NOW" => Bson::DateTime(now),
        Bson::String(path) if path.starts_with('$') => {
            at(document, &path[1..]).cloned().unwrap_or(Bson::Null)
        }
        Bson::Document(fields) => match fields.iter().next() {
            Some((name, value)) if name.starts_with('$') => operator(name, value, document, now),
            _ => {
                let each = fields.iter();
                let each = each.map(|(name, one)| (name.clone(), expression(one, document, now)));
                Bson::Document(each.collect())
            }
        },
        constant => constant.clone(),
    }
}

fn operator(name: &str, value: &Bson, document: &Document, now: DateTime) -> Bson {
    let arguments = || -> Vec<Bson> {
        let each = list(value).iter();
        each.map(|one| expression(one, document, now)).collect()
    };
    match name {
        "$literal" => value.clone(),
        "$lt" => match arguments().as_slice() {
            // A missing field sorts before everything.
            [Bson::Null, _] => Bson::Boolean(true),
            [one, other] => Bson::Boolean(compare(one, other) == Some(Ordering::Less)),
            other => panic!("$lt of {other:?}"),
        },
        "$add" => match arguments().as_slice() {
            [Bson::DateTime(time), Bson::Int64(ms)] => {
                Bson::DateTime(DateTime::from_millis(time.timestamp_millis() + ms))
            }
            other => panic!("$add of {other:?}"),
        },
        other => panic!("the simulation knows no expression {other}"),
    }
}

/// A document under a name. The getters of bson make up an error for each name that is not there.
pub fn part<'a>(document: &'a Document, name: &str) -> Option<&'a Document> {
    document.get(name)?.as_document()
}

/// Whether a field says so; one that is missing does not.
pub fn says(document: &Document, name: &str) -> bool {
    document.get(name).and_then(Bson::as_bool) == Some(true)
}

pub fn list(value: &Bson) -> &[Bson] {
    value.as_array().expect("a list").as_slice()
}

pub fn sub(value: &Bson) -> &Document {
    value.as_document().expect("a document")
}
