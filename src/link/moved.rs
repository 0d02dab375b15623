//! Collections that are read by their UUIDs while anybody may rename or drop them.

use crate::change::Namespace;
use crate::cluster::{Cluster, errors};
use crate::error::{Error, Result};
use crate::pipeline::name_of;
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
