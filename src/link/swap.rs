//! Replacing one document by another, only if it is still what somebody has seen.

use std::time::Duration;

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr, rawdoc};
use futures_util::StreamExt;
use mongodb::ClientSession;
use mongodb::error::{TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::options::{ReadConcern, WriteConcern};

use crate::change::{DocumentKey, elements};
use crate::cluster::Cluster;
use crate::cluster::errors::{check_reply, classify, code_of};
use crate::error::{Error, Result};

/// An application may hold the document for a moment.
const TRIES_MAX: usize = 20;
const TRY_PAUSE: Duration = Duration::from_millis(100);
const DUPLICATE_KEY: i32 = 11000;

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
    let call = async {
        let mut session = start(cluster).await?;
        let found = read_in(&mut session, key).await;
        let _ = session.abort_transaction().await;
        found
    };
    cluster.within(&doing, call).await
}

impl Swap<'_> {
    /// Replaces the document in one majority transaction, byte for byte.
    ///
    /// The session is one of the driver's own and not a tag session, so the write counts as an
    /// application's. `new` differs from `old`: the server does not check a write that changes
    /// nothing.
    ///
    /// # Errors
    /// Exit 2 where the document is not `old`, byte for byte; exit 4 where the cluster refuses.
    pub async fn run(&self, cluster: &Cluster) -> Result<()> {
        let mut tries = 1;
        loop {
            match self.try_once(cluster).await? {
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

    async fn try_once(&self, cluster: &Cluster) -> Result<Try> {
        let doing = format!("write {} on {}", self.key.namespace(), cluster.name);
        let limit = cluster.operation_timeout;
        let tried = tokio::time::timeout(limit, self.in_transaction(cluster, &doing)).await;
        match tried {
            Ok(Ok(done)) => done,
            Ok(Err(error)) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => {
                Ok(Try::Busy(classify(error, &doing)))
            }
            Ok(Err(error)) => Err(classify(error, &doing)),
            Err(_) => Err(crate::cluster::errors::deadline_passed(&doing, limit)),
        }
    }

    async fn in_transaction(
        &self,
        cluster: &Cluster,
        doing: &str,
    ) -> mongodb::error::Result<Result<Try>> {
        let mut session = start(cluster).await?;
        if read_in(&mut session, self.key).await?.as_deref() != self.old {
            session.abort_transaction().await?;
            return Ok(Ok(Try::Changed));
        }
        for command in self.commands() {
            let database = cluster.client.database(self.key.namespace().database());
            let call = database.run_raw_command(command);
            let reply = call.session(&mut session).await?;
            if let Err(error) = check_reply(&reply, doing) {
                let _ = session.abort_transaction().await;
                return Ok(Err(match code_of(&error) {
                    Some(DUPLICATE_KEY) => error.hint(
                        "another document has its value of a unique index; nothing was written",
                    ),
                    _ => error,
                }));
            }
        }
        loop {
            match session.commit_transaction().await {
                Ok(()) => return Ok(Ok(Try::Done)),
                Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                    tokio::time::sleep(TRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn commands(&self) -> Vec<RawDocumentBuf> {
        let Some(new) = self.new else {
            return vec![self.delete()];
        };
        // 1 and 1.0 are one key, but the server does not change one into the other.
        match self.old {
            Some(old) if id_of(old) != id_of(new) => vec![self.delete(), self.write(new)],
            _ => vec![self.write(new)],
        }
    }

    fn delete(&self) -> RawDocumentBuf {
        rawdoc! {
            "delete": self.key.namespace().collection(),
            "deletes": [{ "q": self.key.raw().to_owned(), "limit": 1 }],
        }
    }

    /// A literal keeps what the server changes in a plain replacement, an empty timestamp.
    fn write(&self, new: &RawDocument) -> RawDocumentBuf {
        let mut literal = RawDocumentBuf::new();
        literal.append(cstr!("$literal"), new);
        let mut pipeline = RawArrayBuf::new();
        pipeline.push(rawdoc! { "$replaceWith": literal });
        rawdoc! {
            "update": self.key.namespace().collection(),
            "updates": [{ "q": self.key.raw().to_owned(), "u": pipeline, "upsert": true }],
            "bypassDocumentValidation": true,
        }
    }
}

async fn start(cluster: &Cluster) -> mongodb::error::Result<ClientSession> {
    let mut session = cluster.client.start_session().await?;
    session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(WriteConcern::majority())
        .await?;
    Ok(session)
}

async fn read_in(
    session: &mut ClientSession,
    key: &DocumentKey,
) -> mongodb::error::Result<Option<RawDocumentBuf>> {
    let namespace = key.namespace();
    let command = rawdoc! {
        "find": namespace.collection(),
        "filter": key.raw().to_owned(),
        "limit": 1,
        "singleBatch": true,
    };
    let database = session.client().database(namespace.database());
    let mut cursor = database
        .run_raw_cursor_command(command)
        .session(&mut *session)
        .batch()
        .await?;
    let Some(batch) = cursor.stream(session).next().await.transpose()? else {
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
