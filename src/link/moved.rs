//! Collections that are read by their UUIDs while anybody may rename or drop them.

use bson::doc;

use crate::change::{Namespace, Pair, Side};
use crate::cluster::{Cluster, errors};
use crate::error::{Error, Result};
use crate::pipeline::{Shared, TOLD_WITHIN, name_of};
use crate::ranges::Scanned;

/// Whether what was to be read is not there under its name: see [`name_now`].
pub(super) fn has_moved(error: &Error) -> bool {
    matches!(
        errors::code_of(error),
        Some(errors::COLLECTION_UUID_MISMATCH | errors::NAMESPACE_NOT_FOUND)
    )
}

/// What the collection is called by now, which may be what it was called before; none where it is
/// gone. The reader of its cluster may not know yet.
///
/// # Errors
/// As the cluster says.
pub(super) async fn name_now(cluster: &Cluster, scanned: &Scanned) -> Result<Option<Namespace>> {
    name_of(cluster, scanned.namespace.database(), scanned.uuid).await
}

/// Returns once both readers have passed everything that is there now: the lanes decide at what the
/// readers have passed, and what no change stream tells of moves no reader on.
pub(super) async fn pass_present(shared: &Shared, clusters: &Pair<Cluster>) -> Result<()> {
    for side in Side::BOTH {
        let cluster = &clusters[side];
        let doing = format!("ask {} for its time", cluster.name);
        let reply = cluster.command("admin", doc! { "ping": 1 }, &doing).await?;
        let now = reply
            .get_timestamp("operationTime")
            .map_err(|_| Error::bug("a reply without an operation time"))?;
        shared.exchange.wait_passed(side, now).await;
    }
    Ok(())
}

/// Where an attempt to pair collections has failed, what it was about to make may be there all the
/// same, and be called otherwise soon: both readers tell of it before another attempt, unless what has
/// failed keeps them from it too.
///
/// # Errors
/// That of the attempt.
pub(super) async fn tell_first<T>(
    shared: &Shared,
    clusters: &Pair<Cluster>,
    attempt: Result<T>,
) -> Result<T> {
    if attempt.as_ref().is_err_and(Error::is_retryable) {
        let _ = tokio::time::timeout(TOLD_WITHIN, pass_present(shared, clusters)).await;
    }
    attempt
}
