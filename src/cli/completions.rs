//! `tandem completions`: what a shell offers after the tab key.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use super::{Cli, output};
use crate::error::{Error, ExitCode, Result};

/// Print what lets a shell complete commands and options
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                  tandem completions bash > /etc/bash_completion.d/tandem\n  \
                  tandem completions zsh > ~/.zfunc/_tandem\n  \
                  tandem completions fish > ~/.config/fish/completions/tandem.fish")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// # Errors
/// Exit 1 where standard output cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "tandem", &mut script);
    let script = String::from_utf8(script)
        .map_err(|cause| Error::bug("a script that is no text").caused_by(cause))?;
    output::print(&script)?;
    Ok(ExitCode::Done)
}
