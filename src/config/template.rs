//! The config file that `tandem init` writes.

/// Every key at its default, explained; only the connection strings and the namespaces are left
/// to fill in.
pub const TEMPLATE: &str = include_str!("template.toml");
