//! One transaction at a past snapshot in tandem's own database: does the server accept it?

use bson::{Document, Timestamp, doc, rawdoc};

use super::{CheckLine, Verdict, failed};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, Result};

const REQUIREMENT: &str = "transaction at a past snapshot (atClusterTime)";
const COLLECTION: &str = "markers";
const MARKER: &str = "check";

pub async fn check(config: &Config, cluster: &Cluster) -> CheckLine {
    match transact(config, cluster).await {
        Ok(()) => CheckLine::new(Verdict::Ok, &cluster.name, REQUIREMENT, "accepted"),
        Err(error) => {
            let line = failed(&cluster.name, REQUIREMENT, &error);
            line.hint("apply.fence = \"waiting\" does without, where only this is refused")
        }
    }
}

async fn transact(config: &Config, cluster: &Cluster) -> Result<()> {
    let database = config.link.database.as_str();
    let doing = format!("write a probe to {database} on {}", cluster.name);
    let marker = doc! {
        "update": COLLECTION,
        "updates": [{ "q": { "_id": MARKER }, "u": { "$inc": { "probes": 1 } }, "upsert": true }],
        "writeConcern": { "w": "majority" },
    };
    let reply = accepted(cluster.command(database, marker, &doing).await?, &doing)?;
    let snapshot: Timestamp = reply.get_timestamp("operationTime").map_err(|_| {
        Error::cluster(format!(
            "cannot {doing}: the server tells no operation time"
        ))
    })?;
    let mut session = cluster.start_session(&doing).await?;
    let remove = rawdoc! {
        "delete": COLLECTION,
        "deletes": [{ "q": { "_id": MARKER }, "limit": 1 }],
        "txnNumber": 1_i64,
        "startTransaction": true,
        "autocommit": false,
        "readConcern": { "level": "snapshot", "atClusterTime": snapshot },
    };
    let removing = session.run(database, remove);
    accepted(cluster.within(&doing, removing).await?, &doing)?;
    let commit = rawdoc! {
        "commitTransaction": 1,
        "txnNumber": 1_i64,
        "autocommit": false,
        "writeConcern": { "w": "majority" },
    };
    let committing = session.run("admin", commit);
    accepted(cluster.within(&doing, committing).await?, &doing)?;
    Ok(())
}

/// A reply says `ok: 1` and holds errors all the same.
fn accepted(reply: Document, doing: &str) -> Result<Document> {
    for inside in ["writeErrors", "writeConcernError"] {
        if reply.contains_key(inside) {
            return Err(Error::cluster(format!(
                "cannot {doing}: refused with {inside}"
            )));
        }
    }
    Ok(reply)
}
