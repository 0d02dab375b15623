//! What a running process tells about itself.

pub mod live;
pub mod logs;
pub mod panics;
pub mod status;
mod status_text;
