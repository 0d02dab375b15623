//! `tandem verify`: are both clusters equal?

use std::time::Duration;

use clap::Args;

use super::{Common, output};
use crate::config::duration;
use crate::error::{ExitCode, Result};
use crate::verify::{Outcome, VerifyOptions, as_json, as_table, verify};

/// Compare both clusters while they are written to; lag is not a difference
#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 0 where both are equal, with 6 where they differ, and with 124 where not \
                  everything could be compared.\n\n\
                  Example:\n  tandem verify --namespace 'shop.*' --json"
)]
pub struct VerifyArgs {
    /// Only this namespace; * stands for any text
    #[arg(long, value_name = "PATTERN")]
    pub namespace: Vec<String>,
    /// Go on from a comparison that was interrupted
    #[arg(long)]
    pub resume: bool,
    /// How long to read a document again before it counts as unsettled
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration::parse)]
    pub settle_time: Duration,
    /// Stop after so many differing documents
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = positive)]
    pub differences_max: usize,
    /// Ranges read at once; fewer are gentler to the clusters
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive)]
    pub readers: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn positive(typed: &str) -> std::result::Result<usize, String> {
    match typed.parse() {
        Ok(number) if number > 0 => Ok(number),
        Ok(_) | Err(_) => Err("a number above 0".to_owned()),
    }
}

/// # Errors
/// A config error (3), a cluster that cannot be read (4), or a progress file that cannot be
/// written (7).
pub async fn run(common: &Common, args: &VerifyArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let options = VerifyOptions {
        namespaces: args.namespace.clone(),
        resume: args.resume,
        settle_time_max: args.settle_time,
        differences_max: args.differences_max,
        readers: args.readers,
    };
    let found = verify(&config, &options).await?;
    let link = &config.link.name;
    output::print(&if args.json {
        as_json(link, &found)
    } else {
        as_table(link, &found)
    })?;
    Ok(match found.outcome() {
        Outcome::Equal => ExitCode::Done,
        Outcome::Different => ExitCode::Found,
        Outcome::Undecided => ExitCode::TimedOut,
    })
}
