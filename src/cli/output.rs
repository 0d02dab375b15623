//! Results on stdout, errors on stderr.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write};

use crate::error::{Error, ExitCode, Result};
use crate::report::escaped;

/// Prints a result. A reader that has had enough, such as `head`, is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = results();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    printed.map_err(|error| Error::bug("cannot write to standard output").caused_by(error))
}

/// Where a long result goes, piece by piece. What a reader that has had enough does not take is
/// thrown away: the exit code may still depend on the rest.
pub fn results() -> impl Write {
    BufWriter::new(Results {
        out: io::stdout(),
        unread: false,
    })
}

struct Results {
    out: Stdout,
    unread: bool,
}

impl Results {
    fn unless_unread<T>(&mut self, done: io::Result<T>, otherwise: T) -> io::Result<T> {
        match done {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.unread = true;
                Ok(otherwise)
            }
            done => done,
        }
    }
}

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unread {
            return Ok(bytes.len());
        }
        let written = self.out.write(bytes);
        self.unless_unread(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.unread {
            return Ok(());
        }
        let flushed = self.out.flush();
        self.unless_unread(flushed, ())
    }
}

/// Text for people. A terminal obeys control characters, and names of collections, databases and
/// indexes may hold them.
pub fn harmless(text: &str) -> String {
    text.split_inclusive('\n')
        .map(|line| match line.strip_suffix('\n') {
            Some(line) => escaped(line) + "\n",
            None => escaped(line),
        })
        .collect()
}

/// Prints `hint: …`, beside a result that may not be the one that was wanted.
pub fn hint(text: &str) {
    let text = format!("hint: {text}\n");
    let _ = io::stderr().lock().write_all(harmless(&text).as_bytes());
}

/// Prints `error: …` and `hint: …`, which is that of the exit code where the error has none.
pub fn print_error(error: &Error) {
    let hint = error.hint.as_deref().unwrap_or_else(|| hint_of(error.exit));
    let text = format!("error: {error}\nhint: {hint}\n");
    let _ = io::stderr().lock().write_all(harmless(&text).as_bytes());
}

/// What to do next where nothing more is known.
fn hint_of(exit: ExitCode) -> &'static str {
    match exit {
        ExitCode::Done => "nothing has to be done",
        ExitCode::Unexpected => {
            "look at the log; starting again is safe, and if it happens again, report it"
        }
        ExitCode::Usage => "`tandem COMMAND --help` tells what it takes, with examples",
        ExitCode::Config => {
            "docs/CONFIG.md tells what each key takes; `tandem init` writes a file to begin with"
        }
        ExitCode::Cluster => "`tandem check` tells what each cluster lacks",
        ExitCode::History => {
            "`tandem resync` brings both sides together again; docs/OPERATIONS.md tells when"
        }
        ExitCode::Found => "`tandem conflict-report` and `tandem verify` show what was found",
        ExitCode::Store => {
            "`tandem status` tells whether a tandem runs on the state directory; look at its disk and permissions"
        }
        ExitCode::Fenced => "only one process may hold a link: look where the other one runs",
        ExitCode::TimedOut => "`tandem status` tells how far it is; give it more time",
        ExitCode::Interrupted => "starting again goes on where it was",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_no_name() {
        assert_eq!(
            harmless("shop.\x1b[2Jorders\r\nnext\u{9b}31m"),
            "shop.\\u{1b}[2Jorders\\r\nnext\\u{9b}31m"
        );
    }
}
