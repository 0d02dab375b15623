//! `tandem dead-letter`: the events that could not be applied.

use clap::{Args, Subcommand};

use super::{Common, output};
use crate::change::{ConflictKind, RecordStatus};
use crate::config::Config;
use crate::error::{ExitCode, Result};
use crate::link::dead_letters;
use crate::link::reporting::{self, Asked};
use crate::report::{Detail, Format};
use crate::store::RecordFilter;

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

/// List those that nobody has settled, with the reason
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
/// A config error (3), a dead letter that is not there or is settled (2), a cluster that refuses
/// (4), or a store that cannot be read (7). A retry where no link runs: 2.
pub async fn run(common: &Common, args: &DeadLetterArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let done = match &args.action {
        DeadLetterAction::List(args) => return list(&config, args).await,
        DeadLetterAction::Retry(args) => dead_letters::retry_from_outside(&config, &args.id).await,
        DeadLetterAction::Discard(args) => {
            dead_letters::discard_from_outside(&config, &args.id).await
        }
    };
    output::print(&(done? + "\n"))?;
    Ok(ExitCode::Done)
}

async fn list(config: &Config, args: &ListArgs) -> Result<ExitCode> {
    let mut asked = Asked::of(config);
    asked.filter = RecordFilter {
        kinds: vec![ConflictKind::DeadLetter],
        statuses: vec![RecordStatus::Logged],
        ..RecordFilter::default()
    };
    let format = if args.json {
        Format::Json
    } else {
        Format::Table
    };
    let out = output::results();
    reporting::conflict_report(&asked, format, Detail::DeadLetters, out).await?;
    Ok(ExitCode::Done)
}
