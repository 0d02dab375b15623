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
    output::print(&script(args.shell)?)?;
    Ok(ExitCode::Done)
}

fn script(shell: Shell) -> Result<String> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "tandem", &mut script);
    String::from_utf8(script)
        .map_err(|cause| Error::bug("a script that is no text").caused_by(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_completes_the_values_that_can_be_listed() {
        let of_options = ["update_deleted", "overturned", "logged-at", "ndjson"];
        let all = [of_options.as_slice(), &["b-to-a"]].concat();
        // What is made for fish knows no values of arguments without a name.
        for (shell, values) in [
            (Shell::Bash, all.as_slice()),
            (Shell::Zsh, &all),
            (Shell::Fish, &of_options),
        ] {
            let script = script(shell).unwrap();
            for value in values {
                assert!(script.contains(value), "{shell}: {value}");
            }
        }
    }
}
