//! Results on stdout, errors on stderr.

use std::io::{ErrorKind, Write};

use crate::error::{Error, Result};

/// Prints a result. A reader that has had enough, such as `head`, is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::bug("cannot write to standard output").caused_by(error))
        }
        _ => Ok(()),
    }
}

/// Prints `error: …` and, where there is one, `hint: …`.
pub fn print_error(error: &Error) {
    let mut text = format!("error: {error}\n");
    if let Some(hint) = &error.hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
