//! A process whose system calls are counted, fail, or kill it: strace in front of the binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::skipped::skipped;

/// Which of its calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    /// Requests and replies of both clusters; all of them on one thread, see [`WORKERS`].
    Network,
    /// What the local store and its format file do to the disk. sled does it on several threads.
    Disk,
    /// Of these what makes the format file alone: sled's own do not count.
    Marker,
}

/// Which calls of a sweep have their turn, as 1/3, 2/3 or 3/3: by default all of them.
const PART: &str = "TANDEM_SWEEP_PART";

/// A call by its name, and how many of that name a thread has made with it: strace counts each name
/// and each thread by itself.
pub type Call = (&'static str, usize);

impl Calls {
    fn names(self) -> &'static [&'static str] {
        match self {
            Calls::Network => &["sendto", "recvfrom"],
            Calls::Disk => &[
                "pwrite64",
                "sync_file_range",
                "fsync",
                "fdatasync",
                "rename",
                "unlink",
                "ftruncate",
            ],
            Calls::Marker => &["write", "fsync", "rename"],
        }
    }

    /// Only what is done to these files counts.
    fn only(self, state: &Path) -> Vec<String> {
        let files = match self {
            Calls::Network | Calls::Disk => return Vec::new(),
            Calls::Marker => ["store.format.new", "store.format", ""].map(|name| state.join(name)),
        };
        let path = |file: PathBuf| ["-P".to_owned(), file.display().to_string()];
        files.into_iter().flat_map(path).collect()
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
        skipped("strace cannot trace here, so no call was made to fail");
    }
    usable
}

/// SIGKILL on the way into this call of a thread; `state` is the state directory.
pub fn killed_at(calls: Calls, (name, number): Call, state: &Path) -> Vec<String> {
    let mut words = traced("/dev/null", name, &format!("signal=SIGKILL:when={number}"));
    words.extend(calls.only(state));
    words
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

/// Writes the calls to `file`, see [`all_calls`].
pub fn counted(calls: Calls, state: &Path, file: &Path) -> Vec<String> {
    let file = file.display().to_string();
    let trace = format!("trace={}", calls.names().join(","));
    // Beside the process instead of above it: signals and the exit code are the binary's own.
    let words = ["strace", "-D", "-f", "-qq", "-o", &file, "-e", &trace];
    let words = words.map(str::to_owned).into_iter();
    words.chain(calls.only(state)).collect()
}

fn traced(file: &str, names: &str, inject: &str) -> Vec<String> {
    let (trace, inject) = (format!("trace={names}"), format!("inject={names}:{inject}"));
    let words = [
        "strace", "-D", "-f", "-qq", "-o", file, "-e", &trace, "-e", &inject,
    ];
    words.map(str::to_owned).to_vec()
}

/// Each call that can be told from others: of each name as many as the thread made that made most.
pub fn all_calls(calls: Calls, file: &Path) -> Vec<Call> {
    let text = std::fs::read_to_string(file).expect("the counted calls");
    let mut of_threads: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.contains("resumed>")) {
        let mut words = line.split_whitespace();
        let thread = words.next().unwrap_or_default();
        let name = words.next().and_then(|call| call.split('(').next());
        *of_threads
            .entry((name.unwrap_or_default(), thread))
            .or_default() += 1;
    }
    let mut all = Vec::new();
    for name in calls.names() {
        let of_name = of_threads.iter().filter(|((other, _), _)| other == name);
        let most = of_name.map(|(_, count)| *count).max().unwrap_or(0);
        all.extend((1..=most).map(|number| (*name, number)));
    }
    all
}

/// Those of the part that the environment tells, by their numbers.
pub fn of_this_part(all: &[Call]) -> Vec<Call> {
    let Ok(part) = std::env::var(PART) else {
        return all.to_vec();
    };
    let part = part.split_once('/').expect("a part of so many");
    let (part, parts): (usize, usize) = (part.0.parse().unwrap(), part.1.parse().unwrap());
    let is_of_it = |call: &&Call| call.1 % parts == part % parts;
    all.iter().filter(is_of_it).copied().collect()
}

/// The first quarter of each name.
pub fn early(all: &[Call]) -> Vec<Call> {
    let count = |name| all.iter().filter(|(other, _)| *other == name).count();
    let is_early = |call: &&Call| call.1 <= count(call.0).div_ceil(4);
    all.iter().filter(is_early).copied().collect()
}
