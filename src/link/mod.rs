//! A link: two clusters, what runs between them, and how other commands talk to it.

mod both_clusters;
pub mod check;
pub mod control;
mod control_client;
pub mod dead_letters;
pub mod handler;
mod record_status;
pub mod reporting;
pub mod reset;
pub mod restore;
mod swap;
