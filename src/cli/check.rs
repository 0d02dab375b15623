//! `tandem check`: can this link work?

use clap::Args;

use super::{Common, output};
use crate::error::{ExitCode, Result};
use crate::link::check::{self, Verdict};

/// Tell whether this link can work, one line a requirement; it only reads
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tandem check --write-probe\n\nExits with 4 where a line says FAIL."
)]
pub struct CheckArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Also run one tagged transaction in tandem's own database on each cluster
    #[arg(long)]
    pub write_probe: bool,
}

/// # Errors
/// A config error (3), or a cluster that cannot be asked at all (4).
pub async fn run(common: &Common, args: &CheckArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let probe = if args.write_probe {
        check::Probe::Write
    } else {
        check::Probe::ReadOnly
    };
    let lines = check::check(&config, probe).await?;
    output::print(&if args.json {
        check::as_json(&lines)
    } else {
        output::harmless(&check::as_table(&lines))
    })?;
    if lines.iter().any(|line| line.verdict == Verdict::Fail) {
        return Ok(ExitCode::Cluster);
    }
    Ok(ExitCode::Done)
}
