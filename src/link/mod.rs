//! A link: two clusters and what both of them must be able to do.

pub mod check;
