//! A process whose system calls are counted, fail, or kill it: strace in front of the binary.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// Which of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// Requests and replies of both clusters; all of them on one thread, see [`WORKERS`].
    Network,
    /// What the local store and its format file do to the disk. sled does it on several threads,
    /// and strace counts by thread.
    Disk,
}

impl Calls {
    pub fn names(self) -> &'static str {
        match self {
            Calls::Network => "sendto,recvfrom",
            Calls::Disk => "pwrite64,sync_file_range,fsync,fdatasync,rename,unlink,ftruncate",
        }
    }
}

/// With one worker, the count of a thread is the count of the process.
pub const WORKERS: (&str, &str) = ("TOKIO_WORKER_THREADS", "1");

/// Whether processes may be traced here; says so where not.
pub fn is_usable() -> bool {
    let traced = Command::new("strace")
        .args([
            "-D",
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=none",
            "true",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let usable = traced.is_ok_and(|status| status.success());
    if !usable {
        println!("SKIPPED: strace cannot trace here, so no call was made to fail");
    }
    usable
}

/// SIGKILL on the way into the `number`th of these calls of a thread.
pub fn killed_at(calls: Calls, number: usize) -> Vec<String> {
    let (names, inject) = (calls.names(), format!("signal=SIGKILL:when={number}"));
    traced("/dev/null", names, &inject)
}

/// These calls fail with `error` from the `first`th of each thread on.
pub fn failing_from(names: &str, error: &str, first: usize) -> Vec<String> {
    failing(names, error, &format!("{first}+"))
}

/// These calls fail with `error`, those of each thread that `when` tells in strace's words.
pub fn failing(names: &str, error: &str, when: &str) -> Vec<String> {
    traced("/dev/null", names, &format!("error={error}:when={when}"))
}

/// The same, of calls about one file alone.
pub fn failing_on(file: &Path, names: &str, error: &str, when: &str) -> Vec<String> {
    let mut words = failing(names, error, when);
    words.extend(["-P".to_owned(), file.display().to_string()]);
    words
}

/// Writes the calls to `file`, see [`most_calls`].
pub fn counted(calls: Calls, file: &Path) -> Vec<String> {
    let file = file.display().to_string();
    let trace = format!("trace={}", calls.names());
    // Beside the process instead of above it: signals and the exit code are the binary's own.
    let words = ["strace", "-D", "-f", "-qq", "-o", &file, "-e", &trace];
    words.map(str::to_owned).to_vec()
}

fn traced(file: &str, names: &str, inject: &str) -> Vec<String> {
    let (trace, inject) = (format!("trace={names}"), format!("inject={names}:{inject}"));
    let words = [
        "strace", "-D", "-f", "-qq", "-o", file, "-e", &trace, "-e", &inject,
    ];
    words.map(str::to_owned).to_vec()
}

/// The calls of the thread that made most of them.
pub fn most_calls(file: &Path) -> usize {
    let text = std::fs::read_to_string(file).expect("the counted calls");
    let mut of_threads: BTreeMap<&str, usize> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.contains("resumed>")) {
        let thread = line.split_whitespace().next().unwrap_or_default();
        *of_threads.entry(thread).or_default() += 1;
    }
    of_threads.into_values().max().unwrap_or(0)
}
