//! `tandem conflict`: what can be done about one record.

use clap::{Args, Subcommand};

use super::{Common, confirm::confirm, output};
use crate::error::{ExitCode, Result};
use crate::link::restore::{Outcome, restore};

/// Act on a record of a conflict
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem conflict restore 64a1f0c2e7b94d3355aa01c8")]
pub struct ConflictArgs {
    #[command(subcommand)]
    pub action: ConflictAction,
}

#[derive(Debug, Subcommand)]
pub enum ConflictAction {
    Restore(RestoreArgs),
}

/// Bring the losing version back, as a new write on the cluster that lost
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem conflict restore 64a1f0c2e7b94d3355aa01c8 --yes")]
pub struct RestoreArgs {
    /// The record's id, as conflict-report shows it
    pub id: String,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// # Errors
/// A config error (3), nothing to restore (2), a cluster that refuses the write (4), or a store
/// that cannot be read (7).
pub async fn run(common: &Common, args: &ConflictArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let ConflictAction::Restore(RestoreArgs { id, yes }) = &args.action;
    let outcome = restore(&config, id, |shown| confirm(shown, *yes)).await?;
    output::print(&match outcome {
        Outcome::Restored => format!("record {id} is restored\n"),
        Outcome::AlreadyThere => {
            format!("record {id} is restored: the document was the losing version already\n")
        }
        Outcome::Declined => "nothing was changed\n".to_owned(),
    })?;
    Ok(ExitCode::Done)
}
