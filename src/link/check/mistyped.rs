//! Patterns of `namespaces.include` that name nothing, with the nearest names that are there.

use std::collections::BTreeMap;

use super::collections::Shape;
use super::{CheckLine, Verdict};
use crate::change::{Namespace, Pair, fixed_database, pattern_matches};
use crate::cluster::Cluster;
use crate::config::{Config, suggestion};
use crate::link::initial_sync::survey::everything;

/// One line for each pattern that no collection of either side is about.
pub(super) async fn check(
    config: &Config,
    a: &Cluster,
    shapes: &Pair<&BTreeMap<Namespace, Shape>>,
    lines: &mut Vec<CheckLine>,
) {
    let there = || shapes.a.keys().chain(shapes.b.keys());
    let is_idle = |pattern: &&String| !there().any(|name| pattern_matches(pattern, name.as_str()));
    let idle: Vec<&String> = config.namespaces.include().iter().filter(is_idle).collect();
    if idle.is_empty() {
        return;
    }
    let names = names_on(config, a).await;
    // That nothing at all is included is told for each side already.
    let is_told = there().next().is_none();
    for pattern in idle {
        let near = suggestion(
            pattern,
            candidates(pattern, &names).iter().map(String::as_str),
        );
        if near.is_empty() && is_told {
            continue;
        }
        let found = format!("{pattern} names no collection of either side{near}");
        lines.push(
            CheckLine::new(Verdict::Warn, "link", "namespaces.include", found)
                .hint("one that is made later is replicated from then on"),
        );
    }
}

/// Databases, and collections of those that are included; what cannot be listed suggests nothing.
async fn names_on(config: &Config, cluster: &Cluster) -> (Vec<String>, Vec<Namespace>) {
    let listed = cluster.database_names("list the databases").await;
    let collections = everything(cluster, &config.namespaces).await;
    (
        listed.unwrap_or_default(),
        collections.unwrap_or_default().into_keys().collect(),
    )
}

/// The pattern in each database of nearly its name, and each collection.
fn candidates(
    pattern: &str,
    (databases, collections): &(Vec<String>, Vec<Namespace>),
) -> Vec<String> {
    let Some(database) = fixed_database(pattern) else {
        return Vec::new();
    };
    let is_near = |name: &&String| {
        let is_own = ["admin", "config", "local"].contains(&name.as_str());
        !is_own && **name != database && !suggestion(&database, [name.as_str()]).is_empty()
    };
    let others = databases.iter().filter(is_near);
    let moved =
        others.filter_map(|name| Some(format!("{name}{}", pattern.strip_prefix(&database)?)));
    let collections = collections.iter().map(Namespace::to_string);
    moved.chain(collections).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(pattern: &str) -> String {
        let collections = ["shop.orders", "shop.log"].map(|name| Namespace::parse(name).unwrap());
        let there = (vec!["shop".into(), "local".into()], collections.to_vec());
        suggestion(
            pattern,
            candidates(pattern, &there).iter().map(String::as_str),
        )
    }

    #[test]
    fn the_nearest_name_that_is_there_is_told() {
        assert_eq!(near("shpo.*"), "; did you mean shop.*?");
        assert_eq!(near("shop.order"), "; did you mean shop.orders?");
        for far in ["bank.accounts", "/shop.o/", "locl.*"] {
            assert_eq!(near(far), "", "{far}");
        }
    }
}
