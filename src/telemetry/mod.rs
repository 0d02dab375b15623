//! What a running process tells about itself.

pub mod alerts;
pub mod board;
mod feed;
mod history;
pub mod http;
pub mod live;
pub mod logs;
mod metrics;
pub mod panics;
mod ready;
pub mod status;
mod status_text;
