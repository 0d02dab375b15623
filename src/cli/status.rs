//! `tandem status`: where the link stands.

use clap::Args;

use super::{Common, output};
use crate::error::{Error, ExitCode, Result};
use crate::link::{pipelines_of, reporting};
use crate::telemetry::status::to_text;

/// Tell where the link stands, whether or not it runs
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem status --json")]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// # Errors
/// A config error (3), or a store that cannot be read (7).
pub async fn run(common: &Common, args: &StatusArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let names = config
        .clusters
        .as_ref()
        .map(|cluster| cluster.name.as_str());
    let pipelines = pipelines_of(config.link.mode);
    let link = &config.link;
    let status = reporting::status(&link.state_dir, &link.name, names, pipelines).await?;
    output::print(&if args.json {
        let json = serde_json::to_string_pretty(&status)
            .map_err(|cause| Error::bug("cannot write the status as JSON").caused_by(cause))?;
        json + "\n"
    } else {
        output::harmless(&to_text(&status))
    })?;
    Ok(ExitCode::Done)
}
