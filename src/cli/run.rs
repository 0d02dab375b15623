//! `tandem run`: replicate until stopped.

use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Common;
use crate::config::duration;
use crate::error::{Error, ExitCode, Result};
use crate::link::{self, Ended, FirstStart, RunOptions};

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

/// # Errors
/// With the exit code that says why replication ended.
pub async fn run(common: &Common, args: &RunArgs) -> Result<ExitCode> {
    let stop = CancellationToken::new();
    listen_for_signals(stop.clone())?;
    let config = common.load_config()?;
    if args.dry_run {
        let plan = link::initial_sync::dry_run(&config, args.drop_target).await?;
        let shown = if args.json {
            plan.as_json()
        } else {
            plan.as_table()
        };
        super::output::print(&shown)?;
        return Ok(ExitCode::Done);
    }
    let options = RunOptions {
        until_caught_up: args.until_caught_up,
        timeout: args.timeout,
        first_start: FirstStart {
            anew: args.first_start,
            drop_target: args.drop_target,
        },
    };
    let ended = link::run(&config, options, stop).await?;
    let line = match ended {
        Ended::CaughtUp => format!("link {}: caught up", config.link.name),
        Ended::Stopped => format!("link {}: stopped", config.link.name),
    };
    super::output::print(&format!("{line}\n"))?;
    Ok(ExitCode::Done)
}

/// The first interrupt stops with the batches under way finished, the second one at once.
fn listen_for_signals(stop: CancellationToken) -> Result<()> {
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
