//! `tandem run`: replicate until stopped.

use std::time::Duration;

use clap::Args;

use super::Common;
use crate::config::duration;
use crate::error::{Error, ExitCode, Result};

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
}

/// # Errors
/// With the exit code that says why replication ended.
pub async fn run(common: &Common, _: &RunArgs) -> Result<ExitCode> {
    let _ = common.load_config()?;
    Err(Error::bug("tandem run is not wired up"))
}
