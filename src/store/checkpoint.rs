//! The local copy of the lanes' checkpoints, which a start compares with the clusters'.

use bson::Timestamp;
use serde::{Deserialize, Serialize};
use sled::Transactional;
use sled::transaction::ConflictableTransactionError;

use super::{Store, Totals, totals_name};
use crate::change::{AppliedThrough, Pair, PipelineId, Position};
use crate::error::Result;

/// Where one lane of one pipeline stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCheckpoint {
    pub pipeline: PipelineId,
    pub lane: usize,
    /// How many lanes the pipeline had.
    pub lanes: usize,
    pub epoch: i64,
    /// Counts the commits of this lane; orders checkpoints of one epoch.
    pub seq: i64,
    pub applied: AppliedThrough,
    /// Neither this lane nor a former process has written documents of applications on the target
    /// after this time of it; none where an older tandem has saved this.
    pub written_until: Option<Timestamp>,
}

/// The stored form: the positions have none of their own.
#[derive(Serialize, Deserialize)]
struct Stored {
    pipeline: PipelineId,
    lane: usize,
    lanes: usize,
    epoch: i64,
    seq: i64,
    ts: [u32; 2],
    token: String,
    whole: bool,
    #[serde(default)]
    written_until: Option<[u32; 2]>,
}

impl Store {
    pub fn checkpoint(
        &self,
        pipeline: PipelineId,
        lane: usize,
    ) -> Result<Option<StoredCheckpoint>> {
        let stored: Option<Stored> =
            self.read_json(&self.0.checkpoints, &checkpoint_name(pipeline, lane))?;
        Ok(stored.map(StoredCheckpoint::from))
    }

    /// All of them, by pipeline and lane.
    pub fn checkpoints(&self) -> Result<Vec<StoredCheckpoint>> {
        let mut found = Vec::new();
        for entry in &self.0.checkpoints {
            let (_, bytes) = entry.map_err(|cause| self.sled_error(cause))?;
            let stored: Stored = serde_json::from_slice(&bytes)
                .map_err(|cause| self.damaged("a checkpoint").caused_by(cause))?;
            found.push(StoredCheckpoint::from(stored));
        }
        found.sort_by_key(|checkpoint| (checkpoint.pipeline, checkpoint.lane));
        Ok(found)
    }

    /// Never moves a lane backwards: of two checkpoints the one with the greater (epoch, seq)
    /// stays, whichever is saved last; the position is not compared, since a first start may begin
    /// anywhere. Lanes that a newer epoch no longer has are dropped.
    ///
    /// What was done so far goes with it, so that no abrupt stop tells them apart.
    pub fn save_checkpoint(
        &self,
        checkpoint: &StoredCheckpoint,
        totals: &Pair<Totals>,
    ) -> Result<()> {
        let name = checkpoint_name(checkpoint.pipeline, checkpoint.lane);
        let bytes = serde_json::to_vec(&Stored::from(checkpoint)).expect("plain fields make JSON");
        let newer = (checkpoint.epoch, checkpoint.seq);
        let trees = (&self.0.checkpoints, &self.0.link);
        let update = trees.transaction(|(checkpoints, link)| {
            for pipeline in PipelineId::BOTH {
                let totals = serde_json::to_vec(&totals[pipeline.source()]);
                let totals = totals.expect("plain fields make JSON");
                link.insert(totals_name(pipeline).as_bytes(), totals)?;
            }
            let old = checkpoints.get(&name)?;
            let old = old.and_then(|old| serde_json::from_slice::<Stored>(&old).ok());
            if old.as_ref().is_none_or(|old| (old.epoch, old.seq) < newer) {
                checkpoints.insert(name.as_bytes(), bytes.as_slice())?;
            }
            Ok::<_, ConflictableTransactionError<()>>(old)
        });
        let known = update.map_err(|cause| self.transaction_error(cause))?;
        if known.is_none_or(|old| old.epoch < checkpoint.epoch) {
            self.drop_lanes_gone(checkpoint)?;
        }
        Ok(())
    }

    fn drop_lanes_gone(&self, newer: &StoredCheckpoint) -> Result<()> {
        for old in self.checkpoints()? {
            let gone = old.pipeline == newer.pipeline && old.lane >= newer.lanes;
            if gone && old.epoch < newer.epoch {
                let removed = self
                    .0
                    .checkpoints
                    .remove(checkpoint_name(old.pipeline, old.lane));
                removed.map_err(|cause| self.sled_error(cause))?;
            }
        }
        Ok(())
    }
}

fn checkpoint_name(pipeline: PipelineId, lane: usize) -> String {
    format!("{} {lane}", pipeline.as_str())
}

impl From<&StoredCheckpoint> for Stored {
    fn from(from: &StoredCheckpoint) -> Self {
        let position = &from.applied.0;
        Self {
            pipeline: from.pipeline,
            lane: from.lane,
            lanes: from.lanes,
            epoch: from.epoch,
            seq: from.seq,
            ts: [position.time.time, position.time.increment],
            token: position.token.to_string(),
            whole: position.whole,
            written_until: from.written_until.map(|at| [at.time, at.increment]),
        }
    }
}

impl From<Stored> for StoredCheckpoint {
    fn from(from: Stored) -> Self {
        let timestamp = |[time, increment]: [u32; 2]| Timestamp { time, increment };
        Self {
            pipeline: from.pipeline,
            lane: from.lane,
            lanes: from.lanes,
            epoch: from.epoch,
            seq: from.seq,
            applied: AppliedThrough(Position {
                time: timestamp(from.ts),
                token: from.token.into(),
                whole: from.whole,
            }),
            written_until: from.written_until.map(timestamp),
        }
    }
}
