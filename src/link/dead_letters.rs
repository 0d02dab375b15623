//! Events that could not be applied: trying them again, giving up on them.

use bson::RawDocument;

use super::both_clusters::with_both;
use super::control::{Answer, Request, Response};
use super::record_status::{Place, unknown};
use super::reporting::{Source, source, unexpected};
use crate::change::{ConflictKind, DocumentKey, Namespace, PipelineId, RecordStatus, lasting_key};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::Store;

/// A dead letter that nobody has settled.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    pub id: String,
    pub pipeline: PipelineId,
    /// Its document under its collection's lasting name.
    pub key: DocumentKey,
}

impl DeadLetter {
    /// # Errors
    /// Exit 2 where there is no such record, where it is of another kind, and where it is settled.
    pub fn find(store: &Store, id: &str) -> Result<Self> {
        let record = store.record(id)?.ok_or_else(|| unknown(id))?;
        let text = |name: &str| record.get_str(name).unwrap_or_default();
        if text("kind") != ConflictKind::DeadLetter.as_str() {
            return Err(Error::usage(format!("record {id} is no dead letter"))
                .hint("`tandem dead-letter list` shows their ids"));
        }
        match RecordStatus::parse(text("status")) {
            Some(RecordStatus::Logged) => Self::of(id, &record),
            Some(settled) => Err(Error::usage(format!(
                "dead letter {id} is {} already",
                settled.as_str()
            ))),
            None => Err(unreadable(id)),
        }
    }

    fn of(id: &str, record: &RawDocument) -> Result<Self> {
        let key = lasting_key(record).ok_or_else(|| unreadable(id))?;
        let pipeline = record.get_str("pipeline").ok().and_then(PipelineId::parse);
        Ok(Self {
            id: id.to_owned(),
            pipeline: pipeline.ok_or_else(|| unreadable(id))?,
            key,
        })
    }
}

/// The document that a record is about.
pub(crate) fn key_of(record: &RawDocument) -> Option<DocumentKey> {
    let namespace = Namespace::parse(record.get_str("namespace").ok()?)?;
    DocumentKey::of(&namespace, record.get_document("document_key").ok()?)
}

pub(super) fn unreadable(id: &str) -> Error {
    Error::store(format!("record {id} cannot be read"))
}

/// A discarded dead letter.
pub struct Discarded {
    pub letter: DeadLetter,
    /// No other dead letter of the document is left: its mark is gone.
    pub unmarked: bool,
}

/// Gives up on a dead letter: its record stays, and once the last one of its document is given
/// up, the document's later events are applied as any other.
///
/// The local status is written last, so that whatever stopped on its way can be done again.
///
/// # Errors
/// As [`DeadLetter::find`]; as the clusters and the store say.
pub async fn discard(store: &Store, place: &Place<'_>, id: &str) -> Result<Discarded> {
    let letter = DeadLetter::find(store, id)?;
    let others = store.dead_letters_of(&letter.key)?;
    let unmarked = others.iter().all(|other| other == id);
    place.discard(id).await?;
    if unmarked {
        let target = letter.pipeline.target();
        place.unmark_dead(target, &letter.key).await?;
    }
    store.set_record_status(id, RecordStatus::Discarded)?;
    store.flush()?;
    Ok(Discarded { letter, unmarked })
}

/// Has the running link discard a dead letter, or does it where none runs. Returns what was done,
/// for people.
///
/// # Errors
/// As [`discard`]; as the running link says.
pub async fn discard_from_outside(config: &Config, id: &str) -> Result<String> {
    let request = Request::DeadLetterDiscard { id: id.to_owned() };
    match source(&config.link.state_dir, &request).await? {
        Source::Process(answer) => done(answer),
        Source::Store(store) => {
            DeadLetter::find(&store, id)?;
            with_both(config, async |clusters| {
                let place = Place {
                    clusters,
                    database: &config.link.database,
                    link: &config.link.name,
                };
                discard(&store, &place, id).await
            })
            .await?;
            Ok(told_discarded(id))
        }
        Source::Nobody => Err(unknown(id)),
    }
}

/// Has the running link try a dead letter again, with the document as it is now. Returns what was
/// done, for people: asked for, not applied.
///
/// # Errors
/// As [`DeadLetter::find`]; exit 2 where no link runs, and then nothing is changed.
pub async fn retry_from_outside(config: &Config, id: &str) -> Result<String> {
    let state_dir = &config.link.state_dir;
    let request = Request::DeadLetterRetry { id: id.to_owned() };
    match source(state_dir, &request).await? {
        Source::Process(answer) => done(answer),
        Source::Store(store) => {
            DeadLetter::find(&store, id)?;
            let dir = state_dir.display();
            Err(Error::usage(format!(
                "no tandem runs on {dir} that could try {id} again; nothing was changed"
            ))
            .hint("start `tandem run`, then retry; the document's next event tries again too"))
        }
        Source::Nobody => Err(unknown(id)),
    }
}

pub(super) fn told_discarded(id: &str) -> String {
    format!("dead letter {id} is discarded; its record stays")
}

pub(super) fn told_retried(letter: &DeadLetter) -> String {
    format!(
        "asked for the whole document again: dead letter {} is shown as resolved once {} has it",
        letter.id,
        letter.pipeline.target().as_str()
    )
}

fn done(answer: Answer) -> Result<String> {
    match answer {
        Answer::Line(Response::Done { message }) => Ok(message),
        Answer::Line(response) => Err(unexpected(&response)),
        Answer::Records(_) => Err(Error::bug("the running tandem sent records for an order")),
    }
}
