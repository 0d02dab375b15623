//! Ends what a dead process had sent and what arrives only after its link was taken over.

use std::collections::HashSet;
use std::time::Duration;

use bson::{Uuid, doc};
use tokio_util::sync::CancellationToken;

use super::own::Own;
use super::takeover::{kill_sessions, session_ids};
use crate::error::Result;
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

/// The sessions of former processes on one cluster.
pub(super) struct Former {
    pub own: Own,
    pub link: String,
    /// On record when the link was taken over.
    pub ids: HashSet<Uuid>,
    /// Of this process.
    pub epoch: i64,
}

impl Former {
    /// The first statement of a transaction can arrive after its session was ended, and opens it anew.
    /// Nobody goes on with it, but until `transactionLifetimeLimitSeconds` (60 unless set) it would hold
    /// its documents against applications and against this process.
    pub(super) async fn end_again(mut self, stop: CancellationToken) {
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
            if let Err(error) = self.end().await {
                tracing::debug!(%error, "cannot end the sessions of a former process again");
            }
        }
    }

    /// A former process may have slept right before it put its sessions on record.
    async fn end(&mut self) -> Result<()> {
        let late = doc! { "link": &self.link, "epoch": { "$lt": self.epoch } };
        let late = self.own.find("sessions", late).await?;
        self.ids.extend(session_ids(&late));
        kill_sessions(&self.own.cluster, &self.ids).await
    }
}
