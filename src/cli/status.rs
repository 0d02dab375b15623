//! `tandem status`: where the link stands.

use clap::Args;

use super::Common;
use crate::error::{Error, ExitCode, Result};

/// Tell where the link stands, whether or not it runs
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem status --json")]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// # Errors
/// A config error (3), or a store that cannot be read (7).
pub async fn run(common: &Common, _: &StatusArgs) -> Result<ExitCode> {
    let _ = common.load_config()?;
    Err(Error::bug("tandem status is not wired up"))
}
