//! Log lines on stderr, as text or JSON.

use std::sync::OnceLock;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use super::live::LogLines;
use crate::config::LogLevel;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// What was asked for on the command line, and where another level is set.
static STARTED: OnceLock<(Level, reload::Handle<Targets, Registry>)> = OnceLock::new();

/// Sends log lines to stderr from now on: information, with a verbosity of 1 debugging, of 2 and
/// more everything.
///
/// Only tandem's own lines are ever shown: the driver's hold commands, and with them documents.
/// The environment has no say, so that no variable set for another program opens them.
pub fn start(format: LogFormat, verbosity: u8) {
    let level = match verbosity {
        0 => Level::INFO,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    let (own, handle) = reload::Layer::new(of_own(level));
    let lines = fmt::layer().with_writer(LogLines);
    let registry = tracing_subscriber::registry().with(own);
    let started = match format {
        LogFormat::Text => registry
            .with(lines.with_ansi(false).with_target(false))
            .try_init(),
        LogFormat::Json => registry
            .with(
                lines
                    .json()
                    .flatten_event(true)
                    .with_current_span(false)
                    .with_span_list(false),
            )
            .try_init(),
    };
    debug_assert!(started.is_ok(), "log lines are started once");
    let asked = if verbosity > 0 { level } else { Level::ERROR };
    let _ = STARTED.set((asked, handle));
}

/// From here on the log has lines of this level, and what was asked for on the command line.
pub fn set_level(level: LogLevel) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    if let Some((asked, handle)) = STARTED.get() {
        // The more is said, the larger a level is.
        let set = handle.reload(of_own(level.max(*asked)));
        debug_assert!(set.is_ok(), "the log goes on for as long as the process");
    }
}

fn of_own(level: Level) -> Targets {
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), level)
}
