//! Tells a command: a message of JSON on its standard input.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A command that takes longer is ended.
const TIME_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// All that it gets of our environment, which may hold connection strings.
const VARIABLES: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// Runs it to its end. To be called where blocking is allowed.
///
/// # Errors
/// Why the message counts as not delivered, without anything that it printed.
pub fn run(words: &[String], message: &str) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("the command is empty")?;
    let kept = VARIABLES.into_iter().filter_map(|name| {
        let value: OsString = std::env::var_os(name)?;
        Some((name, value))
    });
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(kept)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|cause| format!("cannot be started: {}", cause.kind()))?;
    if let Some(mut input) = child.stdin.take() {
        // A message is far smaller than a pipe; whoever does not read it need not.
        let _ = input.write_all(message.as_bytes());
    }
    match wait(&mut child)? {
        status if status.success() => Ok(()),
        status => Err(format!("ended with {status}")),
    }
}

fn wait(child: &mut Child) -> Result<ExitStatus, String> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if start.elapsed() < TIME_MAX => std::thread::sleep(POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("took longer than {} s", TIME_MAX.as_secs()));
            }
            Err(cause) => return Err(format!("cannot be waited for: {}", cause.kind())),
        }
    }
}

/// The file that would be run; none where there is none.
pub fn found(program: &str) -> Option<PathBuf> {
    let runs = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        let about = path.metadata().ok()?;
        (about.is_file() && about.permissions().mode() & 0o111 != 0).then(|| path.to_owned())
    };
    if program.contains('/') {
        return runs(Path::new(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|folder| runs(&folder.join(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // None is started here: a child holds the locks of other tests' stores for a moment.
    #[test]
    fn a_program_is_found_by_its_path_or_among_those_of_the_environment() {
        assert!(found("sh").is_some());
        assert!(found("/bin/sh").is_some());
        assert!(found("/etc/passwd").is_none());
        assert!(found("no-such-program").is_none());
    }
}
