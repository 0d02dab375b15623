//! The configuration as it is meant: every value checked, every default filled in.

mod alerts;
pub mod duration;
mod environment;
mod filters;
mod keys;
mod meaning;
mod problems;
pub mod reload;
mod renames;
mod tables;
mod template;
mod typed;
mod uri;
pub mod window;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bson::Timestamp;

use crate::change::{Filters, NamespaceFilter, Pair, Side};
pub use crate::change::{Mode, Policy};
use crate::error::{Error, Result};

pub use alerts::{AlertsConfig, Thresholds, WebhookConfig};
pub use environment::Environment;
pub use meaning::START_AT;
pub use problems::{nearest, suggestion};
pub use reload::Adjustable;
pub use typed::Flags;
pub use window::Window;

/// Everything a command needs to know. Built from file, environment and flags.
#[derive(Debug, Clone)]
pub struct Config {
    pub link: LinkConfig,
    pub clusters: Pair<ClusterConfig>,
    pub namespaces: NamespaceFilter,
    pub filters: Filters,
    pub initial_sync: InitialSync,
    pub conflicts: ConflictsConfig,
    pub ddl: DdlConfig,
    pub apply: ApplyConfig,
    pub limits: LimitsConfig,
    pub timeouts: TimeoutsConfig,
    /// Where HTTP listens; off where absent.
    pub http_listen: Option<SocketAddr>,
    pub log_level: LogLevel,
    origin: Arc<reload::Origin>,
    pub alerts: AlertsConfig,
}

impl Config {
    /// Reads a config file with the environment and the command line over it.
    ///
    /// # Errors
    /// A config error (3): the file cannot be read, or one message with every problem in it.
    pub fn load(file: &Path, environment: &Environment, flags: &Flags) -> Result<Config> {
        let shown = file.display();
        let text = std::fs::read_to_string(file).map_err(|error| {
            let hint = match error.kind() {
                std::io::ErrorKind::PermissionDenied => "run this as the user that runs tandem",
                _ => "`tandem init` writes one; `--config` names another",
            };
            Error::config(format!("cannot read the configuration {shown}"))
                .caused_by(error)
                .hint(hint)
        })?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut config = Self::parse(&text, &shown.to_string(), folder, environment, flags)?;
        if let Some(origin) = Arc::get_mut(&mut config.origin) {
            origin.file = Some(file.to_owned());
        }
        Ok(config)
    }

    /// Reads the text of a config file; relative paths in it start at `folder`.
    ///
    /// # Errors
    /// As [`Config::load`]; `named` is what the message calls the file.
    pub fn parse(
        text: &str,
        named: &str,
        folder: &Path,
        environment: &Environment,
        flags: &Flags,
    ) -> Result<Config> {
        let table = toml::from_str(text).map_err(|error| syntax_error(&error, text, named))?;
        let mut problems = problems::Problems::default();
        let settings = typed::Settings::gather(&table, environment, &mut problems);
        let config = meaning::mean(settings, folder, environment, flags, &mut problems);
        problems.into_result(named)?;
        Ok(config)
    }

    /// A commented config file with every key at its default.
    pub fn template() -> &'static str {
        template::TEMPLATE
    }
}

/// Tells the line but quotes nothing of it: it may be the one with the password.
fn syntax_error(error: &toml::de::Error, text: &str, named: &str) -> Error {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let line = text.as_bytes()[..start]
        .iter()
        .filter(|b| **b == b'\n')
        .count()
        + 1;
    let what = error.message();
    Error::config(format!(
        "the configuration {named} is not TOML: line {line}: {what}"
    ))
}

#[derive(Debug, Clone)]
pub struct LinkConfig {
    pub name: String,
    pub mode: Mode,
    /// Absolute, or relative to the current directory: already joined with the config file's.
    pub state_dir: PathBuf,
    /// The database on both clusters that holds tandem's state.
    pub database: String,
    pub lease_duration: Duration,
}

#[derive(Clone)]
pub struct ClusterConfig {
    /// The name people know the cluster by.
    pub name: String,
    pub uri: Secret,
}

impl std::fmt::Debug for ClusterConfig {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "ClusterConfig({})", self.name)
    }
}

/// A text that no log, panic or report may show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the driver alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("<hidden>")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitialSync {
    /// The operator vouches that both sides are equal; a cluster whose `start_at` is known is read
    /// from then on, the other from the first start on.
    None { start_at: Pair<Option<Timestamp>> },
    /// What a holds is copied to b, whose included namespaces must be empty.
    Copy,
    /// What both sides hold is compared and brought together.
    Merge,
}

#[derive(Debug, Clone)]
pub struct ConflictsConfig {
    pub policy: Policy,
    /// Which cluster wins where both versions have the same wall time.
    pub tie: Side,
    /// A top-level field with the version, a Date or an int64 of ms; none: the server's wall time.
    pub version_field: Option<String>,
    pub clock_skew_warn: Duration,
    /// A version further in the future stops the link.
    pub future_max: Option<Duration>,
    pub retention: Duration,
    /// How large the conflict log may become on this host; none: without end.
    pub bytes_max: Option<u64>,
    /// More conflicts within a minute pause the link; none: never.
    pub pause_above: Option<u64>,
    /// Fields that no record may hold, see [`Redaction`](crate::change::Redaction).
    pub redact: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
pub struct DdlConfig {
    pub replicate: bool,
    pub drops: bool,
}

/// The least important lines that the log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceKind {
    /// A transaction at a past snapshot, `atClusterTime`.
    Snapshot,
    /// A transaction at the present, decided once the reader has passed it.
    Waiting,
}

#[derive(Debug, Clone)]
pub struct ApplyConfig {
    pub fence: FenceKind,
    pub lanes: usize,
    pub batch_operations_max: usize,
    pub batch_bytes_max: usize,
    pub batch_fill_time_max: Duration,
    pub transaction_time_max: Duration,
    /// None: no limit.
    pub operations_per_second_max: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct LimitsConfig {
    pub queue_bytes_max: usize,
    pub ledger_entries_max: usize,
}

#[derive(Debug, Clone)]
pub struct TimeoutsConfig {
    pub connect: Duration,
    pub operation: Duration,
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
