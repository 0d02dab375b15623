//! Log lines on stderr, as text or JSON.

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::live::LogLines;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

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
    let own = Targets::new().with_target(env!("CARGO_CRATE_NAME"), level);
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
}
