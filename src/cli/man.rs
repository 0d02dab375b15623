//! `tandem man`: the manual pages, one for each command, from what `--help` says.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::{Cli, output};
use crate::error::{Class, Error, ExitCode, Result};

/// Write a manual page for each command
#[derive(Debug, Args)]
#[command(hide = true, after_help = "Example:\n  tandem man target/man")]
pub struct ManArgs {
    /// The folder that they go to; it is made where it is missing
    pub folder: PathBuf,
}

/// # Errors
/// Exit 1 where a page cannot be written.
pub fn run(args: &ManArgs) -> Result<ExitCode> {
    let folder = &args.folder;
    let pages = write_all(folder).map_err(|cause| {
        let what = format!("cannot write manual pages to {}", folder.display());
        Error::new(ExitCode::Unexpected, Class::Operator, what)
            .caused_by(cause)
            .hint("name a folder that can be written")
    })?;
    output::print(&format!("{pages} pages in {}\n", folder.display()))?;
    Ok(ExitCode::Done)
}

fn write_all(folder: &Path) -> std::io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    let mut command = Cli::command();
    command.build();
    write(folder, &command, "tandem")
}

/// Returns how many pages it were.
fn write(folder: &Path, command: &clap::Command, name: &str) -> std::io::Result<usize> {
    let mut page = Vec::new();
    // The page's name; what is typed keeps its spaces.
    let titled = command.clone().display_name(name);
    Man::new(titled).render(&mut page)?;
    std::fs::write(folder.join(format!("{name}.1")), page)?;
    let mut pages = 1;
    let inner = command.get_subcommands();
    for inner in inner.filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        pages += write(folder, inner, &format!("{name}-{}", inner.get_name()))?;
    }
    Ok(pages)
}
