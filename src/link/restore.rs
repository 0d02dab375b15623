//! Bringing the losing version of a conflict back, as a new write on the cluster that lost.

use std::path::Path;

use bson::{RawBsonRef, RawDocument, RawDocumentBuf};

use super::both_clusters::with_both;
use super::control::{Answer, Request, Response};
use super::dead_letters::{key_of, unreadable};
use super::identity::must_know_names;
use super::record_status::{Place, mark_restored};
use super::reporting::{self, Source, source, unexpected};
use super::restorer::Restorer;
use super::swap::{self, Swap};
use crate::change::{
    ConflictKind, DocumentKey, Mode, PipelineId, RecordStatus, Side, redacted_of_loser,
};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::report::{escaped, write_canonical};

/// How a restoration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Restored,
    /// The document was the losing version already; the record is marked all the same.
    AlreadyThere,
    /// Whoever was asked said no.
    Declined,
}

/// A record as far as it can be restored.
#[derive(Debug)]
struct Lost {
    id: String,
    kind: String,
    key: DocumentKey,
    /// The cluster that lost.
    side: Side,
    /// Absent where the losing side had no document.
    document: Option<RawDocumentBuf>,
}

/// Brings back what the record `id` says was lost, once `ask` has said yes to what it is shown.
///
/// The write is a plain one, so the link replicates it like any application's. It happens only if
/// the document is still the one that was shown, byte for byte.
///
/// # Errors
/// Exit 2 where there is no such record, it holds nothing to restore or is restored already, and
/// where the document has changed since it was shown; as the clusters and the store say.
pub async fn restore(
    config: &Config,
    id: &str,
    ask: impl FnOnce(&str) -> Result<bool>,
) -> Result<Outcome> {
    let record = reporting::record(&config.link.state_dir, id).await?;
    let mut lost = Lost::of(id, &record)?;
    lost.key = config.namespaces.renames().key_on(lost.side, &lost.key);
    with_both(config, async |clusters| {
        must_know_names(config, clusters).await?;
        let cluster = &clusters[lost.side];
        let now = swap::read(cluster, &lost.key).await?;
        if !ask(&lost.shown(config, now.as_deref()))? {
            return Ok(Outcome::Declined);
        }
        // Asked before anything is written, so that nothing is written that nobody answers for.
        let by = Restorer::here(cluster).await?;
        let outcome = if now == lost.document {
            Outcome::AlreadyThere
        } else {
            let swap = Swap {
                key: &lost.key,
                old: now.as_deref(),
                new: lost.document.as_deref(),
            };
            swap.run(cluster).await?;
            Outcome::Restored
        };
        let place = Place {
            clusters,
            database: &config.link.database,
            link: &config.link.name,
        };
        match mark(&config.link.state_dir, &place, id, by).await {
            Ok(()) => Ok(outcome),
            Err(mut error) => {
                error.message = format!(
                    "the document is restored, but the record is not marked: {}",
                    error.message
                );
                Err(error)
            }
        }
    })
    .await
}

/// The store is opened anew: while somebody was asked, a link may have started.
async fn mark(state_dir: &Path, place: &Place<'_>, id: &str, by: Restorer) -> Result<()> {
    let request = Request::ConflictRestored {
        id: id.to_owned(),
        by: by.clone(),
    };
    match source(state_dir, &request).await? {
        Source::Process(Answer::Line(Response::Done { .. })) => Ok(()),
        Source::Process(Answer::Line(response)) => Err(unexpected(&response)),
        Source::Process(Answer::Records(_)) => {
            Err(Error::bug("the running tandem sent records for an order"))
        }
        Source::Store(store) => mark_restored(&store, place, id, &by).await,
        Source::Nobody => place.restored(id, &by).await,
    }
}

impl Lost {
    fn of(id: &str, record: &RawDocument) -> Result<Self> {
        let text = |name: &str| record.get_str(name).unwrap_or_default();
        match ConflictKind::parse(text("kind")) {
            Some(ConflictKind::Ddl) => {
                return Err(Error::usage(format!(
                    "record {id} is a schema change, which cannot be restored"
                )));
            }
            Some(ConflictKind::DeadLetter) => {
                return Err(Error::usage(format!(
                    "record {id} is a dead letter: nothing was lost on its cluster"
                ))
                .hint("`tandem dead-letter retry` applies it to the other one"));
            }
            Some(
                ConflictKind::InsertExists
                | ConflictKind::UpdateOriginDiffers
                | ConflictKind::UpdateDeleted
                | ConflictKind::DeleteOriginDiffers,
            ) => {}
            None => return Err(unreadable(id)),
        }
        if text("status") == RecordStatus::Restored.as_str() {
            return Err(
                Error::usage(format!("record {id} is restored already")).hint(format!(
                    "`tandem conflict show {id}` tells by whom and when"
                )),
            );
        }
        let pipeline = PipelineId::parse(text("pipeline")).ok_or_else(|| unreadable(id))?;
        let losing = record.get_document("losing").map_err(|_| unreadable(id))?;
        let document = match losing.get("document") {
            Ok(Some(RawBsonRef::Document(document))) => Some(document.to_owned()),
            Ok(Some(RawBsonRef::Null)) => None,
            _ => return Err(unreadable(id)),
        };
        let missing = redacted_of_loser(record);
        if !missing.is_empty() {
            let names = missing.join(", ");
            return Err(Error::usage(format!(
                "record {id} cannot be restored: its values of {names} were redacted before it was stored, here and on the clusters"
            ))
            .hint(format!(
                "`tandem conflict show {id}` has all other fields; an application can write them"
            )));
        }
        Ok(Self {
            id: id.to_owned(),
            kind: text("kind").to_owned(),
            key: key_of(record).ok_or_else(|| unreadable(id))?,
            side: pipeline.source(),
            document,
        })
    }

    /// What will be done, for people.
    fn shown(&self, config: &Config, now: Option<&RawDocument>) -> String {
        let cluster = &config.clusters[self.side].name;
        let mut text = format!(
            "record {}, {}, of {} on {cluster}\ndocument {}\n\nis now\n  {}\nbecomes\n  {}\n",
            self.id,
            self.kind,
            self.key.namespace(),
            json(self.key.raw()),
            or(now, "(absent)"),
            or(self.document.as_deref(), "(deleted)"),
        );
        if config.link.mode != Mode::TwoWay {
            text += &format!("\nthe link is one-way: the write stays on {cluster}\n");
        }
        escaped_lines(&text)
    }
}

fn or(document: Option<&RawDocument>, absent: &str) -> String {
    document.map_or_else(|| absent.to_owned(), json)
}

fn json(document: &RawDocument) -> String {
    let mut text = String::new();
    write_canonical(&mut text, document);
    text
}

/// Names and texts may hold what a terminal obeys.
fn escaped_lines(text: &str) -> String {
    let lines = text.lines().map(|line| escaped(line) + "\n");
    lines.collect()
}

#[cfg(test)]
mod tests;
