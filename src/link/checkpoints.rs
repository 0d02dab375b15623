//! The documents that tell how far lanes have come.

use bson::{Bson, DateTime, Document, Timestamp, doc};

use crate::change::{Ahead, AppliedThrough, PipelineId, Position};

/// A checkpoint document as it was found.
#[derive(Debug, Clone)]
pub struct FoundCheckpoint {
    pub lane: usize,
    pub lanes: usize,
    pub epoch: i64,
    pub sequence: i64,
    pub applied: AppliedThrough,
    /// What is applied beyond that.
    pub ahead: Option<Ahead>,
}

impl FoundCheckpoint {
    /// None where it is not whole.
    pub fn of_document(found: &Document) -> Option<Self> {
        let number = |name: &str| found.get_i64(name).ok();
        Some(Self {
            lane: number("lane")? as usize,
            lanes: number("lanes")? as usize,
            epoch: number("epoch")?,
            sequence: number("sequence")?,
            applied: AppliedThrough(Position::of_document(found)?),
            ahead: match found.get("ahead") {
                None | Some(Bson::Null) => None,
                Some(ahead) => Some(Ahead::of_document(ahead.as_document()?)?),
            },
        })
    }

    /// When the last event was written that the lane may have applied.
    pub fn newest(&self) -> Timestamp {
        let applied = self.applied.0.time;
        let ahead = self.ahead.as_ref().map(|ahead| ahead.end.time);
        ahead.map_or(applied, |ahead| ahead.max(applied))
    }
}

pub fn checkpoint_id(link: &str, pipeline: PipelineId, lane: usize) -> String {
    format!("{link}/{}/{lane}", pipeline.as_str())
}

/// A lane's first checkpoint.
pub fn checkpoint_document(
    link: &str,
    pipeline: PipelineId,
    lane: usize,
    lanes: usize,
    epoch: i64,
    from: Timestamp,
) -> Document {
    doc! {
        "link": link,
        "pipeline": pipeline.as_str(),
        "lane": lane as i64,
        "lanes": lanes as i64,
        "epoch": epoch,
        "sequence": 0_i64,
        "time": from,
        "token": "",
        "whole": true,
        "ahead": null,
        "written_at": DateTime::now(),
    }
}
