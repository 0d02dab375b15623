//! `tandem conflict`: what can be done about one record.

use clap::{Args, Subcommand};

use super::moment::Moment;
use super::{Common, confirm::confirm, output};
use crate::change::Pair;
use crate::config::Config;
use crate::error::{ExitCode, Result};
use crate::link::prune::{Pruned, prune};
use crate::link::restore::{Outcome, restore};
use crate::link::{now, reporting};
use crate::report::show;

/// Look at a record of a conflict, or act on it
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tandem conflict show 64a1f0c2e7b94d3355aa01c8\n  \
                  tandem conflict restore 64a1f0c2e7b94d3355aa01c8"
)]
pub struct ConflictArgs {
    #[command(subcommand)]
    pub action: ConflictAction,
}

#[derive(Debug, Subcommand)]
pub enum ConflictAction {
    Show(ShowArgs),
    Restore(RestoreArgs),
    Prune(PruneArgs),
}

/// Tell what happened, which rule decided and why, with both versions side by side
#[derive(Debug, Args)]
#[command(
    after_help = "Fields are marked: ≠ differs, - only the losing version has it, + only the winning \
                  one.\n\nExample:\n  tandem conflict show 64a1f0c2e7b94d3355aa01c8 --now"
)]
pub struct ShowArgs {
    /// The record's id, as conflict-report shows it
    pub id: String,
    /// Also compare what both clusters hold of the document at this moment
    #[arg(long)]
    pub now: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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

/// Remove old records, here and on both clusters, once they are exported
#[derive(Debug, Args)]
#[command(
    after_help = "Export first: what is removed no report shows again. A dead letter that nobody has \
                  settled stays.\n\nExamples:\n  \
                  tandem conflict-report --until 720h --format ndjson > conflicts.ndjson\n  \
                  tandem conflict prune --before 720h\n  \
                  tandem conflict prune --before 2025-01-31T12:00:00Z --yes"
)]
pub struct PruneArgs {
    /// Records logged before this moment: a time such as 2025-01-31T12:00:00Z, or 720h
    #[arg(long, value_name = "TIME", value_parser = Moment::parse)]
    pub before: Moment,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// # Errors
/// A config error (3), nothing to restore (2), a cluster that refuses the write (4), or a store
/// that cannot be read (7).
pub async fn run(common: &Common, args: &ConflictArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    match &args.action {
        ConflictAction::Show(args) => print_one(&config, args).await,
        ConflictAction::Restore(args) => bring_back(&config, args).await,
        ConflictAction::Prune(args) => remove(&config, args).await,
    }
}

async fn print_one(config: &Config, args: &ShowArgs) -> Result<ExitCode> {
    let record = reporting::record(&config.link.state_dir, &args.id).await?;
    let now = match args.now {
        true => Some(now::now(config, &args.id, &record).await?),
        false => None,
    };
    let names: Pair<String> = config.clusters.as_ref().map(|cluster| cluster.name.clone());
    output::print(&match args.json {
        true => show::to_json(&record, &names, now)?,
        false => show::to_text(&record, &names, now),
    })?;
    Ok(ExitCode::Done)
}

async fn bring_back(config: &Config, RestoreArgs { id, yes }: &RestoreArgs) -> Result<ExitCode> {
    let outcome = restore(config, id, |shown| confirm(shown, *yes)).await?;
    output::print(&match outcome {
        Outcome::Restored => format!("record {id} is restored\n"),
        Outcome::AlreadyThere => {
            format!("record {id} is restored: the document was the losing version already\n")
        }
        Outcome::Declined => "nothing was changed\n".to_owned(),
    })?;
    Ok(ExitCode::Done)
}

async fn remove(config: &Config, PruneArgs { before, yes }: &PruneArgs) -> Result<ExitCode> {
    let before = before.before(jiff::Timestamp::now());
    let before = bson::DateTime::from_millis(before.as_millisecond());
    let outcome = prune(config, before, |shown| confirm(shown, *yes)).await?;
    output::print(&match outcome {
        Pruned::Removed(records) => format!("{records} records are removed\n"),
        Pruned::NothingThere => "no records are older\n".to_owned(),
        Pruned::Declined => "nothing was changed\n".to_owned(),
    })?;
    Ok(ExitCode::Done)
}
