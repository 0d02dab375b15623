//! The end of a process whose threads hang in a store that does not answer any more.

use std::io::Write;
use std::time::Duration;

use crate::error::{Error, ExitCode};

/// For whatever still can be finished without the store.
const STORE_FAILED_TIME_MAX: Duration = Duration::from_secs(5);

/// After a failure of the store, has the process end in a moment, whatever hangs by then: sled has
/// calls that never return once its disk is full, and they may hold every thread of the runtime.
/// Nothing is lost by that, as by any kill.
pub(super) fn end_soon_without_a_store(error: &Error) {
    if error.exit != ExitCode::Store {
        return;
    }
    let (code, hint) = (error.exit as i32, error.hint.clone().unwrap_or_default());
    let line = format!("error: {error}\nhint: {hint}\n");
    let waits = move || {
        std::thread::sleep(STORE_FAILED_TIME_MAX);
        let _ = std::io::stderr().write_all(line.as_bytes());
        std::process::exit(code);
    };
    let started = std::thread::Builder::new().spawn(waits);
    if let Err(cause) = started {
        tracing::debug!(%cause, "no thread for the last resort");
    }
}
