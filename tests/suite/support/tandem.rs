//! The built binary: its configuration file, its background run, its other commands.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::TryStreamExt;
use serde_json::Value;

use super::env::TestEnv;
use super::processes::{guard_of, send_signal};
use super::wait::wait_for;

/// Long enough for a start with recovery on a busy machine of two cores.
const STREAMING_TIME_MAX: Duration = Duration::from_secs(60);
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);
const BINARY: &str = env!("CARGO_BIN_EXE_tandem");
const LOG_LINES_SHOWN: usize = 60;

/// One configuration file, and the background process that runs it, if any.
pub struct Tandem {
    config: PathBuf,
    environment: Vec<(String, String)>,
    run_arguments: Vec<String>,
    wrapper: Vec<String>,
    running: Option<Running>,
}

struct Running {
    process: Child,
    guard: Child,
}

impl Tandem {
    pub fn new(config: PathBuf) -> Self {
        Self {
            config,
            environment: Vec::new(),
            run_arguments: Vec::new(),
            wrapper: Vec::new(),
            running: None,
        }
    }

    /// Sets an environment variable for every process started from here on.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Further arguments of `run` for every start from here on.
    pub fn run_with(&mut self, arguments: &[&str]) -> &mut Self {
        self.run_arguments = arguments.iter().map(|text| text.to_string()).collect();
        self
    }

    /// Puts a command in front of every background process from here on; none takes it away.
    pub fn under(&mut self, wrapper: &[String]) -> &mut Self {
        self.wrapper = wrapper.to_vec();
        self
    }

    /// Starts `tandem run` in the background; its output goes to [`Tandem::log_path`].
    pub fn start(&mut self) {
        let mut arguments = vec!["run"];
        let further = self.run_arguments.clone();
        arguments.extend(further.iter().map(String::as_str));
        self.start_command(&arguments);
    }

    /// The same with another command.
    pub fn start_command(&mut self, arguments: &[&str]) {
        assert!(self.running.is_none(), "tandem runs already");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("a log file");
        let process = self
            .command(&self.wrapper, arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("tandem starts");
        let guard = guard_of(process.id());
        self.running = Some(Running { process, guard });
    }

    /// A command of the binary with this configuration, not started yet.
    pub fn command(&self, wrapper: &[String], arguments: &[&str]) -> Command {
        let mut words = wrapper.iter().map(String::as_str).chain([BINARY]);
        let mut command = Command::new(words.next().expect("the binary"));
        command.args(words);
        // The switches of the tests would be unknown keys of its configuration.
        let ours = std::env::vars_os().filter(|(name, _)| {
            let name = name.to_string_lossy();
            name.starts_with("TANDEM_")
        });
        for (name, _) in ours {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .arg("--config")
            .arg(&self.config)
            .envs(self.environment.iter().cloned());
        command
    }

    /// Runs a command to its end; panics where it does not end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let (stdout, stderr) = (capture(), capture());
        let mut child = self
            .command(&[], arguments)
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().expect("a second handle"))
            .stderr(stderr.try_clone().expect("a second handle"))
            .spawn()
            .expect("tandem starts");
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait") {
                break status;
            }
            if start.elapsed() > COMMAND_TIME_MAX {
                let _ = child.kill();
                let _ = child.wait();
                panic!("tandem {arguments:?} did not end in {COMMAND_TIME_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        Output {
            status,
            stdout: captured(stdout),
            stderr: captured(stderr),
        }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.config.with_extension(name)
    }

    /// Where the output of the background process goes.
    pub fn log_path(&self) -> PathBuf {
        self.beside("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// `status --json`; null where it fails.
    pub fn status(&self) -> Value {
        let output = self.run(&["status", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// One pipeline's part of the status, null where there is none.
    pub fn pipeline(&self, id: &str) -> Value {
        let status = self.status();
        let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
        let found = pipelines.into_iter().find(|pipeline| pipeline["id"] == id);
        found.unwrap_or(Value::Null)
    }

    /// A total summed over the pipelines.
    pub fn total(&self, name: &str) -> u64 {
        let status = self.status();
        let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
        pipelines.iter().filter_map(|p| p[name].as_u64()).sum()
    }

    /// The records of `conflict-report`, with further arguments.
    pub fn conflicts(&self, arguments: &[&str]) -> Vec<Value> {
        let mut all = vec!["conflict-report", "--format", "json"];
        all.extend(arguments);
        let output = self.run(&all);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            let stderr = String::from_utf8_lossy(&output.stderr);
            panic!("conflict-report is no JSON: {error}\n{stderr}")
        });
        assert_eq!(report["format"], 1, "the format of the report");
        report["conflicts"].as_array().expect("conflicts").clone()
    }

    /// The records, once the local report says of all of them what the clusters say: a record, or that
    /// it is overturned, gets there a moment after the transaction that both sides' documents tell of.
    pub async fn all_conflicts(&self, env: &TestEnv) -> Vec<Value> {
        const SOON: Duration = Duration::from_secs(10);
        const OVERTURNED: &str = "overturned";
        let mut there = BTreeMap::new();
        for client in [env.a.client(), env.b.client()] {
            let records = client
                .database("__tandem")
                .collection::<Document>("conflicts");
            let wanted = doc! { "status": 1 };
            let cursor = records.find(doc! {}).projection(wanted).await;
            let found: Vec<Document> = cursor.expect("find").try_collect().await.expect("records");
            there.extend(found.iter().filter_map(|record| {
                let is_overturned = record.get_str("status").is_ok_and(|one| one == OVERTURNED);
                Some((record.get_str("_id").ok()?.to_owned(), is_overturned))
            }));
        }
        wait_for("the report has all records", SOON, || async {
            let records = self.conflicts(&[]);
            let known = records
                .iter()
                .map(|one| (one["id"].as_str(), &one["status"]));
            let known: BTreeMap<_, _> = known.collect();
            let says_so = |(id, is_overturned): (&String, &bool)| {
                let status = known.get(&Some(id.as_str()));
                status.is_some_and(|status| !is_overturned || *status == OVERTURNED)
            };
            there.iter().all(says_so).then(|| records.clone())
        })
        .await
    }

    /// Waits until every pipeline streams; panics where the process ends instead.
    pub async fn wait_until_streaming(&mut self) {
        let ended = tokio::time::timeout(STREAMING_TIME_MAX, self.ended_or_streaming()).await;
        match ended {
            Ok(None) => {}
            Ok(Some(code)) => panic!("tandem ended with {code} before it streamed"),
            Err(_) => panic!(
                "not streaming after {STREAMING_TIME_MAX:?}: {:#}",
                self.status()
            ),
        }
    }

    /// Waits for whichever comes first: the exit code of the process, or none once it streams.
    pub async fn ended_or_streaming(&mut self) -> Option<i32> {
        const POLL: Duration = Duration::from_millis(25);
        let pid = self
            .running
            .as_ref()
            .expect("tandem was started")
            .process
            .id();
        loop {
            if let Some(code) = self.exit_code_now() {
                return Some(code);
            }
            let status = self.status();
            let pipelines = status["pipelines"].as_array().cloned().unwrap_or_default();
            let streams =
                !pipelines.is_empty() && pipelines.iter().all(|p| p["phase"] == "streaming");
            if streams && status["state"] == "running" && status["pid"] == pid {
                return None;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until `status` is as `wanted` says.
    pub async fn wait_status(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) {
        wait_for(what, deadline, || async {
            wanted(&self.status()).then_some(())
        })
        .await;
    }

    /// Waits for the end of the background process and gives its exit code.
    ///
    /// Panics after `deadline`. A process that a signal ended gives 128 and the signal's number.
    pub async fn wait_exit(&mut self, deadline: Duration) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(code) = self.exit_code_now() {
                self.running = None;
                return code;
            }
            assert!(
                start.elapsed() < deadline,
                "tandem still runs after {deadline:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn exit_code_now(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let running = self.running.as_mut().expect("tandem was started");
        let status = running.process.try_wait().expect("wait")?;
        status.code().or(status.signal().map(|number| 128 + number))
    }

    /// The id of the background process.
    pub fn pid(&self) -> u32 {
        let running = self.running.as_ref().expect("tandem was started");
        running.process.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.running.is_some() && self.exit_code_now().is_none()
    }

    /// SIGKILL, and the process is gone when this returns.
    pub fn kill9(&mut self) {
        self.running = None;
    }

    pub fn sigterm(&self) {
        self.signal("TERM");
    }

    pub fn sighup(&self) {
        self.signal("HUP");
    }

    pub fn sigint(&self) {
        self.signal("INT");
    }

    /// Returns once none of its threads runs any more.
    pub fn sigstop(&self) {
        self.signal("STOP");
        let running = self.running.as_ref().expect("tandem runs");
        let tasks = format!("/proc/{}/task", running.process.id());
        let runs = |task: std::io::Result<std::fs::DirEntry>| {
            let status = task.and_then(|task| std::fs::read_to_string(task.path().join("stat")));
            // The state follows the name in parentheses.
            let state = status
                .ok()
                .and_then(|text| text.rsplit(')').next().map(str::to_owned));
            !state.is_some_and(|state| state.trim_start().starts_with('T'))
        };
        while std::fs::read_dir(&tasks).expect("its threads").any(runs) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn sigcont(&self) {
        self.signal("CONT");
    }

    pub fn signal(&self, name: &str) {
        let running = self.running.as_ref().expect("tandem runs");
        send_signal(running.process.id(), name);
    }

    /// Stops it as an operator does and expects code 0.
    pub async fn stop(&mut self) {
        self.sigterm();
        let code = self.wait_exit(Duration::from_secs(30)).await;
        assert_eq!(code, 0, "tandem stopped when asked\n{}", self.tail());
    }

    /// The end of the log, for a failing test.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

/// A file instead of a pipe: nobody has to read while the command writes.
fn capture() -> File {
    tempfile::tempfile().expect("a file for the output")
}

fn captured(mut file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("captured output");
    bytes
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Tandem {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- {} ends with:\n{}",
                self.log_path().display(),
                self.tail()
            );
        }
    }
}
