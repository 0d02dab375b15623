//! Comparing one range of one namespace.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::join::Join;
use super::lookup::{digest, with_tries};
use super::outcome::Finding;
use super::schema::{Compared, NotCompared};
use crate::change::{DocumentKey, Namespace, Pair, Side};
use crate::cluster::errors::{COLLECTION_UUID_MISMATCH, code_of};
use crate::cluster::{Batch, Cluster};
use crate::error::{Error, Result};
use crate::ranges::{Range, RangeReader, ReadAt, documents, read};

/// Documents of a batch: small enough that no read holds a server up for long.
const BATCH_DOCUMENTS_MAX: u32 = 1000;

/// Keys without a partner held of each side of a range; what is more is read again by key.
pub const PENDING_KEYS_MAX: usize = 20_000;

/// A reader rests for this part of the time that a batch took, so that applications go first.
const REST_SHARE: u32 = 4;

/// A range to compare.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Among all pieces of a comparison.
    pub index: usize,
    /// Among the ranges of its namespace.
    pub number: usize,
    pub compared: Arc<Compared>,
    pub range: Range,
}

/// What is handed on to be settled.
#[derive(Debug)]
pub enum ToSettle {
    Suspects {
        piece: usize,
        keys: Vec<DocumentKey>,
    },
    /// The range was read to its end; all its suspects were handed on before.
    Read { piece: usize, documents: Pair<u64> },
}

/// What reading needs besides the range.
#[derive(Clone)]
pub struct Reading {
    pub clusters: Pair<Cluster>,
    pub to_settle: mpsc::Sender<ToSettle>,
    pub findings: mpsc::Sender<Finding>,
    /// Enough differences were found.
    pub enough: CancellationToken,
}

impl Reading {
    /// Reads both sides of a range and hands on what differs at first sight.
    ///
    /// # Errors
    /// As the clusters say, after several tries.
    pub async fn compare(&self, piece: &Piece) -> Result<()> {
        let documents = match with_tries(|| self.compare_once(piece)).await {
            Ok(Some(documents)) => documents,
            Ok(None) => return Ok(()),
            Err(error) => {
                let found = unless_gone(&piece.compared.namespace, error)?;
                let _ = self.findings.send(Finding::NotCompared(found)).await;
                return Ok(());
            }
        };
        let namespace = piece.compared.namespace.to_string();
        let found = Finding::Read {
            namespace,
            documents,
        };
        let _ = self.findings.send(found).await;
        let read = ToSettle::Read {
            piece: piece.index,
            documents,
        };
        let _ = self.to_settle.send(read).await;
        Ok(())
    }

    /// The documents read on each side; none where it is not to go on.
    async fn compare_once(&self, piece: &Piece) -> Result<Option<Pair<u64>>> {
        let mut join = Join::new(PENDING_KEYS_MAX);
        let (a, b) = tokio::try_join!(self.open(piece, Side::A), self.open(piece, Side::B))?;
        let mut readers = Pair::new(a, b);
        let mut documents = Pair::new(0, 0);
        loop {
            let wanted = join.wanted();
            if wanted == Pair::new(false, false) {
                return Ok(Some(documents));
            }
            let started = Instant::now();
            let (a, b) = tokio::try_join!(
                next(&mut readers.a, wanted.a),
                next(&mut readers.b, wanted.b)
            )?;
            let took = started.elapsed();
            for (side, batch) in [(Side::A, a), (Side::B, b)] {
                match batch {
                    Some(batch) => documents[side] += push(&mut join, side, piece, &batch)?,
                    None if wanted[side] => join.end(side),
                    None => {}
                }
            }
            let suspects = join.take_suspects().into_iter();
            let keys = suspects.map(|suspect| suspect.key).collect();
            if !self.hand_on(piece, keys).await {
                return Ok(None);
            }
            tokio::time::sleep(took / REST_SHARE).await;
        }
    }

    async fn open(&self, piece: &Piece, side: Side) -> Result<Option<RangeReader>> {
        let Some(scanned) = &piece.compared.sides[side] else {
            return Ok(None);
        };
        let (cluster, range) = (&self.clusters[side], &piece.range);
        let opened = read(
            cluster,
            scanned,
            range,
            ReadAt::Majority,
            BATCH_DOCUMENTS_MAX,
        );
        opened.await.map(Some)
    }

    /// Waits while much is being settled. Returns whether to go on.
    async fn hand_on(&self, piece: &Piece, keys: Vec<DocumentKey>) -> bool {
        if keys.is_empty() {
            return !self.enough.is_cancelled();
        }
        let suspects = ToSettle::Suspects {
            piece: piece.index,
            keys,
        };
        self.to_settle.send(suspects).await.is_ok()
    }
}

/// What is said of a collection that is not there any more.
///
/// # Errors
/// Any other error, as it is.
pub fn unless_gone(namespace: &Namespace, error: Error) -> Result<NotCompared> {
    if code_of(&error) != Some(COLLECTION_UUID_MISMATCH) {
        return Err(error);
    }
    Ok(NotCompared {
        namespace: namespace.to_string(),
        reason: "it was dropped, renamed or recreated meanwhile".to_owned(),
    })
}

async fn next(reader: &mut Option<RangeReader>, wanted: bool) -> Result<Option<Batch>> {
    match reader {
        Some(reader) if wanted => reader.next().await,
        Some(_) | None => Ok(None),
    }
}

fn push(join: &mut Join, side: Side, piece: &Piece, batch: &Batch) -> Result<u64> {
    let namespace = &piece.compared.namespace;
    let mut count = 0;
    for document in documents(batch, &format!("read {namespace}"))? {
        let document = document?;
        let key = DocumentKey::of(namespace, document)
            .ok_or_else(|| Error::bug(format!("a document of {namespace} has no _id")))?;
        join.push(side, key, digest(document), document.as_bytes().len());
        count += 1;
    }
    Ok(count)
}
