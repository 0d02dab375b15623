//! `tandem pause` and `tandem resume`: one direction, or both, stands still for a while.

use std::os::unix::fs::MetadataExt;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::{Common, output};
use crate::change::PipelineId;
use crate::error::{ExitCode, Result};
use crate::link::{Wanted, pause::change_from_outside};

/// Stop applying in one direction, or in both, until it is resumed; over restarts too
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem pause a-to-b")]
pub struct PauseArgs {
    /// The direction; without it every direction of the link
    #[arg(value_name = "PIPELINE", value_parser = pipelines())]
    pub pipeline: Option<PipelineId>,
}

/// Let a paused direction go on where it stopped
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem resume a-to-b")]
pub struct ResumeArgs {
    /// The direction; without it every direction of the link
    #[arg(value_name = "PIPELINE", value_parser = pipelines())]
    pub pipeline: Option<PipelineId>,
}

fn pipelines() -> impl TypedValueParser<Value = PipelineId> {
    let names = PipelineId::BOTH.map(PipelineId::as_str);
    PossibleValuesParser::new(names)
        .try_map(|typed| PipelineId::parse(&typed).ok_or("not a direction"))
}

/// # Errors
/// As [`change_from_outside`]; a config error (3).
pub async fn pause(common: &Common, args: &PauseArgs) -> Result<ExitCode> {
    change(common, args.pipeline, Wanted::Paused).await
}

/// # Errors
/// As [`pause`].
pub async fn resume(common: &Common, args: &ResumeArgs) -> Result<ExitCode> {
    change(common, args.pipeline, Wanted::Resumed).await
}

async fn change(common: &Common, one: Option<PipelineId>, wanted: Wanted) -> Result<ExitCode> {
    let config = common.load_config()?;
    let told = change_from_outside(&config, one, wanted, &operator()).await?;
    output::print(&(told + "\n"))?;
    Ok(ExitCode::Done)
}

/// Who asks, for the record: the account and the host.
fn operator() -> String {
    let account = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|name| !name.is_empty()));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let account = account.unwrap_or_else(|| {
        let own = std::fs::metadata("/proc/self").map(|own| own.uid());
        own.map_or("unknown".to_owned(), |uid| format!("uid {uid}"))
    });
    match host.trim() {
        "" => account,
        host => format!("{account}@{host}"),
    }
}
