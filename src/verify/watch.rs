//! Reads suspects again until they are equal, or stay different while nothing is on its way.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use bson::Timestamp;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::fields::differing_fields;
use super::join::Digest;
use super::lookup::{self, FIND_KEYS_MAX, Sought, with_tries};
use super::outcome::{DifferenceKind, DifferingKey, Finding};
use super::piece::{Piece, ToSettle};
use super::progress::{Done, Progress};
use super::settle::{Seen, Settling, Verdict, Watch};
use crate::change::{Deletes, DocumentKey, Mode, Namespace, Pair};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Result;
use crate::link::control::{Answer, Request, Response, ask};
use crate::telemetry::status::LinkStatus;

/// Between two readings of the suspects: most lag is over by then.
const ROUND_PAUSE: Duration = Duration::from_millis(500);

/// Keys under watch at once; readers wait while there are more.
const WATCHED_KEYS_MAX: usize = 50_000;

/// Before anything was applied.
const NEVER: Timestamp = Timestamp {
    time: 0,
    increment: 0,
};

/// Settles what the readers hand on.
pub struct Watcher<'a> {
    pub config: &'a Config,
    pub clusters: &'a Pair<Cluster>,
    pub settle_time_max: Duration,
    pub pieces: HashMap<usize, OpenPiece>,
    pub progress: &'a mut Progress,
    pub findings: mpsc::Sender<Finding>,
    pub settling: Settling,
}

/// A range with suspects that are not settled, or that is still being read.
pub struct OpenPiece {
    namespace: Namespace,
    number: usize,
    open: usize,
    read: bool,
    /// Something of it could not be settled: it is not done.
    unsettled: bool,
    done: Done,
}

impl OpenPiece {
    pub fn of(piece: &Piece) -> Self {
        Self {
            namespace: piece.compared.namespace.clone(),
            number: piece.number,
            open: 0,
            read: false,
            unsettled: false,
            done: Done::default(),
        }
    }
}

impl Watcher<'_> {
    /// Goes on until the readers have ended and everything is settled.
    ///
    /// # Errors
    /// As the clusters say, after several tries; a store error where the progress cannot be kept.
    pub async fn settle_all(&mut self, mut suspects: mpsc::Receiver<ToSettle>) -> Result<()> {
        let mut more = true;
        loop {
            if more && self.settling.watched.is_empty() {
                match suspects.recv().await {
                    Some(next) => self.take(next)?,
                    None => more = false,
                }
            }
            while more && self.settling.watched.len() < WATCHED_KEYS_MAX {
                match suspects.try_recv() {
                    Ok(next) => self.take(next)?,
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => more = false,
                }
            }
            if self.settling.watched.is_empty() {
                if more {
                    continue;
                }
                return Ok(());
            }
            self.round().await?;
            if !self.settling.watched.is_empty() {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
        }
    }

    fn take(&mut self, next: ToSettle) -> Result<()> {
        match next {
            ToSettle::Suspects { piece, keys } => {
                let now = Instant::now();
                for key in keys {
                    if let Entry::Vacant(free) = self.settling.watched.entry(key) {
                        free.insert(Watch::new(piece, now));
                        self.open(piece).open += 1;
                    }
                }
                Ok(())
            }
            ToSettle::Read { piece, documents } => {
                let open = self.open(piece);
                open.read = true;
                open.done.documents = documents;
                self.close(piece)
            }
        }
    }

    fn open(&mut self, piece: usize) -> &mut OpenPiece {
        let found = self.pieces.get_mut(&piece);
        found.expect("every piece is known from the start")
    }

    /// A range that is read and settled is on record.
    fn close(&mut self, piece: usize) -> Result<()> {
        let open = self.open(piece);
        if open.open > 0 || !open.read || open.unsettled {
            return Ok(());
        }
        let (namespace, number) = (open.namespace.clone(), open.number);
        let done = std::mem::take(&mut open.done);
        self.progress.done(&namespace, number, &done)
    }

    /// Reads every key under watch once on both sides.
    async fn round(&mut self) -> Result<()> {
        // First: what the link had applied before these reads is in them.
        let passed = match applied(self.config).await? {
            Some(applied) => self.settling.passed_by(applied),
            None => Some(u64::MAX),
        };
        let mut by_namespace: HashMap<Namespace, Vec<DocumentKey>> = HashMap::new();
        for key in self.settling.watched.keys() {
            let keys = by_namespace.entry(key.namespace().clone()).or_default();
            keys.push(key.clone());
        }
        for (namespace, keys) in by_namespace {
            for some in keys.chunks(FIND_KEYS_MAX) {
                let found = self.read(&namespace, some).await?;
                for key in some {
                    let seen = found.as_ref().map(|found| found.get(key).copied());
                    self.judge(key, seen, passed).await?;
                }
            }
        }
        let times = with_tries(|| lookup::operation_times(self.clusters)).await?;
        self.settling.round_over(times);
        Ok(())
    }

    async fn read(
        &self,
        namespace: &Namespace,
        keys: &[DocumentKey],
    ) -> Result<Pair<HashMap<DocumentKey, Digest>>> {
        let sought = &Sought::of(self.config, namespace);
        with_tries(|| async {
            let (a, b) = tokio::try_join!(
                lookup::digests(&self.clusters.a, sought, keys),
                lookup::digests(&self.clusters.b, sought, keys)
            )?;
            Ok(Pair::new(a, b))
        })
        .await
    }

    async fn judge(&mut self, key: &DocumentKey, seen: Seen, passed: Option<u64>) -> Result<()> {
        let (round, limit) = (self.settling.round, self.settle_time_max);
        let Some(watch) = self.settling.watched.get_mut(key) else {
            return Ok(());
        };
        let piece = watch.piece;
        let is_kept = is_kept(self.config, key, seen);
        match watch.judge(seen, round, passed, Instant::now(), limit) {
            Verdict::Watched => return Ok(()),
            Verdict::Equal => {}
            Verdict::Different if is_kept => {}
            Verdict::Different => {
                let Some(found) = self.difference(key, seen).await? else {
                    return Ok(());
                };
                self.open(piece).done.differing.push(key.clone());
                let _ = self.findings.send(Finding::Differing(found)).await;
            }
            Verdict::Unsettled(reason) => {
                self.open(piece).unsettled = true;
                let found = Finding::Unsettled(key.clone(), reason);
                let _ = self.findings.send(found).await;
            }
        }
        self.settling.watched.remove(key);
        self.open(piece).open -= 1;
        self.close(piece)
    }

    /// What is different about a document; none where it has changed just now, and is watched on.
    async fn difference(&self, key: &DocumentKey, seen: Seen) -> Result<Option<DifferingKey>> {
        if let Some(kind) = missing(seen) {
            let (key, fields) = (key.clone(), Vec::new());
            return Ok(Some(DifferingKey { key, kind, fields }));
        }
        let sought = &Sought::of(self.config, key.namespace());
        let read = || lookup::documents(self.clusters, sought, key);
        let Pair {
            a: Some(a),
            b: Some(b),
        } = with_tries(read).await?
        else {
            return Ok(None);
        };
        if Pair::new(&a, &b).map(|found| Some(lookup::digest(found))) != seen {
            return Ok(None);
        }
        let fields = differing_fields(&a, &b);
        // 1 and 1.0 are one key: it is that of a.
        let key = DocumentKey::of(key.namespace(), &a);
        Ok(key.map(|key| DifferingKey {
            key,
            kind: DifferenceKind::of_fields(&fields),
            fields,
        }))
    }
}

/// A document that only one side has has no fields to compare.
fn missing(seen: Seen) -> Option<DifferenceKind> {
    match (seen.a, seen.b) {
        (None, Some(_)) => Some(DifferenceKind::MissingOnA),
        (Some(_), None) => Some(DifferenceKind::MissingOnB),
        (None, None) | (Some(_), Some(_)) => None,
    }
}

/// Whether a document that the target alone has may be one whose deletion was ignored.
fn is_kept(config: &Config, key: &DocumentKey, seen: Seen) -> bool {
    let Mode::OneWay { from } = config.link.mode else {
        return false;
    };
    let ignored = config.filters.deletes(key.namespace()) == Deletes::Ignored;
    ignored && seen[from].is_none() && seen[from.other()].is_some()
}

/// Up to where the running link has applied each cluster's history; none where no link runs here.
async fn applied(config: &Config) -> Result<Option<Pair<Option<Timestamp>>>> {
    match ask(&config.link.state_dir, &Request::Status).await? {
        Some(Answer::Line(Response::Status { status })) => Ok(Some(applied_in(&status))),
        Some(Answer::Line(_) | Answer::Records(_)) | None => Ok(None),
    }
}

fn applied_in(status: &LinkStatus) -> Pair<Option<Timestamp>> {
    if status.pipelines.is_empty() {
        return Pair::new(Some(NEVER), Some(NEVER));
    }
    let mut applied = Pair::default();
    for pipeline in &status.pipelines {
        let position = pipeline.applied_through.as_ref();
        let time = position.map_or(NEVER, |position| Timestamp {
            time: position.ts[0],
            increment: position.ts[1],
        });
        applied[pipeline.id.source()] = Some(time);
    }
    applied
}
