//! What a cutover asks of a cluster: to refuse writes, and to leave a mark in its oplog all the same.

use bson::{Timestamp, doc};

use crate::cluster::Cluster;
use crate::error::{Error, Result};

/// What somebody types into mongosh to have a cluster take writes again.
pub const UNBLOCK: &str = "db.adminCommand({ setUserWriteBlockMode: 1, global: false })";

/// Makes the cluster refuse every write of a user, tandem's own ones too. Server manual:
/// `setUserWriteBlockMode`.
///
/// # Errors
/// As the cluster says; one without a retry where it is not allowed.
pub async fn block(cluster: &Cluster) -> Result<()> {
    set_block(cluster, true).await
}

/// # Errors
/// As the cluster says.
pub async fn unblock(cluster: &Cluster) -> Result<()> {
    set_block(cluster, false).await
}

async fn set_block(cluster: &Cluster, blocks: bool) -> Result<()> {
    let verb = if blocks { "block" } else { "allow" };
    let doing = format!("{verb} writes on {}", cluster.name);
    let command = doc! { "setUserWriteBlockMode": 1, "global": blocks };
    cluster.command("admin", command, &doing).await.map(|_| ())
}

/// Writes a note into the oplog, which even a cluster that refuses writes takes, and gives its time:
/// everything that was acknowledged before is not later. Server manual: `appendOplogNote`.
///
/// # Errors
/// As the cluster says; without the privilege, the time is given all the same.
pub async fn note(cluster: &Cluster, link: &str) -> Result<Timestamp> {
    let doing = format!("write a note into the oplog of {}", cluster.name);
    let command = doc! { "appendOplogNote": 1, "data": { "tandem": link } };
    let reply = match cluster.command("admin", command, &doing).await {
        Err(error) if !error.is_retryable() => {
            tracing::debug!(%error, "waiting for the cluster to write by itself");
            cluster
                .command("admin", doc! { "hello": 1 }, &doing)
                .await?
        }
        outcome => outcome?,
    };
    reply
        .get_timestamp("operationTime")
        .map_err(|_| Error::bug(format!("{} does not tell its time", cluster.name)))
}
