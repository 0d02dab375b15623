//! `tandem dead-letter`: the events that could not be applied.

use clap::{Args, Subcommand};

use super::Common;
use crate::error::{Error, ExitCode, Result};

/// List, retry or discard events that could not be applied
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem dead-letter list")]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    pub action: DeadLetterAction,
}

#[derive(Debug, Subcommand)]
pub enum DeadLetterAction {
    List(ListArgs),
    Retry(RetryArgs),
    Discard(DiscardArgs),
}

/// List them, with the reason
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem dead-letter list --json")]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Try again, with the document as it is now
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem dead-letter retry 64a1f0c2e7b94d3355aa01c8")]
pub struct RetryArgs {
    /// The record's id, as list shows it
    pub id: String,
}

/// Give up on the event; its record stays
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem dead-letter discard 64a1f0c2e7b94d3355aa01c8")]
pub struct DiscardArgs {
    /// The record's id, as list shows it
    pub id: String,
}

/// # Errors
/// A config error (3), or a store that cannot be read (7).
pub async fn run(common: &Common, args: &DeadLetterArgs) -> Result<ExitCode> {
    let _ = common.load_config()?;
    match &args.action {
        DeadLetterAction::List(_) => Err(Error::bug("tandem dead-letter list is not wired up")),
        DeadLetterAction::Retry(_) => Err(Error::bug("tandem dead-letter retry is not wired up")),
        DeadLetterAction::Discard(_) => {
            Err(Error::bug("tandem dead-letter discard is not wired up"))
        }
    }
}
