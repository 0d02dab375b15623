//! What a link tells from outside: by its running process, or by its store where none runs.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bson::{DateTime, RawDocumentBuf};

use super::control::{Answer, Request, Response, ask};
use super::record_status::unknown;
use crate::change::{Pair, PipelineId};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::report::{Counts, Detail, Format, Report, ReportHead, Writes, render};
use crate::store::{Page, RecordFilter, Store, is_locked};
use crate::telemetry::status::{LinkState, LinkStatus, PipelineStatus};

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

/// Lets go of the store at the end of a run. Where much was written it is opened once more: sled notes
/// down where its pages are only then, and without that the next report would have to read all that
/// was written first.
pub async fn close_after_run(store: Store) {
    if !store.has_much_to_note_down() {
        return;
    }
    let state_dir = store.dir().to_owned();
    drop(store);
    // Everything is on record, so whoever opens it next can do this as well.
    if let Err(error) = open_to_run(&state_dir).await {
        tracing::debug!(%error, "the store was not opened once more");
    }
}

/// # Errors
/// Exit 7 where a tandem runs on this state directory.
pub async fn must_be_free(state_dir: &Path) -> Result<()> {
    match ask(state_dir, &Request::Status).await? {
        None => Ok(()),
        Some(_) => Err(Error::store(format!(
            "another tandem runs on {} already",
            state_dir.display()
        ))
        .hint("`tandem status` tells how it is; one process is enough for a link")),
    }
}

/// The link that a report is about, and which of its records.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    pub state_dir: &'a Path,
    pub link: &'a str,
    pub names: Pair<&'a str>,
    pub filter: RecordFilter,
    pub page: Page,
    /// The filter as it was typed, for a page that people keep.
    pub typed: Vec<String>,
}

impl<'a> Asked<'a> {
    /// All records of a configured link.
    pub fn of(config: &'a Config) -> Self {
        let names = config.clusters.as_ref();
        Self {
            state_dir: &config.link.state_dir,
            link: &config.link.name,
            names: names.map(|cluster| cluster.name.as_str()),
            filter: RecordFilter::default(),
            page: Page::default(),
            typed: Vec::new(),
        }
    }
}

/// Writes the conflict report of a link to `out` and tells how many records were listed or counted.
pub async fn conflict_report(
    asked: &Asked<'_>,
    format: Format,
    detail: Detail,
    out: impl Write,
) -> Result<Counts> {
    let state_dir = asked.state_dir;
    let writes = match (detail, format) {
        (Detail::Summary, _) | (_, Format::Html) => writes(asked).await?,
        (Detail::Records | Detail::DeadLetters, _) => None,
    };
    let filter = &asked.filter;
    let limit = match format {
        // It counts them all.
        Format::Html => None,
        // One more than wanted tells whether there are more.
        Format::Table | Format::Json | Format::Ndjson | Format::Csv => {
            asked.page.limit.map(|limit| limit.saturating_add(1))
        }
    };
    let page = Page {
        limit,
        ..asked.page
    };
    let request = Request::Records {
        filter: filter.clone(),
        page,
    };
    let head = |complete_since| ReportHead {
        link: asked.link.to_owned(),
        complete_since,
        names: asked.names.map(str::to_owned),
        writes,
        offset: asked.page.offset,
        limit: asked.page.limit,
        filters: asked.typed.clone(),
        made_at: Some(DateTime::now()),
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
            render(&head, format, detail, store.page(filter, page), out)
        }
        Source::Nobody => render(&head(None), format, detail, [], out),
    }
}

/// The record with this id.
///
/// # Errors
/// As [`source`]; exit 2 where there is none.
pub async fn record(state_dir: &Path, id: &str) -> Result<RawDocumentBuf> {
    let request = Request::Records {
        filter: RecordFilter::of_id(id),
        page: Page::default(),
    };
    let found = match source(state_dir, &request).await? {
        Source::Process(Answer::Records(mut records)) => records.next().await?,
        Source::Process(Answer::Line(response)) => return Err(unexpected(&response)),
        Source::Store(store) => store.record(id)?,
        Source::Nobody => None,
    };
    found.ok_or_else(|| unknown(id))
}

/// The namespaces that records are about.
///
/// # Errors
/// As [`conflict_report`].
pub async fn namespaces(asked: &Asked<'_>) -> Result<BTreeSet<String>> {
    let mut names = Vec::new();
    conflict_report(asked, Format::Ndjson, Detail::Summary, &mut names).await?;
    let summary: serde_json::Value = serde_json::from_slice(&names).unwrap_or_default();
    let by_namespace = summary["by_namespace"].as_object();
    Ok(by_namespace.map_or_else(BTreeSet::new, |found| found.keys().cloned().collect()))
}

/// None where no run has left a status.
async fn writes(asked: &Asked<'_>) -> Result<Option<Writes>> {
    let status = status(asked.state_dir, asked.link, asked.names, &PipelineId::BOTH).await?;
    if status.state == LinkState::NeverRun {
        return Ok(None);
    }
    let sum = |total: fn(&PipelineStatus) -> u64| status.pipelines.iter().map(total).sum();
    let read = sum(|pipeline| pipeline.events_read_total);
    Ok(Some(Writes::new(
        read,
        sum(|pipeline| pipeline.conflicts_total),
    )))
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
        Response::Pruned { .. } => "a count of removed records",
        Response::SyncProgress { .. } | Response::Repaired { .. } => "the state of a resync",
        Response::Done { .. } | Response::Failed { .. } => "a bare answer",
    };
    Error::bug(format!("the running tandem sent {what} for something else"))
        .hint("use the same version of tandem as the running one")
}

#[cfg(test)]
mod tests;
