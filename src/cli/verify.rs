//! `tandem verify`: are both clusters equal?

use std::time::Duration;

use clap::Args;
use tokio_util::sync::CancellationToken;

use super::run::listen_for_signals;
use super::{Common, SideArg, output, resync};
use crate::change::Side;
use crate::config::duration;
use crate::error::{ExitCode, Result};
use crate::link::both_clusters::with_both;
use crate::link::{Standing, merge};
use crate::verify::{Outcome, Repaired, VerifyOptions, as_json, as_table, repair, verify};

/// Compare both clusters while they are written to; lag is not a difference
#[derive(Debug, Args)]
#[command(
    after_help = "Exits with 0 where both are equal, with 6 where they differ, and with 124 where not \
                  everything could be compared. After --repair: with 0 where nothing is left.\n\n\
                  Examples:\n  tandem verify --namespace 'shop.*' --json\n  tandem verify --repair"
)]
pub struct VerifyArgs {
    /// Only this namespace; * stands for any text, /…/ is a regular expression
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
    /// Settle every difference of documents by the conflict policy; losers go on record
    #[arg(long)]
    pub repair: bool,
    /// With --repair: this side's documents stay, whatever the policy says
    #[arg(long, value_name = "SIDE", requires = "repair")]
    pub from: Option<SideArg>,
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

fn told(link: &str, repaired: &Repaired) -> String {
    let (done, left) = (resync::in_words(&repaired.tally), repaired.left);
    format!("link {link}: repaired: {done}, {left} left\n")
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
    let from = args.from.map(Side::from);
    if from.is_some() {
        let turned = async |clusters: &_| Standing::turned(&config, clusters).await;
        merge::must_have_source(&with_both(&config, turned).await?, from)?;
    }
    let mut found = verify(&config, &options).await?;
    let mut repaired = None;
    if args.repair {
        let stop = CancellationToken::new();
        listen_for_signals(stop.clone())?;
        let settle_time = args.settle_time;
        repaired = Some(repair(&config, &mut found, from, settle_time, stop).await?);
    }
    let link = &config.link.name;
    output::print(&if args.json {
        as_json(link, &found, repaired.as_ref())
    } else {
        let told = repaired.map(|repaired| told(link, &repaired));
        as_table(link, &found) + &told.unwrap_or_default()
    })?;
    Ok(match found.outcome() {
        Outcome::Equal => ExitCode::Done,
        Outcome::Different => ExitCode::Found,
        Outcome::Undecided => ExitCode::TimedOut,
    })
}
