//! Reading a cluster: its change stream, and documents as of a moment.

mod decode;
mod left_out;
mod observer;
mod oplog;
mod patience;
mod reader;
mod snapshot;
mod stream;
mod too_large;

pub use decode::{DdlEvent, Decoded, Decoder, Observed};
pub use left_out::{LeftOut, SimpleCollection};
pub use observer::{Behind, Moment, Observer};
pub use oplog::{first_data_written, has_entries, oldest_entry};
pub use patience::{Patience, timed};
pub use reader::{Origin, Reader, StreamFilter, Until};
pub use snapshot::{Place, read_at};
