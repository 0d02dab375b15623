//! Results on stdout, errors on stderr.

use std::io::{self, BufWriter, ErrorKind, Stdout, Write};

use crate::error::{Error, Result};
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

/// Prints `error: …` and, where there is one, `hint: …`.
pub fn print_error(error: &Error) {
    let mut text = format!("error: {error}\n");
    if let Some(hint) = &error.hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    let _ = io::stderr().lock().write_all(harmless(&text).as_bytes());
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
