//! `tandem run`: replicate until stopped.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::runs::summary;
use super::{Common, LogFormatArg};
use crate::config::{Config, Window, duration, window};
use crate::error::{Error, ExitCode, Result};
use crate::link::{self, Ended, FirstStart, Reloads, RunOptions, Showing, Work};
use crate::telemetry::alerts::Alerts;
use crate::telemetry::board::Board;
use crate::telemetry::http;
use crate::telemetry::status::LinkState;

/// Replicate until stopped
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem run --until-caught-up --timeout 30m")]
pub struct RunArgs {
    /// Stop with 0 once everything written before the start has arrived
    #[arg(long)]
    pub until_caught_up: bool,
    /// Stop with 124 after this time, such as 30m
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,
    /// Replicate only in this daily window, past midnight too
    #[arg(long, value_name = "FROM-TO", value_parser = window::check)]
    pub window: Option<String>,
    /// The time zone of --window, such as Europe/Berlin; by default this host's
    #[arg(long, value_name = "ZONE", value_parser = window::zone, requires = "window")]
    pub time_zone: Option<TimeZone>,
    /// Begin anew where state of an earlier start is missing on one side
    #[arg(long)]
    pub first_start: bool,
    /// Of an initial copy: drop what the target holds of the included namespaces
    #[arg(long)]
    pub drop_target: bool,
    /// Show what an initial copy would do, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// With --dry-run: print JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

impl RunArgs {
    fn window(&self) -> Result<Option<Window>> {
        let Some(text) = &self.window else {
            return Ok(None);
        };
        let zone = self.time_zone.clone().unwrap_or_else(TimeZone::system);
        let window = Window::parse(text, zone);
        let refused = |what| Error::usage(format!("--window {what}"));
        window.map(Some).map_err(refused)
    }
}

/// # Errors
/// With the exit code that says why replication ended.
pub async fn run(common: &Common, args: &RunArgs) -> Result<ExitCode> {
    let stop = CancellationToken::new();
    let reloads = Arc::new(Reloads::default());
    listen_for_signals(stop.clone())?;
    listen_for_hangups(reloads.clone())?;
    let config = common.load_config()?;
    if args.dry_run {
        let plan = link::initial_sync::dry_run(&config, args.drop_target).await?;
        let shown = if args.json {
            plan.as_json()
        } else {
            super::output::harmless(&plan.as_table())
        };
        super::output::print(&shown)?;
        return Ok(ExitCode::Done);
    }
    let window = args.window()?;
    let watched = match Watched::start(&config) {
        Ok(watched) => watched,
        // Its port is taken by the tandem that runs here already, as a rule: that is told then.
        Err(error) => {
            link::must_be_free(&config.link.state_dir).await?;
            return Err(error);
        }
    };
    let options = RunOptions {
        until_caught_up: args.until_caught_up,
        timeout: args.timeout,
        first_start: FirstStart {
            anew: args.first_start,
            drop_target: args.drop_target,
        },
        work: Work::Nothing,
        showing: showing(common),
        reloads,
        board: watched.as_ref().map(|watched| watched.board.clone()),
        store: None,
    };
    let outcome = match window {
        None => link::run(&config, options, stop).await.map(Some),
        Some(window) => link::run_in_window(&config, options, &window, stop).await,
    };
    if let Some(watched) = watched {
        watched.end(outcome.as_ref().err()).await;
    }
    let Some(completed) = outcome? else {
        return Ok(ExitCode::Done);
    };
    let (link, moved) = (&config.link.name, summary(&completed.run));
    let line = match completed.ended {
        Ended::CaughtUp => format!("link {link}: caught up: {moved}\n"),
        Ended::CutOver => format!("link {link}: ended by a cutover\n"),
        Ended::Stopped | Ended::Turned => format!("link {link}: stopped: {moved}\n"),
    };
    super::output::print(&line)?;
    Ok(ExitCode::Done)
}

/// Whoever watches a run.
struct Watched {
    board: Board,
    alerts: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Watched {
    /// From now on, before the clusters are reached; none where nobody watches.
    fn start(config: &Config) -> Result<Option<Self>> {
        let names = config.clusters.as_ref();
        let names = names.map(|cluster| cluster.name.as_str());
        let pipelines = link::pipelines_of(config.link.mode);
        let board = Board::new(&config.link.name, names, pipelines);
        let alerts = Alerts::new(config, board.clone())?;
        let listening = config.http_listen.map(http::listen).transpose()?;
        if alerts.is_none() && listening.is_none() {
            return Ok(None);
        }
        tokio::spawn(board.clone().keep_history());
        if let Some(listening) = listening {
            tokio::spawn(http::serve(listening, board.clone()));
        }
        let alerts = alerts.map(|alerts| {
            let ended = CancellationToken::new();
            (tokio::spawn(alerts.watch(ended.clone())), ended)
        });
        Ok(Some(Self { board, alerts }))
    }

    /// Tells how the run has ended.
    async fn end(self, error: Option<&Error>) {
        let state = match error {
            Some(_) => LinkState::Failed,
            None => LinkState::Stopped,
        };
        self.board.set_state(state, error);
        if let Some((watches, ended)) = self.alerts {
            ended.cancel();
            let _ = watches.await;
        }
    }
}

/// Whoever reads the log with a program gets lines only.
fn showing(common: &Common) -> Showing {
    let for_people = matches!(common.log_format, LogFormatArg::Text);
    match for_people && std::io::stderr().is_terminal() {
        true => Showing::Bars,
        false => Showing::Nothing,
    }
}

/// A hangup asks for the configuration to be read again.
fn listen_for_hangups(reloads: Arc<Reloads>) -> Result<()> {
    let failed = |error| Error::bug("cannot listen for signals").caused_by(error);
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            reloads.ring();
        }
    });
    Ok(())
}

/// The first interrupt stops with the batches under way finished, the second one at once.
pub(super) fn listen_for_signals(stop: CancellationToken) -> Result<()> {
    let failed = |error| Error::bug("cannot listen for signals").caused_by(error);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                stop.cancel();
            } else {
                std::process::exit(ExitCode::Interrupted as i32);
            }
        }
    });
    Ok(())
}
