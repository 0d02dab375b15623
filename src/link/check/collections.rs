//! The collections of both sides: which are replicated, and where the two sides differ.

use std::collections::BTreeMap;

use bson::{Document, Uuid, doc};

use super::{CheckLine, Verdict, failed};
use crate::change::{Namespace, Pair, Side};
use crate::cluster::Cluster;
use crate::config::{Config, Mode};
use crate::ddl::{effective_options, view_options};
use crate::error::Result;
use crate::link::initial_sync::survey::included;
use crate::pipeline::{indexes_if_there, uuid_in};

/// What can differ between the two sides.
#[derive(Debug, PartialEq)]
pub(crate) struct Shape {
    /// What its cluster calls it.
    pub name: Namespace,
    pub kind: String,
    pub options: Document,
    /// By name, without what depends on the server.
    pub indexes: BTreeMap<String, Document>,
    /// None of a view.
    pub uuid: Option<Uuid>,
}

pub async fn check(config: &Config, a: &Cluster, b: &Cluster, lines: &mut Vec<CheckLine>) {
    let mut found = Vec::new();
    for cluster in [a, b] {
        match shapes(config, cluster).await {
            Ok(shapes) => {
                let count = shapes.len();
                let verdict = if count == 0 {
                    Verdict::Warn
                } else {
                    Verdict::Ok
                };
                lines.push(
                    CheckLine::new(
                        verdict,
                        &cluster.name,
                        "included collections",
                        count.to_string(),
                    )
                    .hint("none yet on this side: is namespaces.include as meant?"),
                );
                found.push(shapes);
            }
            Err(error) => lines.push(failed(&cluster.name, "included collections", &error)),
        }
        unpaired(config, cluster, lines).await;
    }
    let [of_a, of_b] = found.as_slice() else {
        return;
    };
    for (cluster, shapes) in [(a, of_a), (b, of_b)] {
        for shape in shapes.values() {
            lines.extend(limited(config, cluster, shape));
        }
    }
    let shapes = Pair::new(of_a, of_b);
    super::mistyped::check(config, a, &shapes, lines).await;
    super::names::check(config, a, &shapes, lines).await;
    for (namespace, in_a) in of_a {
        if let Some(in_b) = of_b.get(namespace) {
            lines.extend(differing(namespace, in_a, in_b));
        }
    }
}

/// All included collections and views of a cluster, by their names on a. What a view shows is named
/// as on a, too.
pub(crate) async fn shapes(
    config: &Config,
    cluster: &Cluster,
) -> Result<BTreeMap<Namespace, Shape>> {
    let mut shapes = BTreeMap::new();
    let renames = config.namespaces.renames();
    for (name, entry) in included(cluster, &config.namespaces).await? {
        let Some(namespace) = renames.on_a(cluster.side, &name) else {
            continue;
        };
        let kind = entry.get_str("type").unwrap_or_default().to_owned();
        let indexes = match kind.as_str() {
            "view" => Some(BTreeMap::new()),
            _ => indexes_if_there(cluster, &name).await?.map(by_name),
        };
        // Dropped since it was listed.
        let Some(indexes) = indexes else { continue };
        let mut options = entry.get_document("options").cloned().unwrap_or_default();
        if kind == "view" && cluster.side == Side::B {
            let names = Pair::new(namespace.clone(), name.clone());
            options = view_options(&options, Side::B, &names, renames).unwrap_or(options);
        }
        let info = entry.get_document("info").ok();
        let uuid = info.and_then(|info| uuid_in(info, "uuid"));
        let shape = Shape {
            name,
            kind,
            options,
            indexes,
            uuid,
        };
        shapes.insert(namespace, shape);
    }
    Ok(shapes)
}

fn by_name(indexes: Vec<Document>) -> BTreeMap<String, Document> {
    let named = |mut index: Document| {
        index.remove("v");
        (index.get_str("name").unwrap_or_default().to_owned(), index)
    };
    indexes.into_iter().map(named).collect()
}

/// What tandem cannot replicate as it does plain collections.
fn limited(config: &Config, cluster: &Cluster, shape: &Shape) -> Option<CheckLine> {
    let two_way = match config.link.mode {
        Mode::TwoWay => Verdict::Fail,
        Mode::OneWay { .. } => Verdict::Warn,
    };
    let subject = format!("{} on {}", shape.name, cluster.name);
    let line = |verdict, found: &str, hint: &str| {
        Some(CheckLine::new(verdict, &subject, "a plain collection", found).hint(hint))
    };
    if shape.kind == "view" && !config.ddl.replicate {
        let hint = "views are replicated with ddl.replicate only";
        line(Verdict::Warn, "a view", hint)
    } else if shape.kind == "view" {
        None
    } else if shape.kind == "timeseries" {
        line(
            two_way,
            "time series",
            "an initial sync copies it once, later changes are not replicated: exclude it",
        )
    } else if shape.options.get_bool("capped").unwrap_or(false) {
        line(
            two_way,
            "capped",
            match config.link.mode {
                Mode::TwoWay => "capped collections cannot be written in transactions: exclude it",
                Mode::OneWay { .. } => {
                    "an initial sync copies it once, later changes are not replicated: exclude it"
                }
            },
        )
    } else if shape.options.contains_key("collation") && config.link.mode == Mode::TwoWay {
        line(
            two_way,
            "a default collation",
            "only in one-way mode: exclude it",
        )
    } else {
        None
    }
}

fn differing(namespace: &Namespace, a: &Shape, b: &Shape) -> Vec<CheckLine> {
    let warn = |requirement: &str, found: String| {
        CheckLine::new(Verdict::Warn, namespace.as_str(), requirement, found)
            .hint("only changes from now on are replicated: make both sides alike")
    };
    let mut lines = Vec::new();
    let options = differing_names(
        &effective_options(&a.options),
        &effective_options(&b.options),
    );
    if a.kind != b.kind {
        lines.push(warn("same options", format!("{} and {}", a.kind, b.kind)));
    } else if !options.is_empty() {
        lines.push(warn(
            "same options",
            format!("different: {}", options.join(", ")),
        ));
    }
    let mut indexes: Vec<&str> = a
        .indexes
        .keys()
        .chain(b.indexes.keys())
        .filter(|name| a.indexes.get(*name) != b.indexes.get(*name))
        .map(String::as_str)
        .collect();
    indexes.sort_unstable();
    indexes.dedup();
    if !indexes.is_empty() {
        lines.push(warn(
            "same indexes",
            format!("different: {}", indexes.join(", ")),
        ));
    }
    lines
}

fn differing_names(a: &Document, b: &Document) -> Vec<String> {
    let mut names: Vec<String> = a
        .keys()
        .chain(b.keys())
        .filter(|name| a.get(name) != b.get(name))
        .cloned()
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Namespaces whose events tandem passes over since a drop, rename or recreation.
async fn unpaired(config: &Config, cluster: &Cluster, lines: &mut Vec<CheckLine>) {
    const REQUIREMENT: &str = "collections paired with the other side";
    let doing = format!("read the pairs of collections on {}", cluster.name);
    let command = doc! { "find": "collections", "filter": { "state": "unpaired" } };
    match cluster.all(&config.link.database, command, &doing).await {
        Ok(found) => lines.extend(found.iter().map(|pair| {
            let namespace = pair.get_str("namespace").or(pair.get_str("_id"));
            let subject = format!("{} on {}", namespace.unwrap_or("?"), cluster.name);
            CheckLine::new(Verdict::Warn, &subject, REQUIREMENT, "unpaired")
                .hint("it was dropped, renamed or recreated: its changes are passed over")
        })),
        Err(error) => lines.push(failed(&cluster.name, REQUIREMENT, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(options: Document, unique: bool) -> Shape {
        let index = doc! { "name": "x_1", "key": { "x": 1 }, "unique": unique };
        Shape {
            name: Namespace::new("shop", "orders"),
            kind: "collection".to_owned(),
            options,
            indexes: BTreeMap::from([("x_1".to_owned(), index)]),
            uuid: None,
        }
    }

    #[test]
    fn collections_that_differ_say_in_what() {
        let namespace = Namespace::new("shop", "orders");
        let a = shape(doc! {}, true);
        let b = shape(doc! { "validator": { "x": 1 } }, false);
        let found: Vec<String> = differing(&namespace, &a, &b)
            .into_iter()
            .map(|line| format!("{}: {}", line.requirement, line.found))
            .collect();
        assert_eq!(
            found,
            [
                "same options: different: validator",
                "same indexes: different: x_1"
            ]
        );
        assert!(differing(&namespace, &a, &shape(doc! {}, true)).is_empty());
    }
}
