//! A link: two clusters, what runs between them, and how other commands talk to it.

pub mod check;
pub mod control;
mod control_client;
pub mod reporting;
