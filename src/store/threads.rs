//! A store that waits for threads which it was never given.

use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use super::open::io_error;
use crate::error::{Error, Result};

/// sled starts its threads before it reads anything but its snapshot, a small part of the store.
const STARTED_TIME_MAX: Duration = Duration::from_secs(20);

/// What the names of the threads begin with that read and write for sled.
const NAMED: &str = "sled-io-";

const EAGAIN: i32 = 11;

/// Opens a store, and has the process end where nothing can come of that: of the threads that read
/// and write for sled some may be missing, but where none could be started it waits for ever.
///
/// # Errors
/// Exit 7 where no thread can be started; as `opening` says.
pub(super) fn watched<T>(dir: &Path, opening: impl FnOnce() -> Result<T>) -> Result<T> {
    let (opened, waits) = mpsc::channel();
    let error = io_error(dir, std::io::Error::from_raw_os_error(EAGAIN));
    std::thread::Builder::new()
        .spawn(move || watch(&waits, &error))
        .map_err(|cause| io_error(dir, cause))?;
    let outcome = opening();
    drop(opened);
    outcome
}

/// Returns once nobody holds the other end.
fn watch(waits: &Receiver<()>, error: &Error) {
    while waits.recv_timeout(STARTED_TIME_MAX) == Err(RecvTimeoutError::Timeout) {
        if has_threads() == Some(false) {
            let hint = error.hint.as_deref().unwrap_or_default();
            let line = format!("error: {error}\nhint: {hint}\n");
            let _ = std::io::stderr().write_all(line.as_bytes());
            std::process::exit(error.exit as i32);
        }
    }
}

/// None where the system does not tell.
fn has_threads() -> Option<bool> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let named = |thread: std::io::Result<std::fs::DirEntry>| {
        let name = std::fs::read_to_string(thread.ok()?.path().join("comm")).ok()?;
        Some(name.starts_with(NAMED))
    };
    let found: Vec<bool> = threads.filter_map(named).collect();
    (!found.is_empty()).then(|| found.contains(&true))
}
