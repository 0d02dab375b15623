//! `tandem man`: the manual pages, one for each command, from what `--help` says.

use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

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
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    write(folder, &command, "tandem")
}

/// Returns how many pages it were.
fn write(folder: &Path, command: &Command, name: &str) -> std::io::Result<usize> {
    std::fs::write(folder.join(format!("{name}.1")), page(command, name)?)?;
    let mut pages = 1;
    for inner in command.get_subcommands().filter(|one| !one.is_hide_set()) {
        pages += write(folder, inner, &format!("{name}-{}", inner.get_name()))?;
    }
    Ok(pages)
}

fn page(command: &Command, name: &str) -> std::io::Result<Vec<u8>> {
    // The page's name; what is typed keeps its spaces.
    let titled = command.clone().display_name(name);
    let source = format!("tandem {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(titled).source(source).manual("tandem manual");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    // Names of options and commands are looked for and copied: none is torn or stretched.
    let mut whole_words = Roff::new();
    whole_words.control("nh", []).control("ad", ["l"]);
    whole_words.to_writer(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    let (prose, examples) = after_help(command);
    prose.to_writer(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    examples.to_writer(&mut page)?;
    Ok(page)
}

/// What the help says at its end: sentences, and a section of examples, one a line.
fn after_help(command: &Command) -> (Roff, Roff) {
    let text = command.get_after_help().map(ToString::to_string);
    let (mut prose, mut examples) = (Roff::new(), Roff::new());
    for part in text.unwrap_or_default().split("\n\n") {
        if !part.starts_with("Example") {
            prose.control("PP", []).text([roman(part)]);
            continue;
        }
        examples.control("SH", ["EXAMPLES"]).control("nf", []);
        for line in part.lines().skip(1) {
            examples.text([roman(line.trim_start())]);
        }
        examples.control("fi", []);
    }
    (prose, examples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_each_example_on_a_line_of_its_own_and_no_page_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let pages = write_all(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), pages);
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let report = read("tandem-conflict-report.1");
        let (_, examples) = report.split_once(".SH EXAMPLES\n.nf\n").unwrap();
        assert_eq!(
            examples
                .lines()
                .filter(|line| line.starts_with("tandem "))
                .count(),
            5
        );
        assert!(!examples.contains("One filter given twice"), "{examples}");
        for page in ["tandem.1", "tandem-conflict.1"] {
            let named = read(page);
            let named = named.lines().filter_map(|line| line.strip_suffix("(1)"));
            for name in named.map(|line| line.replace("\\-", "-")) {
                assert!(
                    folder.path().join(format!("{name}.1")).exists(),
                    "{page}: {name}"
                );
            }
        }
    }
}
