//! What a link tells from outside: by its running process, or by its store where none runs.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::control::{Answer, Request, Response, ask};
use crate::change::{Pair, PipelineId};
use crate::error::{Error, Result};
use crate::report::{Counts, Detail, Format, Report, ReportHead, render};
use crate::store::{RecordFilter, Store, is_locked};
use crate::telemetry::status::{LinkState, LinkStatus};

/// A process that starts or stops holds the store for a moment without a socket.
const LOCKED_TRIES_MAX: usize = 30;
const LOCKED_PAUSE: Duration = Duration::from_millis(100);

/// Whoever can answer for a link.
pub enum Source {
    Process(Answer),
    Store(Store),
    /// The link never ran here.
    Nobody,
}

/// Asks the running link, or opens the store where none runs.
///
/// # Errors
/// As [`ask`] and [`Store::open_existing`]; exit 7 where the store stays locked without a socket.
pub async fn source(state_dir: &Path, request: &Request) -> Result<Source> {
    let mut tries = 1;
    loop {
        if let Some(answer) = ask(state_dir, request).await? {
            return Ok(Source::Process(answer));
        }
        match Store::open_existing(state_dir) {
            Ok(Some(store)) => return Ok(Source::Store(store)),
            Ok(None) => return Ok(Source::Nobody),
            Err(error) if is_locked(&error) && tries < LOCKED_TRIES_MAX => {
                tries += 1;
                tokio::time::sleep(LOCKED_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Opens the store for a link that is going to run. A report that reads it lets go in a moment.
///
/// # Errors
/// As [`Store::open`]; exit 7 where it stays locked.
pub async fn open_to_run(state_dir: &Path) -> Result<Store> {
    let mut tries = 1;
    loop {
        match Store::open(state_dir) {
            Err(error) if is_locked(&error) && tries < LOCKED_TRIES_MAX => {
                tries += 1;
                tokio::time::sleep(LOCKED_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// Writes the conflict report of a link to `out` and tells how many records matched.
pub async fn conflict_report(
    state_dir: &Path,
    link: &str,
    filter: &RecordFilter,
    format: Format,
    detail: Detail,
    out: impl Write,
) -> Result<Counts> {
    let request = Request::Records {
        filter: filter.clone(),
    };
    let head = |complete_since| ReportHead {
        link: link.to_owned(),
        complete_since,
    };
    match source(state_dir, &request).await? {
        Source::Process(Answer::Records(mut records)) => {
            let mut report = Report::start(&head(records.complete_since), format, detail, out)?;
            while let Some(record) = records.next().await? {
                report.push(&record)?;
            }
            report.finish()
        }
        Source::Process(Answer::Line(response)) => Err(unexpected(&response)),
        Source::Store(store) => {
            let head = head(store.complete_since()?);
            render(&head, format, detail, store.records(filter), out)
        }
        Source::Nobody => render(&head(None), format, detail, [], out),
    }
}

/// The status of a link: from its process, else the last one saved, else that it never ran.
///
/// `names` and `pipelines` are those of the configuration.
pub async fn status(
    state_dir: &Path,
    link: &str,
    names: Pair<&str>,
    pipelines: &[PipelineId],
) -> Result<LinkStatus> {
    let never_run = || LinkStatus::new(link, LinkState::NeverRun, names, pipelines);
    match source(state_dir, &Request::Status).await? {
        Source::Process(Answer::Line(Response::Status { status })) => Ok(*status),
        Source::Process(Answer::Line(response)) => Err(unexpected(&response)),
        Source::Process(Answer::Records(_)) => {
            Err(Error::bug("the running tandem sent records for a status"))
        }
        Source::Store(store) => match store.status()? {
            Some(saved) => {
                let saved: LinkStatus = serde_json::from_value(saved).map_err(|cause| {
                    Error::store("the saved status cannot be read")
                        .caused_by(cause)
                        .hint("it is written anew by the next run")
                })?;
                Ok(saved.without_process().with_pauses(&store.pauses()?))
            }
            None => Ok(never_run().with_pauses(&store.pauses()?)),
        },
        Source::Nobody => Ok(never_run()),
    }
}

pub(super) fn unexpected(response: &Response) -> Error {
    let what = match response {
        Response::Status { .. } => "a status",
        Response::Runs { .. } => "runs",
        Response::Records { .. } => "records",
        Response::SyncProgress { .. } | Response::Repaired { .. } => "the state of a resync",
        Response::Done { .. } | Response::Failed { .. } => "a bare answer",
    };
    Error::bug(format!("the running tandem sent {what} for something else"))
        .hint("use the same version of tandem as the running one")
}

#[cfg(test)]
mod tests;
