//! A link: two clusters, what runs between them, and how other commands talk to it.

pub(crate) mod both_clusters;
pub mod check;
pub mod control;
mod control_client;
pub mod dead_letters;
mod first_start;
mod former;
pub mod handler;
mod history;
mod identity;
mod in_window;
pub mod initial_sync;
mod lease;
mod marker;
pub mod merge;
mod monitor;
mod observer;
pub mod own;
mod record_status;
mod records;
mod relane;
pub mod reporting;
pub mod reset;
pub mod restore;
mod retention;
mod run;
pub mod runs;
mod start;
mod swap;
mod sweeper;
mod takeover;
mod tasks;

pub use in_window::run_in_window;
pub use monitor::pipelines_of;
pub use run::{Completed, Ended, RunOptions, Work, run};
pub use start::FirstStart;
