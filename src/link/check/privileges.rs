//! What the account of tandem may do on one cluster, and what it needs there.

use std::fmt;

use bson::{Document, doc};

use super::{CheckLine, Verdict, failed};
use crate::change::{Side, expression_of, fixed_database};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, Result};

const REQUIREMENT: &str = "privileges";
const HINT: &str = "docs/roles has the whole list; readWriteAnyDatabase, dbAdminAnyDatabase and \
     clusterMonitor hold it too";

/// What a server says about itself.
const CLUSTER_ACTIONS: [&str; 2] = ["replSetGetConfig", "getParameter"];
/// `check` looks at more of it than a link needs to run.
const CHECK_ACTIONS: [&str; 1] = ["serverStatus"];
/// Only `cutover` asks for these, and does without where it must.
const CUTOVER_ACTIONS: [&str; 2] = ["appendOplogNote", "setUserWriteBlockMode"];
/// On all databases: the stream is the whole cluster's.
const STREAM_ACTIONS: [&str; 2] = ["find", "changeStream"];
/// Whoever may insert makes the collection, too.
const OWN_ACTIONS: [&str; 5] = [
    "find",
    "insert",
    "update",
    "remove",
    "bypassDocumentValidation",
];
const READ_ACTIONS: [&str; 4] = ["find", "listCollections", "listIndexes", "collStats"];
const WRITE_ACTIONS: [&str; 5] = [
    "insert",
    "update",
    "remove",
    "createCollection",
    "bypassDocumentValidation",
];
/// An initial sync, too, makes indexes.
const INDEX_ACTIONS: [&str; 1] = ["createIndex"];
/// These hold the right to rename, too.
const DDL_ACTIONS: [&str; 3] = ["dropIndex", "collMod", "dropCollection"];
/// Servers grant it on databases only.
const OF_DATABASES: &str = "listCollections";

/// Where an action is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Cluster,
    AllDatabases,
    Database(String),
    Collection(String, String),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Cluster => out.write_str("the cluster"),
            Place::AllDatabases => out.write_str("all databases"),
            Place::Database(database) => out.write_str(database),
            Place::Collection(database, collection) => write!(out, "{database}.{collection}"),
        }
    }
}

/// What an account lacks, as `action on place`.
#[derive(Debug, Default)]
struct Missing {
    /// Without these the link cannot run.
    needed: Vec<String>,
    for_check: Vec<String>,
    for_cutover: Vec<String>,
}

pub async fn check(config: &Config, cluster: &Cluster, lines: &mut Vec<CheckLine>) {
    let line = match granted(cluster).await {
        Ok(None) => line(cluster, Verdict::Ok, "no user: access control is off"),
        Ok(Some(granted)) => judge(cluster, &Missing::of(config, cluster.side, &granted)),
        Err(error) => failed(&cluster.name, REQUIREMENT, &error),
    };
    lines.push(line);
}

fn judge(cluster: &Cluster, missing: &Missing) -> CheckLine {
    let failing = [&missing.needed[..], &missing.for_check[..]].concat();
    if !failing.is_empty() {
        line(
            cluster,
            Verdict::Fail,
            &format!("missing: {}", failing.join(", ")),
        )
    } else if !missing.for_cutover.is_empty() {
        let found = format!("missing for a cutover: {}", missing.for_cutover.join(", "));
        line(cluster, Verdict::Warn, &found)
    } else {
        line(cluster, Verdict::Ok, "all granted")
    }
}

fn line(cluster: &Cluster, verdict: Verdict, found: &str) -> CheckLine {
    CheckLine::new(verdict, &cluster.name, REQUIREMENT, found).hint(HINT)
}

/// What the link needs on a cluster and its account may not do there.
///
/// # Errors
/// As the cluster says.
pub async fn missing(config: &Config, cluster: &Cluster) -> Result<Vec<String>> {
    let granted = granted(cluster).await?;
    let missing = granted.map(|granted| Missing::of(config, cluster.side, &granted));
    Ok(missing.unwrap_or_default().needed)
}

/// # Errors
/// A cluster error (4) that names all that is missing; as the cluster says.
pub async fn must_be_granted(config: &Config, cluster: &Cluster) -> Result<()> {
    let missing = missing(config, cluster).await?;
    if missing.is_empty() {
        return Ok(());
    }
    let (name, missing) = (&cluster.name, missing.join(", "));
    let message = format!("the account on {name} lacks privileges: {missing}");
    Err(Error::cluster(message).hint(HINT))
}

/// The privileges of the account; none where nobody has logged in.
async fn granted(cluster: &Cluster) -> Result<Option<Vec<Document>>> {
    let doing = format!("read the privileges on {}", cluster.name);
    let command = doc! { "connectionStatus": 1, "showPrivileges": true };
    let reply = cluster.command("admin", command, &doing).await?;
    let info = reply.get_document("authInfo").cloned().unwrap_or_default();
    let list = |name: &str| info.get_array(name).map_or(&[][..], |list| list);
    if list("authenticatedUsers").is_empty() {
        return Ok(None);
    }
    let privileges = list("authenticatedUserPrivileges").iter();
    let privileges = privileges.filter_map(|one| one.as_document().cloned());
    Ok(Some(privileges.collect()))
}

impl Missing {
    fn of(config: &Config, side: Side, granted: &[Document]) -> Self {
        let lacks = |(place, action): &(Place, &'static str)| {
            !granted.iter().any(|one| grants(one, place, action))
        };
        let named = |needs: Vec<(Place, &'static str)>| {
            let lacking = needs.into_iter().filter(lacks);
            lacking
                .map(|(place, action)| format!("{action} on {place}"))
                .collect()
        };
        let on_cluster = |actions: &[&'static str]| {
            let needs = actions.iter().map(|action| (Place::Cluster, *action));
            needs.collect()
        };
        Self {
            needed: named(needed(config, side)),
            for_check: named(on_cluster(&CHECK_ACTIONS)),
            for_cutover: named(on_cluster(&CUTOVER_ACTIONS)),
        }
    }
}

fn needed(config: &Config, side: Side) -> Vec<(Place, &'static str)> {
    let is_written = config.link.mode.sends(side.other());
    let mut needed = Vec::new();
    let mut add = |place: &Place, actions: &[&'static str]| {
        needed.extend(actions.iter().map(|action| (place.clone(), *action)));
    };
    add(&Place::Cluster, &CLUSTER_ACTIONS);
    add(&Place::AllDatabases, &STREAM_ACTIONS);
    let oplog = Place::Collection("local".to_owned(), "oplog.rs".to_owned());
    add(&oplog, &["find"]);
    add(&Place::Database(config.link.database.clone()), &OWN_ACTIONS);
    for pattern in config.namespaces.patterns(side) {
        let place = place_of(pattern);
        add(&place, &READ_ACTIONS);
        if is_written {
            add(&place, &WRITE_ACTIONS);
            add(&place, &INDEX_ACTIONS);
        }
        if is_written && config.ddl.replicate {
            add(&place, &DDL_ACTIONS);
        }
    }
    for (place, action) in &mut needed {
        if let (Place::Collection(database, _), OF_DATABASES) = (&*place, *action) {
            *place = Place::Database(database.clone());
        }
    }
    needed.sort();
    needed.dedup();
    needed
}

/// The smallest place that holds everything an include pattern stands for.
fn place_of(pattern: &str) -> Place {
    if expression_of(pattern).is_some() {
        return match fixed_database(pattern) {
            Some(database) => Place::Database(database),
            None => Place::AllDatabases,
        };
    }
    match pattern.split_once('.') {
        Some((database, collection)) if !database.contains('*') => match collection.contains('*') {
            true => Place::Database(database.to_owned()),
            false => Place::Collection(database.to_owned(), collection.to_owned()),
        },
        _ => Place::AllDatabases,
    }
}

fn grants(privilege: &Document, place: &Place, action: &str) -> bool {
    let is_action =
        |one: &bson::Bson| matches!(one.as_str(), Some(it) if it == action || it == "anyAction");
    let has_action = privilege
        .get_array("actions")
        .is_ok_and(|actions| actions.iter().any(is_action));
    let covers = privilege.get_document("resource").is_ok_and(|resource| {
        let is_set = |name| resource.get_bool(name).unwrap_or(false);
        is_set("anyResource")
            || match place {
                Place::Cluster => is_set("cluster"),
                Place::AllDatabases => names(resource, "", ""),
                Place::Database(database) => names(resource, database, ""),
                Place::Collection(database, collection) => names(resource, database, collection),
            }
    });
    has_action && covers
}

/// Whether a resource holds a collection, or all of a database where it is empty. Servers leave
/// `local` out of what is granted on all databases.
fn names(resource: &Document, database: &str, collection: &str) -> bool {
    let (Ok(of), Ok(one)) = (resource.get_str("db"), resource.get_str("collection")) else {
        return false;
    };
    let in_database = of == database || (of.is_empty() && database != "local");
    in_database && (one.is_empty() || one == collection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_counts_for_its_collection_its_database_or_for_all() {
        let on = |db: &str, collection: &str| {
            doc! { "resource": { "db": db, "collection": collection }, "actions": ["find"] }
        };
        let shop = Place::Database("shop".to_owned());
        let orders = Place::Collection("shop".to_owned(), "orders".to_owned());
        let oplog = Place::Collection("local".to_owned(), "oplog.rs".to_owned());
        assert!(grants(&on("", ""), &shop, "find"));
        assert!(grants(&on("shop", ""), &shop, "find"));
        assert!(!grants(&on("shop", ""), &Place::AllDatabases, "find"));
        assert!(!grants(&on("shop", "orders"), &shop, "find"));
        assert!(grants(&on("shop", "orders"), &orders, "find"));
        assert!(!grants(&on("other", ""), &shop, "find"));
        assert!(!grants(&on("", ""), &shop, "insert"));
        assert!(grants(&on("local", "oplog.rs"), &oplog, "find"));
        assert!(!grants(&on("", ""), &oplog, "find"));
        assert!(!grants(&on("", ""), &Place::Cluster, "find"));
        let all = doc! { "resource": { "anyResource": true }, "actions": ["anyAction"] };
        assert!(grants(&all, &Place::Cluster, "find"));
    }

    #[test]
    fn a_pattern_asks_for_no_more_than_it_stands_for() {
        for (pattern, place) in [
            ("shop.*", Place::Database("shop".to_owned())),
            (
                "shop.a.b",
                Place::Collection("shop".to_owned(), "a.b".to_owned()),
            ),
            ("sh*p.orders", Place::AllDatabases),
            ("*", Place::AllDatabases),
        ] {
            assert_eq!(place_of(pattern), place, "{pattern}");
        }
    }
}
