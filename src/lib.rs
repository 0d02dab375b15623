//! Keeps two MongoDB clusters in step, both ways at once, on unmodified servers.

pub mod change;
pub mod config;
pub mod error;
pub mod link;
pub mod report;
pub mod store;
pub mod telemetry;
