//! The local copy of a lane's checkpoint, which the store gets now and then.

use std::time::Duration;

use tokio::time::Instant;

use super::lane_state::LaneState;
use super::shared::Shared;
use crate::error::Result;
use crate::store::StoredCheckpoint;

/// With each of many small batches it would take the store's threads as long as all the rest of
/// them. What an abrupt stop loses of it the clusters know.
const INTERVAL: Duration = Duration::from_millis(250);

/// What the store has not got yet.
pub(super) struct Saving {
    saved_at: Instant,
    newest: Option<StoredCheckpoint>,
}

impl Saving {
    pub fn nothing() -> Self {
        Self {
            saved_at: Instant::now(),
            newest: None,
        }
    }

    /// Takes the place of what was put before.
    pub fn put(&mut self, checkpoint: StoredCheckpoint) {
        self.newest = Some(checkpoint);
    }

    /// What is to be saved by now.
    fn take_due(&mut self) -> Option<StoredCheckpoint> {
        match self.saved_at.elapsed() >= INTERVAL {
            true => self.take(),
            false => None,
        }
    }

    fn take(&mut self) -> Option<StoredCheckpoint> {
        let newest = self.newest.take()?;
        self.saved_at = Instant::now();
        Some(newest)
    }
}

impl LaneState {
    /// Saves the lane's checkpoint where the last time is long enough ago.
    pub(super) fn save_in_time(&mut self, shared: &Shared) -> Result<()> {
        let due = self.saving.take_due();
        due.map_or(Ok(()), |due| shared.save_checkpoint(&due))
    }

    /// Saves it at the end of the lane.
    pub(super) fn save_last(&mut self, shared: &Shared) -> Result<()> {
        let last = self.saving.take();
        last.map_or(Ok(()), |last| shared.save_checkpoint(&last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{AppliedThrough, PipelineId, Position};
    use bson::Timestamp;

    fn checkpoint(seq: i64) -> StoredCheckpoint {
        let time = Timestamp {
            time: 1,
            increment: 1,
        };
        StoredCheckpoint {
            pipeline: PipelineId::AToB,
            lane: 0,
            lanes: 1,
            epoch: 1,
            seq,
            applied: AppliedThrough(Position::of_event(time, "82")),
            written_until: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_checkpoints_the_newest_is_due_once_an_interval() {
        let mut saving = Saving::nothing();
        for seq in 1..=3 {
            saving.put(checkpoint(seq));
            assert_eq!(saving.take_due(), None);
        }
        tokio::time::advance(INTERVAL).await;
        assert_eq!(saving.take_due(), Some(checkpoint(3)));
        assert_eq!(saving.take(), None);
        saving.put(checkpoint(4));
        assert_eq!(saving.take_due(), None);
        assert_eq!(saving.take(), Some(checkpoint(4)));
    }
}
