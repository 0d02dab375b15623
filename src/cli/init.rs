//! `tandem init`: writes a commented config file.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;

use clap::Args;

use super::{Common, output};
use crate::config::Config;
use crate::error::{Error, ExitCode, Result};

/// The file will hold passwords: nobody else may read it.
const FILE_MODE: u32 = 0o600;

/// Write a commented tandem.toml
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tandem init --config eu-us.toml")]
pub struct InitArgs {}

/// # Errors
/// A config error (3) where the file is there already or cannot be written.
pub fn run(common: &Common, _: &InitArgs) -> Result<ExitCode> {
    let shown = common.config.display();
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&common.config);
    let written = created.and_then(|mut file| {
        file.write_all(Config::template().as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => {
            output::print(&format!(
                "wrote {shown}: fill in the connection strings and the namespaces, then `tandem check`\n"
            ))?;
            Ok(ExitCode::Done)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(Error::config(format!(
            "{shown} is there already and is left as it is"
        ))
        .hint("`--config` names another file")),
        Err(error) => Err(Error::config(format!("cannot write {shown}")).caused_by(error)),
    }
}
