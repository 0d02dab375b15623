//! A panic, in whichever task, ends the process in one clear line and exit code 1.

use std::any::Any;
use std::cell::Cell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use crate::error::{Error, ExitCode};

thread_local! {
    /// How many calls of [`caught`] this thread is in.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
}

/// Has every panic from now on end the process. A task that dies alone would leave the rest
/// running without it, unseen; a killed process loses nothing.
///
/// `known` gives the error that stands behind a panic which is no defect of tandem.
pub fn end_the_process(known: fn(&PanicHookInfo<'_>) -> Option<Error>) {
    std::panic::set_hook(Box::new(move |info| {
        if CATCHING.get() > 0 {
            return;
        }
        let (line, code) = match known(info) {
            Some(error) => (told(&error), error.exit),
            None => (line(info), ExitCode::Unexpected),
        };
        let _ = writeln!(std::io::stderr(), "{line}");
        std::process::exit(code as i32);
    }));
}

/// Runs the work of a crate that panics over what it cannot use.
///
/// Only panics of this thread are caught.
///
/// # Errors
/// What it panicked with. It may quote anything, so it is not for showing.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    CATCHING.set(CATCHING.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(CATCHING.get() - 1);
    outcome.map_err(|payload| text(payload.as_ref()).to_owned())
}

/// What a panic says; empty where that is no text.
pub fn text(payload: &(dyn Any + Send)) -> &str {
    let formatted = payload.downcast_ref::<String>().map(String::as_str);
    let literal = || payload.downcast_ref::<&'static str>().copied();
    formatted.or_else(literal).unwrap_or_default()
}

fn told(error: &Error) -> String {
    let hint = error.hint.as_deref().map(|hint| format!("\nhint: {hint}"));
    format!("error: {error}{}", hint.unwrap_or_default())
}

/// Shows a message only where it is a literal of the program: a formatted one may quote a
/// document or a connection string.
fn line(info: &PanicHookInfo<'_>) -> String {
    let at = info
        .location()
        .map(|at| format!(" at {}:{}", at.file(), at.line()))
        .unwrap_or_default();
    match info.payload().downcast_ref::<&'static str>() {
        Some(message) => format!("error: a defect of tandem{at}: {message}"),
        None => format!("error: a defect of tandem{at}"),
    }
}
