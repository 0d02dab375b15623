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

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    const SECRET: &str = "hunter2";
    const CHILD: &str = "TANDEM_TEST_PANIC";

    /// Panics as it is told, in a process of its own.
    #[test]
    fn panics_where_it_is_told_to() {
        let Ok(how) = std::env::var(CHILD) else {
            return;
        };
        end_the_process(|_| None);
        let uri = format!("mongodb://tandem:{SECRET}@eu.example");
        let refused = || -> Result<(), String> { Err(uri.clone()) };
        match how.as_str() {
            "formatted" => panic!("cannot connect to {uri}"),
            "expected" => refused().expect("it connects"),
            "a value" => std::panic::panic_any(uri),
            "compared" => assert_eq!(uri, "mongodb://eu.example"),
            "in a thread" => drop(std::thread::spawn(move || panic!("{uri}")).join()),
            "in a task" => {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let task = runtime.spawn(async move { panic!("{uri}") });
                let _: Result<(), _> = runtime.block_on(task);
            }
            _ => panic!("a literal of the program"),
        }
    }

    #[test]
    fn no_panic_shows_a_connection_string_and_each_ends_with_1() {
        for how in [
            "formatted",
            "expected",
            "a value",
            "compared",
            "in a thread",
            "in a task",
            "a literal",
        ] {
            let test = "telemetry::panics::tests::panics_where_it_is_told_to";
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(CHILD, how)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{how}: {said}");
            assert!(
                said.starts_with("error: a defect of tandem at "),
                "{how}: {said}"
            );
            assert_eq!(said.lines().count(), 1, "{how}: {said}");
            let all = said + &String::from_utf8_lossy(&output.stdout);
            assert!(
                !all.contains(SECRET) && !all.contains("mongodb://"),
                "{how}: {all}"
            );
            let literal = all.contains("a literal of the program");
            assert_eq!(literal, how == "a literal");
        }
    }
}
