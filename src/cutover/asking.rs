//! The link of a cutover: the process that runs it, or this one where none does.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::link::control::{Answer, Request, Response, ask};
use crate::link::reporting::{Source, source};
use crate::link::{RunOptions, paused_error, run};
use crate::store::Run;
use crate::telemetry::status::LinkStatus;

/// The status is made anew four times a second.
const INTERVAL: Duration = Duration::from_millis(100);

/// A process that begins again, or is started again, answers after this time at the latest.
const ABSENCE_MAX: Duration = Duration::from_secs(30);

/// Runs the link while `work` goes on, where no other process does.
///
/// # Errors
/// Those of the work, and of the link where it cannot go on.
pub async fn with_link<T>(config: &Config, work: impl Future<Output = Result<T>>) -> Result<T> {
    if status(config).await?.is_some() {
        return work.await;
    }
    tracing::info!("no process runs the link: running it here meanwhile");
    let stop = CancellationToken::new();
    let link = run(config, RunOptions::default(), stop.clone());
    tokio::pin!(link, work);
    tokio::select! {
        ended = &mut link => {
            ended?;
            Err(Error::bug("the link ended while a cutover needed it"))
        }
        outcome = &mut work => {
            stop.cancel();
            let ended = link.await;
            let done = outcome?;
            ended.map(|_| done)
        }
    }
}

/// What the running link says; none where no process runs it.
///
/// # Errors
/// As the socket says.
pub async fn status(config: &Config) -> Result<Option<LinkStatus>> {
    match ask(&config.link.state_dir, &Request::Status).await? {
        Some(Answer::Line(Response::Status { status })) => Ok(Some(*status)),
        Some(Answer::Line(_) | Answer::Records(_)) => Err(Error::bug(
            "the running tandem sent something else for a status",
        )),
        None => Ok(None),
    }
}

/// Waits until the running link is as `wanted` says.
///
/// # Errors
/// Those of `wanted`; exit 2 where a pipeline is paused, 4 where nobody answers for too long.
pub async fn wait_until<T>(
    config: &Config,
    mut wanted: impl AsyncFnMut(&LinkStatus) -> Result<Option<T>>,
) -> Result<T> {
    let mut answered = Instant::now();
    loop {
        if let Some(status) = status(config).await? {
            answered = Instant::now();
            let mut pipelines = status.pipelines.iter();
            if let Some(paused) = pipelines.find(|one| one.paused.is_some()) {
                return Err(paused_error(paused.id, "a cutover needs it"));
            }
            if let Some(found) = wanted(&status).await? {
                return Ok(found);
            }
        } else if answered.elapsed() > ABSENCE_MAX {
            return Err(Error::cluster("the process that ran the link is gone")
                .hint("see its log; the same command takes the cutover up again"));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Has the running link, if any, look at what was decided.
///
/// # Errors
/// As the socket says.
pub async fn turn(config: &Config) -> Result<()> {
    ask(&config.link.state_dir, &Request::Turn)
        .await
        .map(|_| ())
}

/// Returns once no process runs the link.
///
/// # Errors
/// As the socket says; 124 where it goes on running.
pub async fn wait_until_gone(config: &Config) -> Result<()> {
    let asked = Instant::now();
    while status(config).await?.is_some() {
        if asked.elapsed() > ABSENCE_MAX {
            return Err(Error::timed_out(
                "the process that runs the link does not end",
            ));
        }
        tokio::time::sleep(INTERVAL).await;
    }
    Ok(())
}

/// Puts the record of a cutover among the runs. It is not worth failing for.
pub async fn put_run(config: &Config, run: &Run) {
    let request = Request::PutRun {
        run: Box::new(run.clone()),
    };
    let put = match source(&config.link.state_dir, &request).await {
        Ok(Source::Process(_) | Source::Nobody) => Ok(()),
        Ok(Source::Store(store)) => store.put_run(run).and_then(|()| store.flush()),
        Err(error) => Err(error),
    };
    if let Err(error) = put {
        tracing::warn!(%error, "cannot put the cutover on record");
    }
}
