//! `tandem cutover`: move the applications to the other cluster.

use std::time::Duration;

use bson::DateTime;
use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::confirm::confirm;
use super::moment::TimeOfDay;
use super::run::listen_for_signals;
use super::runs::steps_json;
use super::{Common, output};
use crate::change::rfc3339;
use crate::config::{Config, duration, window};
use crate::cutover::{
    Comparing, Completed, CutoverOptions, Stopping, UNBLOCK, abort, cutover, plan,
};
use crate::error::{Class, Error, ExitCode, Result};

/// The number that changes with the shape of the JSON.
const FORMAT: u32 = 1;

/// How often the clock is looked at: it may be set, and a machine may sleep.
const CLOCK_INTERVAL: Duration = Duration::from_secs(5);

/// Stop writes, drain, prove both clusters equal, then end the link or turn it round
#[derive(Debug, Args)]
#[command(
    after_help = "Until it is decided, whatever fails is taken back. Interrupted, it is taken up again by the \
                  same command.\n\nExample:\n  tandem cutover --reverse --at 02:00 --abort-if-lag 5s --yes"
)]
pub struct CutoverArgs {
    /// Turn the link round instead of ending it, so that going back is possible
    #[arg(long)]
    pub reverse: bool,
    /// Wait until this time of day
    #[arg(long, value_name = "HH:MM", value_parser = TimeOfDay::parse)]
    pub at: Option<TimeOfDay>,
    /// The time zone of --at, such as Europe/Berlin; by default this host's
    #[arg(long, value_name = "ZONE", value_parser = window::zone, requires = "at")]
    pub time_zone: Option<TimeZone>,
    /// Do not begin where the target is further behind than this
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub abort_if_lag: Option<Duration>,
    /// Take everything back with 124 where it is not decided after this time
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration::parse)]
    pub timeout: Duration,
    /// Do not compare both clusters
    #[arg(long)]
    pub skip_verify: bool,
    /// Do not have the server block writes: the applications were stopped
    #[arg(long)]
    pub no_block: bool,
    /// Give up a cutover that was interrupted: writes are allowed again
    #[arg(long, conflicts_with_all = ["reverse", "at", "abort_if_lag", "skip_verify", "no_block", "json"])]
    pub abort: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// # Errors
/// With the exit code that says why the applications stay where they are.
pub async fn run(common: &Common, args: &CutoverArgs) -> Result<ExitCode> {
    let stop = CancellationToken::new();
    listen_for_signals(stop.clone())?;
    let config = common.load_config()?;
    let link = &config.link.name;
    if args.abort {
        output::print(&match abort(&config).await? {
            true => format!("link {link}: the cutover is given up, writes are allowed again\n"),
            false => format!("link {link}: no cutover is under way\n"),
        })?;
        return Ok(ExitCode::Done);
    }
    let options = args.options();
    let planned = plan(&config, &options).await?;
    if !confirm(&planned.shown, args.yes || planned.decided)? {
        output::print("nothing was changed\n")?;
        return Ok(ExitCode::Done);
    }
    if let Some(at) = args.at.filter(|_| !planned.decided) {
        let zone = args.time_zone.clone().unwrap_or_else(TimeZone::system);
        wait_until(at, &zone, &stop).await?;
    }
    let ask = |question: &str| confirm(question, args.yes);
    let completed = cutover(&config, &options, &ask, &stop).await?;
    if args.json {
        output::print(&as_json(&config, &completed))?;
    }
    let text = as_text(&config, &completed);
    completed.outcome?;
    if !args.json {
        output::print(&text)?;
    }
    Ok(ExitCode::Done)
}

impl CutoverArgs {
    fn options(&self) -> CutoverOptions {
        CutoverOptions {
            reverse: self.reverse,
            lag_max: self.abort_if_lag,
            timeout: Some(self.timeout),
            comparing: match self.skip_verify {
                true => Comparing::Nothing,
                false => Comparing::All,
            },
            stopping: match self.no_block {
                true => Stopping::Operator,
                false => Stopping::Server,
            },
        }
    }
}

async fn wait_until(at: TimeOfDay, zone: &TimeZone, stop: &CancellationToken) -> Result<()> {
    let never = || Error::usage("--at: there is no such time");
    let at = at.next(Timestamp::now(), zone).ok_or_else(never)?;
    tracing::info!(at = %at, "cutover: waiting");
    loop {
        let left = at.duration_since(Timestamp::now());
        if left.is_negative() || left.is_zero() {
            return Ok(());
        }
        let nap = left.unsigned_abs().min(CLOCK_INTERVAL);
        tokio::select! {
            () = tokio::time::sleep(nap) => {}
            () = stop.cancelled() => {
                let exit = ExitCode::Interrupted;
                return Err(Error::new(exit, Class::Operator, "interrupted before the cutover began"));
            }
        }
    }
}

fn as_json(config: &Config, done: &Completed) -> String {
    let names = config.clusters.as_ref().map(|cluster| &cluster.name);
    let shape = json!({
        "format": FORMAT,
        "link": config.link.name,
        "outcome": done.run.outcome,
        "reverse": done.reverse,
        "from": names[done.source],
        "to": names[done.source.other()],
        "writes_blocked": done.blocked,
        "started_at": rfc3339(DateTime::from_millis(done.run.started_at_ms)),
        "ended_at": done.run.ended_at_ms.map(|at| rfc3339(DateTime::from_millis(at))),
        "exit_code": done.run.exit_code,
        "error": done.run.error,
        "steps": steps_json(&done.run),
    });
    format!("{shape}\n")
}

fn as_text(config: &Config, done: &Completed) -> String {
    let names = config.clusters.as_ref().map(|cluster| &cluster.name);
    let (from, to) = (names[done.source], names[done.source.other()]);
    let link = &config.link.name;
    let what = match done.reverse {
        true => format!("{from} follows {to}; `tandem cutover --reverse` goes back"),
        false => "the link has ended".to_owned(),
    };
    let mut shown = String::new();
    for step in &done.run.steps {
        let seconds = step.took_ms as f64 / 1000.0;
        shown += &format!("  {:<10} {seconds:>6.1} s  {}\n", step.step, step.found);
    }
    shown += &format!(
        "link {link}: cut over from {from} to {to}: {what}\n\
         the applications must write to {to} from now on\n"
    );
    if done.blocked {
        shown += &format!(
            "{from} goes on refusing writes, until somebody runs on it: \
             {UNBLOCK}\n"
        );
    }
    shown
}
