//! `tandem status`: where the link stands.

use std::io::IsTerminal;
use std::time::Duration;

use bson::DateTime;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::run::listen_for_signals;
use super::{Common, output};
use crate::change::rfc3339;
use crate::config::{Config, duration};
use crate::error::{Error, ExitCode, Result};
use crate::link::{pipelines_of, reporting};
use crate::telemetry::status::{LinkStatus, terminal_width, to_lines, to_text};

/// Tell where the link stands, whether or not it runs
#[derive(Debug, Args)]
#[command(
    after_help = "With --watch it is drawn again in place on a terminal. Elsewhere a line for each \
                  direction is added each time, or with --json a document.\n\n\
                  Examples:\n  tandem status --json\n  tandem status --watch\n  \
                  tandem status --watch 30s >> status.log"
)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Again and again, until interrupted; the time between two looks
    #[arg(
        long,
        value_name = "INTERVAL",
        num_args = 0..=1,
        default_missing_value = "2s",
        value_parser = interval
    )]
    pub watch: Option<Duration>,
}

/// Shorter ones only keep the running link busy.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

fn interval(typed: &str) -> std::result::Result<Duration, String> {
    let interval = duration::parse(typed)?;
    match interval < INTERVAL_MIN {
        true => Err("at least 100ms".to_owned()),
        false => Ok(interval),
    }
}

/// How a status is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Text,
    Json,
    /// Drawn over the last one.
    Screen,
    /// A line for each direction.
    Lines,
    JsonLines,
}

/// # Errors
/// A config error (3), or a store that cannot be read (7).
pub async fn run(common: &Common, args: &StatusArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let Some(interval) = args.watch else {
        let look = if args.json { Look::Json } else { Look::Text };
        show(&status(&config).await?, look)?;
        return Ok(ExitCode::Done);
    };
    let look = match (args.json, std::io::stdout().is_terminal()) {
        (true, _) => Look::JsonLines,
        (false, true) => Look::Screen,
        (false, false) => Look::Lines,
    };
    let stop = CancellationToken::new();
    listen_for_signals(stop.clone())?;
    if look == Look::Screen {
        output::print(CLEAR)?;
    }
    loop {
        show(&status(&config).await?, look)?;
        tokio::select! {
            () = stop.cancelled() => return Ok(ExitCode::Done),
            () = tokio::time::sleep(interval) => {}
        }
    }
}

/// Clears a terminal.
const CLEAR: &str = "\x1b[2J";
/// To the top left, and what is left of a line or of the screen is cleared after it is written: so
/// nothing flickers.
const TOP: &str = "\x1b[H";
const LINE_END: &str = "\x1b[K\n";
const REST: &str = "\x1b[J";

async fn status(config: &Config) -> Result<LinkStatus> {
    let names = config
        .clusters
        .as_ref()
        .map(|cluster| cluster.name.as_str());
    let pipelines = pipelines_of(config.link.mode);
    let link = &config.link;
    reporting::status(&link.state_dir, &link.name, names, pipelines).await
}

fn show(status: &LinkStatus, look: Look) -> Result<()> {
    let unwritable = |cause| Error::bug("cannot write the status as JSON").caused_by(cause);
    output::print(&match look {
        Look::Text => output::harmless(&to_text(status, terminal_width())),
        Look::Json => serde_json::to_string_pretty(status).map_err(unwritable)? + "\n",
        Look::JsonLines => serde_json::to_string(status).map_err(unwritable)? + "\n",
        Look::Lines => output::harmless(&to_lines(status, DateTime::now())),
        Look::Screen => {
            let at = rfc3339(DateTime::now());
            let text = output::harmless(&to_text(status, terminal_width()))
                + "\n"
                + &at
                + "  (ctrl-c ends it)\n";
            format!("{TOP}{}{REST}", text.replace('\n', LINE_END))
        }
    })
}
