//! Asking before something is done that cannot be undone.

use std::io::{BufRead, IsTerminal, Write};

use super::output::harmless;
use crate::error::{Error, Result};

/// Shows what will be done and, without `--yes`, asks on the terminal.
///
/// # Errors
/// Exit 2 where there is no terminal to ask on.
pub fn confirm(shown: &str, yes: bool) -> Result<bool> {
    let unanswered = |cause| Error::usage("no answer could be read").caused_by(cause);
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(harmless(shown).as_bytes());
    if yes {
        return Ok(true);
    }
    let input = std::io::stdin();
    if !input.is_terminal() {
        return Err(
            Error::usage("there is no terminal to ask on; nothing was changed")
                .hint("`--yes` goes on without asking"),
        );
    }
    let _ = write!(err, "\ngo on? [y/N] ");
    let _ = err.flush();
    let mut answer = String::new();
    input.lock().read_line(&mut answer).map_err(unanswered)?;
    let answer = answer.trim().to_lowercase();
    Ok(answer == "y" || answer == "yes")
}
