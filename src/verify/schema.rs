//! What is compared with what: the collections of both sides, their options and indexes.

use std::collections::BTreeSet;

use bson::{Bson, Document};
use serde::Serialize;

use crate::change::{Namespace, Pair, Selection, Side, pattern_matches};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Result;
use crate::link::check::collections::{Shape, shapes};
use crate::link::merge::no_such_namespace;
use crate::ranges::{Order, Scanned};

/// A difference that is not in the documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaDifference {
    pub namespace: String,
    /// Such as `collection`, `option validator`, `index x_1`.
    pub subject: String,
    /// Such as `missing on b`.
    pub found: String,
}

/// A namespace whose documents nobody can compare, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotCompared {
    pub namespace: String,
    pub reason: String,
}

/// One namespace with the collections under it.
#[derive(Debug, Clone)]
pub struct Compared {
    /// Its name on a.
    pub namespace: Namespace,
    /// None where the collection is missing.
    pub sides: Pair<Option<Scanned>>,
    /// Both sides have the same collation, so ranges of one are ranges of the other.
    pub same_order: bool,
}

/// Everything that a comparison is about.
#[derive(Debug, Default)]
pub struct Plan {
    pub compared: Vec<Compared>,
    pub schema: Vec<SchemaDifference>,
    pub not_compared: Vec<NotCompared>,
}

/// Lists both clusters' included namespaces that match one of `patterns`, or all where there is none.
///
/// # Errors
/// A usage error (2) where a pattern names no included collection: nothing would be compared, and
/// nothing differ. As the clusters say.
pub async fn plan(config: &Config, clusters: &Pair<Cluster>, patterns: &[String]) -> Result<Plan> {
    let (in_a, in_b) = tokio::try_join!(shapes(config, &clusters.a), shapes(config, &clusters.b))?;
    let named = |namespace: &&Namespace| {
        let name = namespace.as_str();
        patterns.is_empty()
            || patterns
                .iter()
                .any(|pattern| pattern_matches(pattern, name))
    };
    let all = || in_a.keys().chain(in_b.keys()).map(Namespace::as_str);
    for pattern in patterns {
        if !all().any(|name| pattern_matches(pattern, name)) {
            return Err(no_such_namespace(pattern, all()));
        }
    }
    let namespaces: BTreeSet<&Namespace> = in_a.keys().chain(in_b.keys()).filter(named).collect();
    let mut plan = Plan::default();
    for namespace in namespaces {
        let shapes = Pair::new(in_a.get(namespace), in_b.get(namespace));
        plan.add(namespace, shapes, &config.filters.selection(namespace));
    }
    Ok(plan)
}

impl Plan {
    fn add(&mut self, namespace: &Namespace, shapes: Pair<Option<&Shape>>, selection: &Selection) {
        for (subject, found) in differing(shapes) {
            self.schema.push(SchemaDifference {
                namespace: namespace.to_string(),
                subject,
                found,
            });
        }
        let kinds = shapes.map(|shape| shape.map(|shape| shape.kind.as_str()));
        for kind in [kinds.a, kinds.b].into_iter().flatten() {
            match kind {
                "collection" => {}
                "view" => return,
                other => {
                    self.not_compared.push(NotCompared {
                        namespace: namespace.to_string(),
                        reason: format!("documents of a {other} collection are not compared"),
                    });
                    return;
                }
            }
        }
        let collation = |shape: Option<&Shape>| {
            shape.map(|shape| shape.options.get_document("collation").ok().cloned())
        };
        self.compared.push(Compared {
            namespace: namespace.clone(),
            sides: shapes.map(|shape| scanned(shape?, selection)),
            same_order: match (collation(shapes.a), collation(shapes.b)) {
                (Some(a), Some(b)) => a == b,
                (None, _) | (_, None) => true,
            },
        });
    }
}

/// A capped collection has an index of `_id` too, and both sides may differ in natural order.
fn scanned(shape: &Shape, selection: &Selection) -> Option<Scanned> {
    Some(Scanned {
        selection: selection.clone(),
        namespace: shape.name.clone(),
        uuid: shape.uuid?,
        order: Order::ById,
    })
}

fn differing(shapes: Pair<Option<&Shape>>) -> Vec<(String, String)> {
    let (a, b) = match (shapes.a, shapes.b) {
        (Some(a), Some(b)) => (a, b),
        (None, _) => return vec![("collection".to_owned(), missing_on(Side::A))],
        (_, None) => return vec![("collection".to_owned(), missing_on(Side::B))],
    };
    if a.kind != b.kind {
        return vec![(
            "collection".to_owned(),
            format!("{} on a, {} on b", a.kind, b.kind),
        )];
    }
    let mut found = Vec::new();
    let options: BTreeSet<&String> = a.options.keys().chain(b.options.keys()).collect();
    for name in options {
        let pair = Pair::new(a.options.get(name), b.options.get(name));
        found.extend(compared(format!("option {name}"), pair));
    }
    let whole = |index: Option<&Document>| index.cloned().map(Bson::Document);
    let indexes: BTreeSet<&String> = a.indexes.keys().chain(b.indexes.keys()).collect();
    for name in indexes {
        let (a, b) = (whole(a.indexes.get(name)), whole(b.indexes.get(name)));
        let pair = Pair::new(a.as_ref(), b.as_ref());
        found.extend(compared(format!("index {name}"), pair));
    }
    found
}

fn compared(subject: String, pair: Pair<Option<&Bson>>) -> Option<(String, String)> {
    let found = match (pair.a, pair.b) {
        (Some(a), Some(b)) if says_the_same(a, b, FieldOrder::Free) => return None,
        (None, None) => return None,
        (Some(_), Some(_)) => "different".to_owned(),
        (None, Some(_)) => missing_on(Side::A),
        (Some(_), None) => missing_on(Side::B),
    };
    Some((subject, found))
}

fn missing_on(side: Side) -> String {
    format!("missing on {}", side.as_str())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FieldOrder {
    /// Of the options of an index or a collection.
    Free,
    /// Of whatever stands in them: the fields of an index key, a validator, a view's pipeline.
    Fixed,
}

/// Whether two options mean the same: the type of a number does not matter, as in `{ x: 1 }`.
fn says_the_same(a: &Bson, b: &Bson, order: FieldOrder) -> bool {
    let number = |value: &Bson| match value {
        Bson::Int32(value) => Some(f64::from(*value)),
        Bson::Int64(value) => Some(*value as f64),
        Bson::Double(value) => Some(*value),
        _ => None,
    };
    match (a, b) {
        (Bson::Document(a), Bson::Document(b)) => {
            let ordered = order == FieldOrder::Free || a.keys().eq(b.keys());
            let same = |(name, a): (&String, &Bson)| {
                b.get(name)
                    .is_some_and(|b| says_the_same(a, b, FieldOrder::Fixed))
            };
            ordered && a.len() == b.len() && a.iter().all(same)
        }
        (Bson::Array(a), Bson::Array(b)) => {
            let mut pairs = a.iter().zip(b);
            a.len() == b.len() && pairs.all(|(a, b)| says_the_same(a, b, FieldOrder::Fixed))
        }
        _ => match (number(a), number(b)) {
            (Some(a), Some(b)) => a == b,
            _ => a == b,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;
    use std::collections::BTreeMap;

    fn shape(options: Document, key: Document) -> Shape {
        let index = doc! { "name": "x_1", "key": key };
        Shape {
            name: Namespace::new("shop", "orders"),
            kind: "collection".to_owned(),
            options,
            indexes: BTreeMap::from([("x_1".to_owned(), index)]),
            uuid: None,
        }
    }

    #[test]
    fn options_and_indexes_that_differ_are_named_with_the_side_they_are_missing_on() {
        let a = shape(doc! { "validator": { "x": 1 } }, doc! { "x": 1 });
        let mut b = shape(doc! {}, doc! { "x": -1 });
        b.indexes
            .insert("y_1".to_owned(), doc! { "key": { "y": 1 } });
        let found = differing(Pair::new(Some(&a), Some(&b)));
        let found: Vec<_> = found
            .iter()
            .map(|(s, f)| (s.as_str(), f.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("option validator", "missing on b"),
                ("index x_1", "different"),
                ("index y_1", "missing on a")
            ]
        );
        let found = differing(Pair::new(Some(&a), None));
        assert_eq!(
            found,
            [("collection".to_owned(), "missing on b".to_owned())]
        );
    }

    #[test]
    fn an_index_differs_by_the_order_of_its_fields_and_not_by_the_type_of_a_number() {
        let with = |key| shape(doc! {}, key);
        let (a, b) = (with(doc! { "x": 1, "y": 1 }), with(doc! { "y": 1, "x": 1 }));
        assert_eq!(differing(Pair::new(Some(&a), Some(&b))).len(), 1);
        let b = with(doc! { "x": 1.0, "y": 1_i64 });
        assert!(differing(Pair::new(Some(&a), Some(&b))).is_empty());
    }
}
