//! A comparison from its plan to its outcome.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::outcome::{Finding, Outcome, Verification};
use super::piece::{Piece, Reading, ToSettle, unless_gone};
use super::progress::{Former, Progress};
use super::schema::{Compared, plan};
use super::settle::Settling;
use super::watch::{OpenPiece, Watcher};
use crate::change::{ConflictKind, DocumentKey, Namespace, Pair, PipelineId, RecordStatus};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::link::both_clusters::with_both;
use crate::link::control::{Answer, Request};
use crate::link::{dead_letters, reporting};
use crate::ranges::{RANGE_BYTES_TARGET, Range, split};
use crate::store::{Page, RecordFilter};

/// Messages between readers and whoever settles; each holds the suspects of a batch.
const QUEUE_MAX: usize = 4;

/// Dead letters named at most; `tandem dead-letter list` shows all.
const DEAD_LETTERS_MAX: usize = 1000;

/// How often a line tells how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What to compare, and how long to try.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// Namespaces with `*` for any text; all that the link includes where it is empty.
    pub namespaces: Vec<String>,
    /// Go on from an interrupted comparison.
    pub resume: bool,
    /// How long a document is read again before it counts as unsettled.
    pub settle_time_max: Duration,
    /// Stop after so many documents that differ or cannot be settled.
    pub differences_max: usize,
    /// Ranges read at once.
    pub readers: usize,
}

/// Compares both clusters of a link.
///
/// # Errors
/// As the clusters say, after several tries (4); a store error where the progress cannot be kept (7).
pub async fn verify(config: &Config, options: &VerifyOptions) -> Result<Verification> {
    let mut found = with_both(config, async |clusters| {
        compare(config, clusters, options).await
    })
    .await?;
    found.unpaired = unpaired(config).await?;
    found.dead_letters = dead(config).await?;
    Ok(found)
}

async fn compare(
    config: &Config,
    clusters: &Pair<Cluster>,
    options: &VerifyOptions,
) -> Result<Verification> {
    let plan = plan(config, clusters, &options.namespaces).await?;
    let mut found = Verification {
        schema: plan.schema,
        not_compared: plan.not_compared,
        ..Verification::default()
    };
    for compared in &plan.compared {
        found.counts(compared.namespace.as_str());
    }
    let (mut progress, mut former) = open_progress(config, options)?;
    let mut work = Work::default();
    for compared in plan.compared {
        let before = former.remove(&compared.namespace);
        let before = before.filter(|before| before.uuids == uuids(&compared));
        let namespace = compared.namespace.clone();
        if let Err(error) = work.add(clusters, compared, before, &mut progress).await {
            found.not_compared.push(unless_gone(&namespace, error)?);
        }
    }
    tracing::info!(ranges = work.pieces.len(), "comparing both clusters");

    let (to_settle, suspects) = mpsc::channel(QUEUE_MAX);
    let (findings, found_so_far) = mpsc::channel(QUEUE_MAX);
    let reading = Reading {
        clusters: clusters.clone(),
        to_settle,
        findings: findings.clone(),
        enough: CancellationToken::new(),
    };
    let enough = reading.enough.clone();
    let ranges = work.pieces.len();
    let mut watcher = Watcher {
        config,
        clusters,
        settle_time_max: options.settle_time_max,
        pieces: work
            .pieces
            .iter()
            .map(|p| (p.index, OpenPiece::of(p)))
            .collect(),
        progress: &mut progress,
        findings,
        settling: Settling::default(),
    };
    let read = read_all(reading, work, options.readers);
    let settle = async {
        tokio::select! {
            settled = watcher.settle_all(suspects) => settled,
            () = enough.cancelled() => Ok(()),
        }?;
        drop(watcher);
        Ok(())
    };
    let collect = collect(found_so_far, &mut found, &enough, options, ranges);
    tokio::try_join!(read, settle, collect)?;
    // What is left to compare can be resumed.
    if !found.cut_short && found.outcome() != Outcome::Undecided {
        progress.finish()?;
    }
    Ok(found)
}

fn open_progress(
    config: &Config,
    options: &VerifyOptions,
) -> Result<(Progress, HashMap<Namespace, Former>)> {
    let (dir, link): (&Path, &str) = (&config.link.state_dir, &config.link.name);
    if options.resume {
        return Progress::resume(dir, link);
    }
    Ok((Progress::begin(dir, link)?, HashMap::new()))
}

fn uuids(compared: &Compared) -> Pair<Option<bson::Uuid>> {
    let uuid = |side: &Option<crate::ranges::Scanned>| side.as_ref().map(|scanned| scanned.uuid);
    compared.sides.as_ref().map(uuid)
}

/// What is to be read, and what was read before.
#[derive(Default)]
struct Work {
    pieces: Vec<Piece>,
    /// Ranges that are to be read.
    queue: VecDeque<Piece>,
    /// Of ranges that were read before: whatever differed is looked at again.
    before: Vec<(Finding, ToSettle, ToSettle)>,
}

impl Work {
    async fn add(
        &mut self,
        clusters: &Pair<Cluster>,
        compared: Compared,
        before: Option<Former>,
        progress: &mut Progress,
    ) -> Result<()> {
        let (ranges, mut done) = match before {
            Some(before) => (before.ranges, before.done),
            None => {
                let ranges = cut(clusters, &compared).await?;
                progress.cut(&compared.namespace, uuids(&compared), &ranges)?;
                (ranges, HashMap::new())
            }
        };
        let compared = Arc::new(compared);
        for (number, range) in ranges.into_iter().enumerate() {
            let piece = Piece {
                index: self.pieces.len(),
                number,
                compared: compared.clone(),
                range,
            };
            self.pieces.push(piece.clone());
            let (index, namespace) = (piece.index, compared.namespace.to_string());
            match done.remove(&number) {
                None => self.queue.push_back(piece),
                Some(done) => self.before.push((
                    Finding::Read {
                        namespace,
                        documents: done.documents,
                    },
                    ToSettle::Suspects {
                        piece: index,
                        keys: done.differing,
                    },
                    ToSettle::Read {
                        piece: index,
                        documents: done.documents,
                    },
                )),
            }
        }
        Ok(())
    }
}

async fn cut(clusters: &Pair<Cluster>, compared: &Compared) -> Result<Vec<Range>> {
    if !compared.same_order {
        return Ok(vec![Range::whole()]);
    }
    match (&compared.sides.a, &compared.sides.b) {
        (Some(scanned), _) => split(&clusters.a, scanned, RANGE_BYTES_TARGET).await,
        (None, Some(scanned)) => split(&clusters.b, scanned, RANGE_BYTES_TARGET).await,
        (None, None) => Ok(Vec::new()),
    }
}

async fn read_all(reading: Reading, work: Work, readers: usize) -> Result<()> {
    for (finding, suspects, read) in work.before {
        let _ = reading.findings.send(finding).await;
        let _ = reading.to_settle.send(suspects).await;
        let _ = reading.to_settle.send(read).await;
    }
    let queue = Arc::new(Mutex::new(work.queue));
    let mut tasks = JoinSet::new();
    for _ in 0..readers.max(1) {
        let (reading, queue) = (reading.clone(), queue.clone());
        tasks.spawn(async move {
            while !reading.enough.is_cancelled() {
                let next = queue
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .pop_front();
                let Some(piece) = next else { break };
                reading.compare(&piece).await?;
            }
            Ok(())
        });
    }
    drop(reading);
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|cause| Error::bug("a reader died").caused_by(cause))??;
    }
    Ok(())
}

async fn collect(
    mut findings: mpsc::Receiver<Finding>,
    found: &mut Verification,
    enough: &CancellationToken,
    options: &VerifyOptions,
    ranges: usize,
) -> Result<()> {
    let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
    tick.tick().await;
    let mut read = 0;
    loop {
        tokio::select! {
            next = findings.recv() => {
                let Some(finding) = next else { return Ok(()) };
                read += usize::from(matches!(finding, Finding::Read { .. }));
                found.take(finding);
                let shown = found.differing.len() + found.unsettled.len();
                if shown >= options.differences_max {
                    found.cut_short = true;
                    enough.cancel();
                    return Ok(());
                }
            }
            _ = tick.tick() => {
                let documents: u64 = found.namespaces.values().map(|n| n.documents.a).sum();
                let differing = found.differing.len();
                tracing::info!(ranges, ranges_read = read, documents, differing, "comparing");
            }
        }
    }
}

/// Namespaces that the link passes over.
async fn unpaired(config: &Config) -> Result<Vec<String>> {
    let names = config
        .clusters
        .as_ref()
        .map(|cluster| cluster.name.as_str());
    let (dir, link) = (&config.link.state_dir, &config.link.name);
    let status = reporting::status(dir, link, names, &PipelineId::BOTH).await?;
    Ok(status.unpaired_namespaces)
}

/// Documents with an event that could not be applied and that nobody has settled.
async fn dead(config: &Config) -> Result<Vec<DocumentKey>> {
    let filter = RecordFilter {
        kinds: vec![ConflictKind::DeadLetter],
        statuses: vec![RecordStatus::Logged],
        ..RecordFilter::default()
    };
    let request = Request::Records {
        filter: filter.clone(),
        page: Page::default(),
    };
    let mut keys = Vec::new();
    match reporting::source(&config.link.state_dir, &request).await? {
        reporting::Source::Process(Answer::Records(mut records)) => {
            while let Some(record) = records.next().await? {
                keys.extend(dead_letters::key_of(&record));
                if keys.len() >= DEAD_LETTERS_MAX {
                    break;
                }
            }
        }
        reporting::Source::Store(store) => {
            for record in store.records(&filter).take(DEAD_LETTERS_MAX) {
                keys.extend(dead_letters::key_of(&record?));
            }
        }
        reporting::Source::Process(Answer::Line(_)) | reporting::Source::Nobody => {}
    }
    Ok(keys)
}
