//! What the account of tandem may do on one cluster.

use bson::{Document, doc};

use super::{CheckLine, Verdict, failed};
use crate::change::Side;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Result;

const REQUIREMENT: &str = "privileges";
/// On all databases: the stream is the whole cluster's.
const STREAM_ACTIONS: [&str; 2] = ["find", "changeStream"];
const READ_ACTIONS: [&str; 3] = ["find", "listCollections", "listIndexes"];
const WRITE_ACTIONS: [&str; 7] = [
    "find",
    "insert",
    "update",
    "remove",
    "createCollection",
    "listCollections",
    "bypassDocumentValidation",
];

const DDL_ACTIONS: [&str; 5] = [
    "createIndex",
    "dropIndex",
    "collMod",
    "dropCollection",
    "renameCollectionSameDB",
];

pub async fn check(config: &Config, cluster: &Cluster, lines: &mut Vec<CheckLine>) {
    let doing = format!("read the privileges on {}", cluster.name);
    let command = doc! { "connectionStatus": 1, "showPrivileges": true };
    let line = match cluster.command("admin", command, &doing).await {
        Ok(reply) => judge(config, cluster, &reply),
        Err(error) => failed(&cluster.name, REQUIREMENT, &error),
    };
    lines.push(line);
}

fn judge(config: &Config, cluster: &Cluster, reply: &Document) -> CheckLine {
    let line = |verdict, found: String| {
        CheckLine::new(verdict, &cluster.name, REQUIREMENT, found).hint(
            "grant readWriteAnyDatabase, dbAdminAnyDatabase and clusterMonitor, or as much by hand",
        )
    };
    let info = reply.get_document("authInfo").cloned().unwrap_or_default();
    if info
        .get_array("authenticatedUsers")
        .is_ok_and(Vec::is_empty)
    {
        return line(Verdict::Ok, "no user: access control is off".to_owned());
    }
    let missing = missing_in(config, cluster.side, &info);
    if missing.is_empty() {
        line(Verdict::Ok, "all granted".to_owned())
    } else {
        line(Verdict::Fail, format!("missing: {}", missing.join(", ")))
    }
}

/// What the link needs on a cluster and its account may not do there.
///
/// # Errors
/// As the cluster says.
pub async fn missing(config: &Config, cluster: &Cluster) -> Result<Vec<String>> {
    let doing = format!("read the privileges on {}", cluster.name);
    let command = doc! { "connectionStatus": 1, "showPrivileges": true };
    let reply = cluster.command("admin", command, &doing).await?;
    let info = reply.get_document("authInfo").cloned().unwrap_or_default();
    let nobody = info
        .get_array("authenticatedUsers")
        .is_ok_and(Vec::is_empty);
    Ok(match nobody {
        true => Vec::new(),
        false => missing_in(config, cluster.side, &info),
    })
}

fn missing_in(config: &Config, side: Side, info: &Document) -> Vec<String> {
    let granted: Vec<&Document> = info
        .get_array("authenticatedUserPrivileges")
        .map(|all| all.iter().filter_map(|one| one.as_document()).collect())
        .unwrap_or_default();
    needed(config, side)
        .into_iter()
        .filter(|(database, action)| !granted.iter().any(|one| grants(one, database, action)))
        .map(|(database, action)| match database.as_str() {
            "" => format!("{action} on all databases"),
            one => format!("{action} on {one}"),
        })
        .collect()
}

/// Databases, empty for all of them, and the actions needed there.
fn needed(config: &Config, side: Side) -> Vec<(String, &'static str)> {
    let mut needed: Vec<(String, &str)> = STREAM_ACTIONS
        .into_iter()
        .map(|action| (String::new(), action))
        .collect();
    let own = config.link.database.clone();
    needed.extend(WRITE_ACTIONS.map(|action| (own.clone(), action)));
    let is_written = config.link.mode.sends(side.other());
    let actions: &[&str] = if is_written {
        &WRITE_ACTIONS
    } else {
        &READ_ACTIONS
    };
    let is_changed = is_written && config.ddl.replicate;
    let ddl_actions: &[&str] = if is_changed { &DDL_ACTIONS } else { &[] };
    for pattern in config.namespaces.include() {
        let database = pattern.split('.').next().unwrap_or_default();
        let database = if database.contains('*') { "" } else { database };
        let actions = actions.iter().chain(ddl_actions);
        needed.extend(actions.map(|action| (database.to_owned(), *action)));
    }
    needed.sort();
    needed.dedup();
    needed
}

fn grants(privilege: &Document, database: &str, action: &str) -> bool {
    let has_action = privilege
        .get_array("actions")
        .is_ok_and(|actions| actions.iter().any(|one| one.as_str() == Some(action)));
    let covers = privilege.get_document("resource").is_ok_and(|resource| {
        let names_all_collections = resource.get_str("collection").is_ok_and(str::is_empty);
        let covered = resource.get_str("db").ok();
        resource.get_bool("anyResource").unwrap_or(false)
            || (names_all_collections && (covered == Some("") || covered == Some(database)))
    });
    has_action && covers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_privilege_counts_for_its_database_or_for_all() {
        let on = |db: &str, collection: &str| {
            doc! { "resource": { "db": db, "collection": collection }, "actions": ["find"] }
        };
        assert!(grants(&on("", ""), "shop", "find"));
        assert!(grants(&on("shop", ""), "shop", "find"));
        assert!(!grants(&on("shop", ""), "", "find"));
        assert!(!grants(&on("shop", "orders"), "shop", "find"));
        assert!(!grants(&on("other", ""), "shop", "find"));
        assert!(!grants(&on("", ""), "shop", "insert"));
    }
}
