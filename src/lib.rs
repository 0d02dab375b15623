//! Keeps two MongoDB clusters in step, both ways at once, on unmodified servers.

pub mod chance;
pub mod change;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod cutover;
pub mod ddl;
pub mod error;
pub mod fault;
pub mod link;
pub mod pipeline;
pub mod ranges;
pub mod report;
pub mod resolve;
pub mod source;
pub mod store;
pub mod target;
pub mod telemetry;
pub mod verify;
