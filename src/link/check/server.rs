//! What one cluster is: a replica set, its version, its history, its clock.

use std::sync::LazyLock;
use std::time::Instant;

use bson::oid::ObjectId;
use bson::{Document, doc};

use super::{CheckLine, Verdict, failed};
use crate::cluster::Cluster;
use crate::error::Result;

/// Change streams with expanded events, and `collectionUUID` in commands, begin here.
const VERSION_MAJOR_MIN: u32 = 6;
/// A day: a weekend's outage needs more, an evening's less.
const OPLOG_WINDOW_HOURS_WARN: f64 = 24.0;
/// A fifth of the default: a reader may lag by half of it before a fence is too old.
const SNAPSHOT_WINDOW_SECONDS_WARN: i64 = 60;
/// Far above `apply.transaction_time_max`.
const TRANSACTION_LIFETIME_SECONDS_WARN: i64 = 10;

/// One clock for both clusters, so that their offsets can be compared.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What is compared between the clusters.
#[derive(Debug)]
pub struct Server {
    pub replica_set_id: Option<ObjectId>,
    /// The cluster's wall clock less a clock of ours, in ms; only differences mean anything.
    pub clock_offset_ms: i64,
}

/// None where this is no replica set, so that no other requirement makes sense.
pub async fn check(cluster: &Cluster, lines: &mut Vec<CheckLine>) -> Option<Server> {
    let name = cluster.name.as_str();
    // The first call may open a connection, which would count as the clock's.
    let asked = match ask(cluster, doc! { "hello": 1 }, "look at").await {
        Ok(_) => hello(cluster).await,
        Err(error) => Err(error),
    };
    let (hello, clock_offset_ms) = match asked {
        Ok(asked) => asked,
        Err(error) => {
            lines.push(failed(name, "reachable", &error));
            return None;
        }
    };
    lines.push(CheckLine::new(Verdict::Ok, name, "reachable", "yes"));
    let (verdict, found) = match (hello.get_str("setName"), hello.get_str("msg")) {
        (Ok(set), _) => (Verdict::Ok, format!("replica set {set}")),
        (Err(_), Ok("isdbgrid")) => (Verdict::Fail, "mongos".to_owned()),
        (Err(_), _) => (Verdict::Fail, "standalone".to_owned()),
    };
    let is_replica_set = verdict == Verdict::Ok;
    lines.push(
        CheckLine::new(verdict, name, "replica set", found)
            .hint("only replica sets have the history that tandem reads"),
    );
    if !is_replica_set {
        return None;
    }
    version(cluster, lines).await;
    parameters(cluster, lines).await;
    oplog(cluster, &hello, lines).await;
    let replica_set_id = identity(cluster, lines).await;
    Some(Server {
        replica_set_id,
        clock_offset_ms,
    })
}

async fn ask(cluster: &Cluster, command: Document, what: &str) -> Result<Document> {
    let doing = format!("{what} {}", cluster.name);
    cluster.command("admin", command, &doing).await
}

async fn hello(cluster: &Cluster) -> Result<(Document, i64)> {
    let before = START.elapsed();
    let hello = ask(cluster, doc! { "hello": 1 }, "read the clock of").await?;
    let middle = (before + START.elapsed()) / 2;
    let local_ms = hello
        .get_datetime("localTime")
        .map_or(0, |time| time.timestamp_millis());
    Ok((hello, local_ms - middle.as_millis() as i64))
}

async fn version(cluster: &Cluster, lines: &mut Vec<CheckLine>) {
    const REQUIREMENT: &str = "version 6.0 or later";
    let line = match ask(cluster, doc! { "buildInfo": 1 }, "read the version of").await {
        Ok(reply) => {
            let version = reply.get_str("version").unwrap_or("unknown");
            CheckLine::new(
                at_least_minimum(version),
                &cluster.name,
                REQUIREMENT,
                version,
            )
            .hint("upgrade the cluster")
        }
        Err(error) => failed(&cluster.name, REQUIREMENT, &error),
    };
    lines.push(line);
}

fn at_least_minimum(version: &str) -> Verdict {
    let major: Option<u32> = version.split('.').next().and_then(|part| part.parse().ok());
    match major {
        Some(major) if major >= VERSION_MAJOR_MIN => Verdict::Ok,
        _ => Verdict::Fail,
    }
}

async fn parameters(cluster: &Cluster, lines: &mut Vec<CheckLine>) {
    let name = cluster.name.as_str();
    let command = doc! {
        "getParameter": 1,
        "featureCompatibilityVersion": 1,
        "minSnapshotHistoryWindowInSeconds": 1,
        "transactionLifetimeLimitSeconds": 1,
    };
    let reply = match ask(cluster, command, "read the parameters of").await {
        Ok(reply) => reply,
        Err(error) => return lines.push(failed(name, "readable parameters", &error)),
    };
    let compatible = reply
        .get_document("featureCompatibilityVersion")
        .and_then(|version| version.get_str("version"))
        .unwrap_or("unknown");
    lines.push(
        CheckLine::new(
            at_least_minimum(compatible),
            name,
            "featureCompatibilityVersion 6.0 or later",
            compatible,
        )
        .hint("setFeatureCompatibilityVersion on the cluster"),
    );
    for (parameter, least) in [
        (
            "minSnapshotHistoryWindowInSeconds",
            SNAPSHOT_WINDOW_SECONDS_WARN,
        ),
        (
            "transactionLifetimeLimitSeconds",
            TRANSACTION_LIFETIME_SECONDS_WARN,
        ),
    ] {
        let seconds = number(&reply, parameter).unwrap_or_default();
        let verdict = if seconds < least {
            Verdict::Warn
        } else {
            Verdict::Ok
        };
        let requirement = format!("{parameter} of {least} s or more");
        lines.push(
            CheckLine::new(verdict, name, &requirement, format!("{seconds} s"))
                .hint("raise it with setParameter"),
        );
    }
    let command = doc! { "serverStatus": 1, "metrics": 0, "wiredTiger": 0, "tcmalloc": 0 };
    let line = match ask(cluster, command, "read the storage engine of").await {
        Ok(status) => {
            let engine = status
                .get_document("storageEngine")
                .and_then(|engine| engine.get_str("name"))
                .unwrap_or("unknown");
            let verdict = if engine == "wiredTiger" {
                Verdict::Ok
            } else {
                Verdict::Fail
            };
            CheckLine::new(verdict, name, "storage engine wiredTiger", engine)
                .hint("only wiredTiger can read past snapshots")
        }
        Err(error) => failed(name, "storage engine wiredTiger", &error),
    };
    lines.push(line);
}

async fn oplog(cluster: &Cluster, hello: &Document, lines: &mut Vec<CheckLine>) {
    let requirement = format!("oplog window of {OPLOG_WINDOW_HOURS_WARN} h or more");
    let command = doc! {
        "find": "oplog.rs",
        "sort": { "$natural": 1 },
        "projection": { "ts": 1 },
        "limit": 1,
        "singleBatch": true,
    };
    let doing = format!("read the oplog of {}", cluster.name);
    let line = match cluster.command("local", command, &doing).await {
        Ok(reply) => {
            let first = reply
                .get_document("cursor")
                .and_then(|cursor| cursor.get_array("firstBatch"))
                .ok()
                .and_then(|batch| batch.first()?.as_document()?.get_timestamp("ts").ok());
            let last = hello
                .get_document("lastWrite")
                .and_then(|write| write.get_document("opTime"))
                .and_then(|time| time.get_timestamp("ts"))
                .ok();
            let seconds = match (first, last) {
                (Some(first), Some(last)) => last.time.saturating_sub(first.time),
                _ => 0,
            };
            let hours = f64::from(seconds) / 3600.0;
            let verdict = if hours < OPLOG_WINDOW_HOURS_WARN {
                Verdict::Warn
            } else {
                Verdict::Ok
            };
            CheckLine::new(verdict, &cluster.name, &requirement, format!("{hours:.1} h")).hint(
                "a longer outage ends in a resync: enlarge the oplog (a young cluster's still grows)",
            )
        }
        Err(error) => failed(&cluster.name, &requirement, &error),
    };
    lines.push(line);
}

async fn identity(cluster: &Cluster, lines: &mut Vec<CheckLine>) -> Option<ObjectId> {
    const REQUIREMENT: &str = "replica set id";
    let command = doc! { "replSetGetConfig": 1 };
    match ask(cluster, command, "read the replica set configuration of").await {
        Ok(reply) => {
            let id = reply
                .get_document("config")
                .and_then(|config| config.get_document("settings"))
                .and_then(|settings| settings.get_object_id("replicaSetId"))
                .ok();
            if id.is_none() {
                lines.push(CheckLine::new(
                    Verdict::Fail,
                    &cluster.name,
                    REQUIREMENT,
                    "none",
                ));
            }
            id
        }
        Err(error) => {
            lines.push(failed(&cluster.name, REQUIREMENT, &error));
            None
        }
    }
}

/// A whole number, in whichever type the server sends it.
fn number(reply: &Document, name: &str) -> Option<i64> {
    let value = reply.get(name)?;
    value
        .as_i64()
        .or_else(|| value.as_i32().map(i64::from))
        .or_else(|| value.as_f64().map(|number| number as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_before_six_are_refused() {
        for (version, expected) in [
            ("6.0.5", Verdict::Ok),
            ("6.0", Verdict::Ok),
            ("10.1.0-rc1", Verdict::Ok),
            ("5.3.9", Verdict::Fail),
            ("unknown", Verdict::Fail),
        ] {
            assert_eq!(at_least_minimum(version), expected, "{version}");
        }
    }
}
