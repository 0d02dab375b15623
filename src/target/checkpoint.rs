//! Where a lane stands, and the condition under which it may go on from there.

use bson::{DateTime, RawBson, RawDocumentBuf, cstr, rawdoc};

use crate::change::{Ahead, Position};
use crate::fault::Fault;

/// Where a lane stands, as its checkpoint document says.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// `_id` of the document in `__tandem.checkpoints` of the target.
    pub id: String,
    pub epoch: i64,
    /// Raised by one with each commit of the lane, so that no batch can be applied twice.
    pub sequence: i64,
}

/// A checkpoint's next step: matches only the former one, written by this epoch.
#[derive(Debug)]
pub struct CheckpointMove<'a> {
    pub from: &'a Checkpoint,
    pub to: &'a Position,
    pub ahead: Option<&'a Ahead>,
}

impl CheckpointMove<'_> {
    /// The update that makes it.
    pub(super) fn statement(&self, now: DateTime) -> RawDocumentBuf {
        let Self { from, to, ahead } = self;
        let ahead = ahead.map_or(RawBson::Null, |ahead| ahead.to_raw().into());
        rawdoc! {
            "q": from.expected(),
            "u": { "$set": {
                "sequence": from.sequence + 1,
                "time": to.time,
                "token": to.token.as_ref(),
                "whole": to.whole,
                "ahead": ahead,
                "written_at": now,
            } },
        }
    }
}

impl Checkpoint {
    /// Matches the document only as this process has left it.
    pub(super) fn expected(&self) -> RawDocumentBuf {
        let mut expected = rawdoc! { "_id": self.id.as_str() };
        if !Fault::NoEpoch.is_on() {
            expected.append(cstr!("epoch"), self.epoch);
        }
        if !Fault::NoSequence.is_on() {
            expected.append(cstr!("sequence"), self.sequence);
        }
        expected
    }
}
