//! What tandem tells about itself while it works.

pub mod status;
mod status_text;
