//! A link: what runs, and how other commands talk to it.

pub mod control;
mod control_client;
pub mod reporting;
