//! Processes that end with this program, and signals.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Sends a signal by name with `kill`, since this crate has no unsafe code.
pub fn send_signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name}");
}

/// A shell that kills `pid` when its input ends, which is when this program is gone.
pub fn guard_of(pid: u32) -> Child {
    guard("read -r _; kill -KILL \"$0\"", &[&pid.to_string()])
}

/// The same, and it removes the process's files.
pub fn guard_with_files(pid: u32, dir: &Path) -> Child {
    let script = "read -r _; kill -KILL \"$0\"; sleep 1; rm -rf \"$1\"";
    let dir = dir.to_str().expect("a path in UTF-8");
    guard(script, &[&pid.to_string(), dir])
}

fn guard(script: &str, arguments: &[&str]) -> Child {
    Command::new("sh")
        .args(["-c", script])
        .args(arguments)
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh starts")
}
