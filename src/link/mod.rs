//! A link: two clusters, what runs between them, and how other commands talk to it.

pub mod check;
pub mod control;
mod control_client;
mod handler;
mod history;
mod identity;
mod lease;
mod marker;
mod monitor;
mod observer;
pub mod own;
mod records;
pub mod reporting;
mod run;
mod start;
mod sweeper;

pub use monitor::pipelines_of;
pub use run::{Ended, RunOptions, run};
