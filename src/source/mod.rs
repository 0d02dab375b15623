//! Reading a cluster: its change stream, and documents as of a moment.

mod decode;
mod left_out;
mod observer;
mod reader;
mod snapshot;
mod stream;
mod too_large;

pub use decode::{DdlEvent, Decoded, Decoder, Observed};
pub use left_out::{LeftOut, SimpleCollection};
pub use observer::{Moment, Observer};
pub use reader::{Origin, Reader, StreamFilter, Until};
pub use snapshot::{Place, read_at};
pub use stream::{has_entries, oldest_entry};
