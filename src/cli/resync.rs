//! `tandem resync`: bring both sides to the same documents again.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::run::listen_for_signals;
use super::{Common, SideArg, output};
use crate::change::Side;
use crate::config::Config;
use crate::error::{Class, Error, ExitCode, Result};
use crate::link::both_clusters::with_both;
use crate::link::initial_sync::Progress;
use crate::link::merge::{Job, progress_line, resync_from_outside, takes_up_again};
use crate::link::{self, FirstStart, RunOptions, Standing, Work};
use crate::resolve::Tally;

/// How often a line tells how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Compare both sides by key and settle every difference, while the link goes on
#[derive(Debug, Args)]
#[command(
    after_help = "What one side lacks is copied from the other, a document that was deleted on one side \
                  behind tandem's back too. What differs is decided by the conflict policy, and each \
                  loser is on record. Where no tandem runs, the link runs until it has caught up. \
                  Without --namespace it is the way back after a lost resume point.\n\n\
                  Example:\n  tandem resync --namespace 'shop.*'"
)]
pub struct ResyncArgs {
    /// Only this namespace; * stands for any text, /…/ is a regular expression
    #[arg(long, value_name = "PATTERN")]
    pub namespace: Vec<String>,
    /// This side's documents stay, whatever the policy says; what it lacks is removed
    #[arg(long, value_name = "SIDE")]
    pub from: Option<SideArg>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// # Errors
/// A namespace that is not there, or a resync that goes on already (2); else with the exit code
/// that says why the link could not go on.
pub async fn run(common: &Common, args: &ResyncArgs) -> Result<ExitCode> {
    let stop = CancellationToken::new();
    listen_for_signals(stop.clone())?;
    let config = common.load_config()?;
    let job = Job {
        namespaces: args.namespace.clone(),
        from: args.from.map(Side::from),
    };
    let takes_up_again = with_both(&config, async |clusters| {
        let turned = Standing::turned(&config, clusters).await?;
        job.check(&turned, clusters).await?;
        takes_up_again(&config, clusters, &job).await
    })
    .await?;
    let numbers = match resync_from_outside(&config, &job, std::io::stderr()).await? {
        Some(numbers) => numbers,
        None => {
            if takes_up_again {
                catch_up(&config, &job, stop.clone()).await?;
            }
            run_link(&config, job, stop).await?
        }
    };
    let link = &config.link.name;
    output::print(&if args.json {
        format!("{numbers}\n")
    } else {
        told(link, &numbers)
    })?;
    Ok(ExitCode::Done)
}

/// A lost resume point is no obstacle where everything is brought together anew.
async fn catch_up(config: &Config, job: &Job, stop: CancellationToken) -> Result<()> {
    tracing::info!("catching up, before what is no longer replicated is taken up again");
    let options = RunOptions {
        until_caught_up: true,
        ..RunOptions::default()
    };
    match link::run(config, options, stop).await {
        Err(error) if error.class == Class::Resync && job.is_about_everything() => Ok(()),
        outcome => outcome.map(|_| ()),
    }
}

/// Runs the link until the resync is done and it has caught up. Where a stream cannot go on from
/// where it was, it begins from now on.
async fn run_link(config: &Config, job: Job, stop: CancellationToken) -> Result<Value> {
    match resynced(config, &job, FirstStart::default(), stop.clone()).await {
        Err(error) if error.class == Class::Resync && job.is_about_everything() => {
            tracing::warn!(%error, "beginning from now on, and merging everything");
            let anew = FirstStart {
                anew: true,
                ..FirstStart::default()
            };
            resynced(config, &job, anew, stop).await
        }
        outcome => outcome,
    }
}

async fn resynced(
    config: &Config,
    job: &Job,
    first_start: FirstStart,
    stop: CancellationToken,
) -> Result<Value> {
    let progress = Arc::new(Progress::new("resync"));
    let options = RunOptions {
        until_caught_up: true,
        first_start,
        work: Work::Resync {
            job: job.clone(),
            progress: progress.clone(),
        },
        ..RunOptions::default()
    };
    let numbers = || serde_json::to_value(progress.now()).unwrap_or_default();
    let telling = async {
        loop {
            tokio::time::sleep(PROGRESS_INTERVAL).await;
            eprintln!("{}", progress_line(&numbers()));
        }
    };
    tokio::select! {
        ended = link::run(config, options, stop) => ended?,
        () = telling => return Err(Error::bug("a loop that ended")),
    };
    if !progress.is_done() {
        return Err(Error::new(
            ExitCode::Interrupted,
            Class::Operator,
            "stopped before the resync was done",
        )
        .hint("the next `tandem run` goes on with it"));
    }
    Ok(numbers())
}

fn told(link: &str, numbers: &Value) -> String {
    let mut text = String::new();
    for one in numbers["not_done"].as_array().into_iter().flatten() {
        let word = |name: &str| one[name].as_str().unwrap_or_default();
        let (namespace, index, reason) = (word("namespace"), word("index"), word("reason"));
        let space = if index.is_empty() { "" } else { " " };
        text.push_str(&format!("{namespace}{space}{index}: not done: {reason}\n"));
    }
    let tally: Tally = serde_json::from_value(numbers["tally"].clone()).unwrap_or_default();
    text + &format!(
        "link {link}: resynced {} namespaces: {} documents read, {}\n",
        numbers["namespaces_done"],
        numbers["documents_done"],
        in_words(&tally)
    )
}

/// What was done with documents that differed.
pub(super) fn in_words(tally: &Tally) -> String {
    let pair = |pair: &crate::change::Pair<u64>| format!("{} to a and {} to b", pair.a, pair.b);
    let mut words = format!(
        "copied {}, replaced {}, removed {} from a and {} from b, {} on record",
        pair(&tally.copied),
        format_args!("{} on a and {} on b", tally.replaced.a, tally.replaced.b),
        tally.removed.a,
        tally.removed.b,
        tally.on_record()
    );
    for (count, what) in [
        (tally.left_alone, "left on the target alone"),
        (tally.impossible, "impossible (dead letters)"),
    ] {
        if count > 0 {
            words.push_str(&format!(", {count} {what}"));
        }
    }
    words
}
