//! Ends what a dead process had sent and what arrives only after its link was taken over.

use std::collections::HashSet;
use std::time::Duration;

use bson::Uuid;
use tokio_util::sync::CancellationToken;

use super::takeover::kill_sessions;
use crate::cluster::Cluster;
use crate::fault::Fault;

/// When after a start the sessions of former processes are ended again.
const TIMES: [Duration; 7] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
    Duration::from_secs(32),
];

/// The first statement of a transaction can arrive after its session was ended, and opens it anew.
/// Nobody goes on with it, but until `transactionLifetimeLimitSeconds` (60 unless set) it would hold
/// its documents against applications and against this process.
pub(super) async fn end_latecomers(cluster: Cluster, ids: HashSet<Uuid>, stop: CancellationToken) {
    let started = tokio::time::Instant::now();
    let times = match Fault::EndedOnce.is_on() {
        true => &[][..],
        false => &TIMES,
    };
    for time in times {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(started + *time) => {}
        }
        if let Err(error) = kill_sessions(&cluster, &ids).await {
            tracing::debug!(%error, "cannot end the sessions of a former process again");
        }
    }
}
