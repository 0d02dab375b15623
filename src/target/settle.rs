//! A commit of unknown outcome: has it landed, and can it still land?

use bson::{DateTime, doc, rawdoc};

use super::checkpoint::Checkpoint;
use super::session::{Snapshot, TagSession};
use super::transaction::Transaction;
use crate::error::{Error, Result};

/// Whether a commit of unknown outcome is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    Committed,
    NotCommitted,
    Fenced,
}

/// Finds out what became of a commit of unknown outcome.
///
/// First a newer transaction number on the same session makes a held commit fail for good, and its
/// majority write proves the primary's term; only then is the checkpoint read.
///
/// # Errors
/// Where the cluster does not answer: ask again.
pub async fn settle(
    session: &mut TagSession,
    database: &str,
    from: &Checkpoint,
) -> Result<Settled> {
    let name = session.cluster().name.clone();
    let doing = format!("settle a commit on {name}");
    let mut newer = Transaction::begin(session, Snapshot::Latest);
    let statement = rawdoc! {
        "q": { "_id": from.id.as_str() },
        "u": { "$set": { "kind": "settle", "at": DateTime::now(), "sequence": from.sequence } },
        "upsert": true,
    };
    let written = newer.own_update(database, "markers", &[statement]).await;
    if let Err(refused) = written {
        newer.abort().await;
        return Err(Error::unreachable(format!("cannot {doing}: {refused}")));
    }
    newer.commit().await?;
    let command = doc! {
        "find": "checkpoints",
        "filter": { "_id": from.id.as_str() },
        "readConcern": { "level": "majority" },
        "limit": 1,
    };
    let cluster = session.cluster().clone();
    let reply = cluster.command(database, command, &doing).await?;
    let found = reply
        .get_document("cursor")
        .and_then(|cursor| cursor.get_array("firstBatch"))
        .ok()
        .and_then(|batch| batch.first()?.as_document());
    let number = |name: &str| found.and_then(|found| found.get_i64(name).ok());
    Ok(match (number("epoch"), number("sequence")) {
        (Some(epoch), _) if epoch != from.epoch => Settled::Fenced,
        (Some(_), Some(sequence)) if sequence == from.sequence + 1 => Settled::Committed,
        (Some(_), Some(sequence)) if sequence == from.sequence => Settled::NotCommitted,
        _ => Settled::Fenced,
    })
}
