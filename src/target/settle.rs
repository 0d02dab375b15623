//! A commit of unknown outcome: has it landed, and can it still land?

use std::time::Duration;

use bson::{DateTime, RawArrayBuf, RawDocumentBuf, Timestamp, cstr, doc, rawdoc};

use super::checkpoint::Checkpoint;
use super::reply::Refusal;
use super::session::{Snapshot, TagSession};
use super::transaction::Transaction;
use crate::cluster::{Cluster, CursorKind, majority_after};
use crate::error::{Error, Result};

/// Whether a commit of unknown outcome is there. To ask for it, the session has written something else
/// at the time `asked_at`: a transaction on it must not run at an older snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is there since the time `at`.
    Committed {
        at: Timestamp,
        asked_at: Timestamp,
    },
    /// It is not, and never will be.
    NotCommitted {
        asked_at: Timestamp,
    },
    Fenced,
}

/// Finds out what became of a commit of unknown outcome.
///
/// First a newer transaction number on the same session makes a held commit fail for good, and its
/// majority write proves the primary's term; only then is the checkpoint read. It can only have
/// landed after the time `after`.
///
/// # Errors
/// Retryable where the cluster does not answer: ask again. What no retry helps against, as it is.
pub async fn settle(
    session: &mut TagSession,
    database: &str,
    from: &Checkpoint,
    after: Timestamp,
) -> Result<Settled> {
    let name = session.cluster().name.clone();
    let doing = format!("settle a commit on {name}");
    let mut newer = Transaction::begin(session, Snapshot::Latest);
    let question = [question(from)];
    let written = newer.own_update(database, "markers", &question).await;
    if let Err(refused) = written {
        newer.abort().await;
        return Err(match refused {
            // A wrong password, a privilege taken away: to ask again does not help.
            Refusal::Failed(error) if !error.is_retryable() => error,
            refused => Error::unreachable(format!("cannot {doing}: {refused}")),
        });
    }
    let asked_at = newer.commit().await?;
    let command = doc! {
        "find": "checkpoints",
        "filter": { "_id": from.id.as_str() },
        "readConcern": majority_after(Some(asked_at)),
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
        (Some(_), Some(sequence)) if sequence == from.sequence + 1 => {
            let at = landed_at(&cluster, database, from, after).await?;
            Settled::Committed { at, asked_at }
        }
        (Some(_), Some(sequence)) if sequence == from.sequence => {
            Settled::NotCommitted { asked_at }
        }
        _ => Settled::Fenced,
    })
}

/// What the newer transaction writes. It counts up, so that a second question within a millisecond
/// writes something too: a commit of nothing proves nothing.
fn question(from: &Checkpoint) -> RawDocumentBuf {
    rawdoc! {
        "q": { "_id": from.id.as_str() },
        "u": {
            "$set": { "kind": "settle", "at": DateTime::now(), "sequence": from.sequence },
            "$inc": { "count": 1_i64 },
        },
        "upsert": true,
    }
}

const AWAIT_TIME_MAX: Duration = Duration::from_millis(500);

/// When the checkpoint was moved on from `from`, as the change stream of its collection tells.
async fn landed_at(
    cluster: &Cluster,
    database: &str,
    from: &Checkpoint,
    after: Timestamp,
) -> Result<Timestamp> {
    let doing = format!("find the time of a commit on {}", cluster.name);
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(rawdoc! { "$changeStream": {
        "startAtOperationTime": after,
        "showRawUpdateDescription": true,
    } });
    pipeline.push(rawdoc! { "$match": {
        "ns.coll": "checkpoints",
        "documentKey._id": from.id.as_str(),
        "rawUpdateDescription.diff.u.sequence": from.sequence + 1,
    } });
    let mut command = RawDocumentBuf::new();
    command.append(cstr!("aggregate"), "checkpoints");
    command.append(cstr!("pipeline"), pipeline);
    command.append(cstr!("cursor"), rawdoc! {});
    command.append(cstr!("readConcern"), rawdoc! { "level": "majority" });
    let kind = CursorKind::Awaiting {
        await_time_max: AWAIT_TIME_MAX,
        batch_documents_max: 1,
    };
    let find = async {
        let mut cursor = cluster.open(database, command, kind, &doing).await?;
        while let Some(batch) = cluster.within(&doing, cursor.next()).await? {
            let slices = batch.doc_slices();
            let events = slices.map_err(|error| Error::bug(&doing).caused_by(error))?;
            let first = events
                .into_iter()
                .find_map(|event| event.ok()?.as_document()?.get_timestamp("clusterTime").ok());
            if let Some(at) = first {
                return Ok(at);
            }
        }
        Err(Error::unreachable(format!(
            "cannot {doing}: the cursor was closed"
        )))
    };
    let limit = cluster.operation_timeout;
    let late = || Error::unreachable(format!("cannot {doing}: it takes too long"));
    tokio::time::timeout(limit, find)
        .await
        .unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_changes_its_marker_whatever_the_time_is() {
        let from = Checkpoint {
            id: "link/a-to-b/0".to_owned(),
            epoch: 1,
            sequence: 7,
        };
        let question = question(&from);
        let update = question.get_document("u").expect("an update");
        let counts = update.get_document("$inc").expect("a counter");
        assert_eq!(counts.get_i64("count").ok(), Some(1));
    }
}
