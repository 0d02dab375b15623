//! `tandem reset`: forget the link.

use clap::Args;

use super::Common;
use crate::error::{Error, ExitCode, Result};

/// Forget the link on this host, resume points and conflict log included
#[derive(Debug, Args)]
#[command(after_help = "Refused while the link runs.\n\nExample:\n  tandem reset --clusters --yes")]
pub struct ResetArgs {
    /// Also what tandem's own database on both clusters holds of it
    #[arg(long)]
    pub clusters: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// # Errors
/// A config error (3), a cluster that refuses (4), or a store that is in use (7).
pub async fn run(common: &Common, _: &ResetArgs) -> Result<ExitCode> {
    let _ = common.load_config()?;
    Err(Error::bug("tandem reset is not wired up"))
}
