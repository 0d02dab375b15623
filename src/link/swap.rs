//! Replacing one document by another, only if it is still what somebody has seen.

use std::time::Duration;

use bson::{RawDocument, RawDocumentBuf, rawdoc};

use crate::change::{DocumentKey, elements};
use crate::cluster::errors::{DUPLICATE_KEY, check_reply, classify, code_of, deadline_passed};
use crate::cluster::{Cluster, Failure, FailureKind};
use crate::error::{Error, Result};
use crate::target::{TagSession, replace, survives_replacement};

/// An application may hold the document for a moment.
const TRIES_MAX: usize = 20;
const TRY_PAUSE: Duration = Duration::from_millis(100);

/// Compare and set of a whole document; none stands for no document.
pub struct Swap<'a> {
    pub key: &'a DocumentKey,
    pub old: Option<&'a RawDocument>,
    pub new: Option<&'a RawDocument>,
}

enum Try {
    Done,
    Changed,
    /// Somebody else writes it at this moment.
    Busy(Error),
}

/// The document as it is now.
///
/// # Errors
/// As the cluster says.
pub async fn read(cluster: &Cluster, key: &DocumentKey) -> Result<Option<RawDocumentBuf>> {
    let doing = format!("read {} on {}", key.namespace(), cluster.name);
    let mut session = TagSession::of_one_transaction(cluster).await?;
    let found = read_in(&mut session, key).await;
    session.abort().await;
    found.map_err(|failure| classify(failure, &doing))
}

impl Swap<'_> {
    /// Replaces the document in one majority transaction, byte for byte.
    ///
    /// The session is in no list of tandem's, so the write counts as an application's. `new`
    /// differs from `old`: the server does not check a write that changes nothing.
    ///
    /// # Errors
    /// Exit 2 where the document is not `old`, byte for byte; exit 4 where the cluster refuses.
    pub async fn run(&self, cluster: &Cluster) -> Result<()> {
        let (mut tries, mut is_unclear) = (1, false);
        loop {
            match self.try_once(cluster, &mut is_unclear).await? {
                Try::Done => return Ok(()),
                Try::Changed => {
                    let namespace = self.key.namespace();
                    return Err(Error::usage(format!(
                        "the document of {namespace} on {} has changed since it was shown; nothing was written",
                        cluster.name
                    ))
                    .hint("look at it again"));
                }
                Try::Busy(error) if tries == TRIES_MAX => return Err(error),
                Try::Busy(_) => {
                    tries += 1;
                    tokio::time::sleep(TRY_PAUSE).await;
                }
            }
        }
    }

    /// `is_unclear`: a commit was sent, and nobody knows what became of it.
    async fn try_once(&self, cluster: &Cluster, is_unclear: &mut bool) -> Result<Try> {
        let doing = format!("write {} on {}", self.key.namespace(), cluster.name);
        let limit = cluster.operation_timeout;
        let mut session = TagSession::of_one_transaction(cluster).await?;
        let tried = self.in_transaction(&mut session, &doing, is_unclear);
        let tried = tokio::time::timeout(limit, tried).await;
        if !matches!(tried, Ok(Ok(_))) {
            session.abort().await;
        }
        match tried {
            Ok(Ok(done)) => done,
            Ok(Err(failure)) if is_transient(&failure) => Ok(Try::Busy(classify(failure, &doing))),
            Ok(Err(failure)) => Err(classify(failure, &doing)),
            Err(_) => Err(deadline_passed(&doing, limit)),
        }
    }

    async fn in_transaction(
        &self,
        session: &mut TagSession,
        doing: &str,
        is_unclear: &mut bool,
    ) -> Result<Result<Try>, Failure> {
        let found = read_in(session, self.key).await?;
        let commands = match found.as_deref() {
            found if found == self.old => self.commands(),
            // It was this commit; now it is seen to stay.
            found if *is_unclear && found == self.new => Vec::new(),
            _ => {
                session.abort().await;
                return Ok(Ok(Try::Changed));
            }
        };
        for command in commands {
            let database = self.key.namespace().database();
            let reply = session.run(database, command).await?;
            if let Err(error) = check_reply(&reply, doing) {
                session.abort().await;
                return Ok(Err(match code_of(&error) {
                    Some(DUPLICATE_KEY) => error.hint(
                        "another document has its value of a unique index; nothing was written",
                    ),
                    _ => error,
                }));
            }
        }
        loop {
            match session.commit().await {
                Ok(reply) if reply.contains_key("writeConcernError") => {}
                Ok(_) => return Ok(Ok(Try::Done)),
                Err(failure) if is_unknown(&failure) => {}
                Err(failure) => return Err(failure),
            }
            *is_unclear = true;
            tokio::time::sleep(TRY_PAUSE).await;
        }
    }

    fn commands(&self) -> Vec<RawDocumentBuf> {
        let Some(new) = self.new else {
            return vec![self.delete()];
        };
        // 1 and 1.0 are one key, but the server does not change one into the other.
        let takes_its_place = |old| id_of(old) == id_of(new) && survives_replacement(new);
        match self.old {
            Some(old) if !takes_its_place(old) => vec![self.delete(), self.write(new)],
            _ => vec![self.write(new)],
        }
    }

    fn delete(&self) -> RawDocumentBuf {
        rawdoc! {
            "delete": self.key.namespace().collection(),
            "deletes": [{ "q": self.key.raw().to_owned(), "limit": 1 }],
        }
    }

    fn write(&self, new: &RawDocument) -> RawDocumentBuf {
        let key = DocumentKey::of(self.key.namespace(), new);
        let key = key.as_ref().unwrap_or(self.key);
        rawdoc! {
            "update": self.key.namespace().collection(),
            "updates": [replace(key, new)],
            "bypassDocumentValidation": true,
        }
    }
}

/// The connection broke before the commit was sent, or somebody else is writing: nothing has
/// happened.
fn is_transient(failure: &Failure) -> bool {
    failure.kind == FailureKind::Network || failure.has_label("TransientTransactionError")
}

/// The commit may have happened or not: it may be sent again.
fn is_unknown(failure: &Failure) -> bool {
    matches!(failure.kind, FailureKind::Network | FailureKind::NoPrimary)
        || failure.has_label("UnknownTransactionCommitResult")
        || failure.has_label("RetryableWriteError")
}

async fn read_in(
    session: &mut TagSession,
    key: &DocumentKey,
) -> Result<Option<RawDocumentBuf>, Failure> {
    let namespace = key.namespace();
    let command = rawdoc! {
        "find": namespace.collection(),
        "filter": key.raw().to_owned(),
        "limit": 1,
        "singleBatch": true,
    };
    let Some(batch) = session.first_batch(namespace.database(), command).await? else {
        return Ok(None);
    };
    let first = batch.doc_slices()?.into_iter().next().transpose()?;
    Ok(first.and_then(|found| Some(found.as_document()?.to_owned())))
}

fn id_of(document: &RawDocument) -> Option<Vec<u8>> {
    let parts = elements(document).ok()?;
    let id = parts.iter().find(|part| part.name == "_id")?;
    Some(id.bytes.to_vec())
}
