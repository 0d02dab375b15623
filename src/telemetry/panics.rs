//! A panic, in whichever task, ends the process in one clear line and exit code 1.

use std::cell::Cell;
use std::io::Write;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};

use crate::error::ExitCode;

thread_local! {
    /// How many calls of [`caught`] this thread is in.
    static CATCHING: Cell<u32> = const { Cell::new(0) };
}

/// Has every panic from now on end the process. A task that dies alone would leave the rest
/// running without it, unseen; a killed process loses nothing.
pub fn end_the_process() {
    std::panic::set_hook(Box::new(|info| {
        if CATCHING.get() > 0 {
            return;
        }
        let _ = writeln!(std::io::stderr(), "{}", line(info));
        std::process::exit(ExitCode::Unexpected as i32);
    }));
}

/// Runs the work of a crate that panics over data it cannot read; none where it did.
///
/// Only panics of this thread are caught.
pub fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    CATCHING.set(CATCHING.get() + 1);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(CATCHING.get() - 1);
    outcome.ok()
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
