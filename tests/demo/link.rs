//! The built tandem: its configuration, its commands and its running process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use bson::Timestamp;
use serde_json::Value;

use crate::narrate::Narrator;
use crate::processes::{guard_of, send_signal};
use crate::{Outcome, POLL};

const STREAMING_TIME_MAX: Duration = Duration::from_secs(30);
const STOP_TIME_MAX: Duration = Duration::from_secs(30);
const LOG_LINES_SHOWN: usize = 15;

pub struct Link {
    binary: PathBuf,
    dir: PathBuf,
    running: Option<Running>,
}

/// The process, and a guard that ends it when this program is itself killed.
struct Running {
    process: Child,
    guard: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The guard first: a process id that was reaped may belong to somebody else.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Link {
    /// Writes `tandem.toml` into `dir`, where everything of tandem then stays.
    pub fn new(binary: &Path, dir: &Path, toml: &str) -> Outcome<Self> {
        std::fs::write(dir.join("tandem.toml"), toml)?;
        Ok(Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            running: None,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(arguments).current_dir(&self.dir);
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Outcome<Output> {
        let mut command = self.command(arguments);
        Ok(command.stdin(Stdio::null()).output()?)
    }

    /// Runs a command before the eyes of the reader. An error where its exit code is not 0.
    pub fn show(&self, narrator: &Narrator, arguments: &[&str], lines_max: usize) -> Outcome<()> {
        narrator.command(&format!("tandem {}", arguments.join(" ")));
        let output = self.run(arguments)?;
        narrator.output(&String::from_utf8_lossy(&output.stdout), lines_max);
        succeeded(arguments, &output)
    }

    /// The JSON that a command prints.
    pub fn json(&self, arguments: &[&str]) -> Outcome<Value> {
        let output = self.run(arguments)?;
        succeeded(arguments, &output)?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Starts `tandem run` and returns once both directions stream.
    pub async fn start(&mut self) -> Outcome<()> {
        self.start_within(STREAMING_TIME_MAX).await
    }

    /// The same, where a copy comes first.
    pub async fn start_within(&mut self, time_max: Duration) -> Outcome<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let process = self
            .command(&["run"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let pid = process.id();
        let guard = guard_of(pid);
        self.running = Some(Running { process, guard });
        let deadline = tokio::time::Instant::now() + time_max;
        loop {
            if let Some(status) = self.running_process()?.try_wait()? {
                return Err(format!("tandem run ended with {status}\n{}", self.log_tail()).into());
            }
            if let Ok(status) = self.json(&["status", "--json"])
                && status["pid"] == pid
                && phases(&status).all(|phase| phase == "streaming")
            {
                return Ok(());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(format!("tandem does not stream\n{}", self.log_tail()).into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn running_process(&mut self) -> Outcome<&mut Child> {
        let running = self.running.as_mut().ok_or("tandem is not running")?;
        Ok(&mut running.process)
    }

    pub fn pid(&mut self) -> Outcome<u32> {
        Ok(self.running_process()?.id())
    }

    /// SIGKILL, and the process is gone when this returns.
    pub fn kill9(&mut self) {
        self.running = None;
    }

    pub fn freeze(&mut self) -> Outcome<()> {
        send_signal(self.pid()?, "STOP");
        Ok(())
    }

    pub fn thaw(&mut self) -> Outcome<()> {
        send_signal(self.pid()?, "CONT");
        Ok(())
    }

    /// Stops it as an operator does; gives its exit code.
    pub async fn stop(&mut self) -> Outcome<Option<i32>> {
        send_signal(self.pid()?, "TERM");
        let deadline = tokio::time::Instant::now() + STOP_TIME_MAX;
        loop {
            if let Some(status) = self.running_process()?.try_wait()? {
                self.running = None;
                return Ok(status.code());
            }
            if tokio::time::Instant::now() > deadline {
                return Err(format!("tandem does not stop\n{}", self.log_tail()).into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether each pipeline has applied everything up to its source's time.
    pub fn has_applied(&self, times: [Timestamp; 2]) -> bool {
        let Ok(status) = self.json(&["status", "--json"]) else {
            return false;
        };
        ["a-to-b", "b-to-a"].iter().zip(times).all(|(id, time)| {
            let pipelines = status["pipelines"].as_array();
            let pipeline = pipelines.and_then(|all| all.iter().find(|one| one["id"] == *id));
            let at = pipeline.map(|one| &one["applied_through"]["ts"]);
            let part = |index: usize| at.and_then(|ts| ts[index].as_u64()).unwrap_or(0);
            (part(0), part(1)) >= (time.time.into(), time.increment.into())
        })
    }

    fn log_path(&self) -> PathBuf {
        self.dir.join("tandem.log")
    }

    pub fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

fn phases(status: &Value) -> impl Iterator<Item = &Value> {
    let pipelines = status["pipelines"].as_array().into_iter().flatten();
    pipelines.map(|pipeline| &pipeline["phase"])
}

fn succeeded(arguments: &[&str], output: &Output) -> Outcome<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("tandem {}: {}\n{said}", arguments.join(" "), output.status).into())
}
