//! Running the link in a daily window only.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::monitor::save_waiting;
use super::reporting::open_to_run;
use super::run::{Completed, Ended, RunOptions, run};
use super::start::FirstStart;
use crate::config::{Config, Window};
use crate::error::{Error, Result};
use crate::telemetry::status::LinkState;

/// How often the clock is looked at: it may be set, and a machine may sleep.
const CLOCK_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the link while the window is open, and holds nothing of it while it is closed: neither the
/// lease nor the store, so that every other command works. None where it never ran before it was
/// stopped.
///
/// # Errors
/// As [`run`].
pub async fn run_in_window(
    config: &Config,
    mut options: RunOptions,
    window: &Window,
    stop: CancellationToken,
) -> Result<Option<Completed>> {
    let started = Instant::now();
    let limit = options.timeout;
    let mut last = None;
    loop {
        options.timeout = limit.map(|limit| limit.saturating_sub(started.elapsed()));
        if !window.is_open(Timestamp::now()) {
            let opens = window.next_change(Timestamp::now());
            let opens = opens.map(|at| at.to_string());
            tracing::info!(opens, "outside the window");
            save(config, LinkState::OutsideWindow).await?;
            if let Some(board) = &options.board {
                board.set_state(LinkState::OutsideWindow, None);
            }
            tokio::select! {
                () = until(window, Inside::Open) => continue,
                () = stop.cancelled() => {
                    save(config, LinkState::Stopped).await?;
                    return Ok(last);
                }
                () = super::run::sleep_or_never(options.timeout) => {
                    return Err(Error::timed_out("the time given by --timeout ran out"));
                }
            }
        }
        let inner = stop.child_token();
        let closing = async {
            until(window, Inside::Closed).await;
            inner.cancel();
            std::future::pending::<()>().await;
        };
        let completed = tokio::select! {
            completed = run(config, options.clone(), inner.clone()) => completed?,
            () = closing => continue,
        };
        // The next window goes on with what this one has begun.
        options.first_start = FirstStart::default();
        if matches!(completed.ended, Ended::CaughtUp | Ended::CutOver) || stop.is_cancelled() {
            return Ok(Some(completed));
        }
        last = Some(completed);
    }
}

async fn save(config: &Config, state: LinkState) -> Result<()> {
    let store = open_to_run(&config.link.state_dir).await?;
    save_waiting(config, &store, state)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inside {
    Open,
    Closed,
}

async fn until(window: &Window, wanted: Inside) {
    loop {
        let now = Timestamp::now();
        if window.is_open(now) == (wanted == Inside::Open) {
            return;
        }
        let left = window
            .next_change(now)
            .map(|at| at.duration_since(now).unsigned_abs());
        tokio::time::sleep(left.unwrap_or(CLOCK_INTERVAL).min(CLOCK_INTERVAL)).await;
    }
}
