//! A panic, in whichever task, ends the process in one clear line and exit code 1.

use std::io::Write;
use std::panic::PanicHookInfo;

use crate::error::ExitCode;

/// Has every panic from now on end the process. A task that dies alone would leave the rest
/// running without it, unseen; a killed process loses nothing.
pub fn end_the_process() {
    std::panic::set_hook(Box::new(|info| {
        let _ = writeln!(std::io::stderr(), "{}", line(info));
        std::process::exit(ExitCode::Unexpected as i32);
    }));
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
