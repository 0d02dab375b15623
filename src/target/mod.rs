//! Writing a cluster: one transaction for each batch, on a tagged session, under the fence.

mod checkpoint;
mod command;
mod delta;
mod notes;
mod plain;
mod read;
mod reply;
mod session;
mod settle;
mod statements;
mod touch;
mod transaction;
mod write_set;

pub use checkpoint::{Checkpoint, CheckpointMove};
pub use notes::{Note, key_id, key_in};
pub use plain::append;
pub use reply::{Refusal, WriteError};
pub use session::{Snapshot, TagSession};
pub use settle::{Settled, settle};
pub use statements::{replace, survives_replacement};
pub use transaction::{Batch, Transaction};
pub use write_set::{CollectionInfo, Met, WriteSet};
