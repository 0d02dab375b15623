//! `tandem reset`: forget the link.

use clap::Args;

use super::{Common, confirm::confirm, output};
use crate::error::{ExitCode, Result};
use crate::link::reset::{Outcome, Scope, reset};

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
pub async fn run(common: &Common, args: &ResetArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let scope = if args.clusters {
        Scope::HostAndClusters
    } else {
        Scope::Host
    };
    let outcome = reset(&config, scope, |shown| confirm(shown, args.yes)).await?;
    output::print(&match outcome {
        Outcome::Forgotten => format!("link {} is forgotten\n", config.link.name),
        Outcome::Declined => "nothing was changed\n".to_owned(),
    })?;
    Ok(ExitCode::Done)
}
