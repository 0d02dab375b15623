//! `tandem reload`: the running link reads its configuration again.

use clap::Args;

use super::{Common, output};
use crate::error::{Error, ExitCode, Result};
use crate::link::control::{Answer, Request, Response, ask};

/// Have the running link read its configuration again, as SIGHUP does
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem reload")]
pub struct ReloadArgs {}

/// # Errors
/// A config error (3) where the file has a problem, or a key that a running link does not take has
/// changed; 2 where no link runs.
pub async fn run(common: &Common, _args: &ReloadArgs) -> Result<ExitCode> {
    let config = common.load_config()?;
    let state_dir = &config.link.state_dir;
    match ask(state_dir, &Request::Reload).await? {
        Some(Answer::Line(Response::Done { message })) => {
            output::print(&(message + "\n"))?;
            Ok(ExitCode::Done)
        }
        Some(Answer::Line(_) | Answer::Records(_)) => Err(Error::bug(
            "the running tandem sent something else for a reload",
        )),
        None => Err(Error::usage(format!(
            "no tandem runs on {}: there is nothing to reload",
            state_dir.display()
        ))
        .hint(
            "a start reads the configuration anyway; a process that waits for its --window takes \
             SIGHUP, and acts on it once it is open",
        )),
    }
}
