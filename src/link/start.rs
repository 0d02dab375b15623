//! A start, in its order: look, refuse, take the link over, and only then write.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bson::{DateTime, Timestamp, Uuid, doc};

use super::history::{
    FoundCheckpoint, History, checkpoint_document, checkpoint_id, keeper, link_document,
    must_not_overlap, notes, session_ids,
};
use super::identity::{ServerFacts, identity_of, must_differ, must_match};
use super::lease::Lease;
use super::own::Own;
use crate::change::{AppliedThrough, Pair, PipelineId, Position, Side};
use crate::cluster::{Cluster, connect};
use crate::config::{Config, InitialSync, Mode};
use crate::error::{Error, Result};
use crate::resolve::{Ledger, Rules};
use crate::source::oldest_entry;
use crate::store::Store;
use crate::target::{Checkpoint, TagSession};

/// Both clusters, connected and looked at; nothing has been written.
pub struct Connected {
    pub clusters: Pair<Cluster>,
    pub servers: Pair<ServerFacts>,
    pub own: Pair<Own>,
}

/// A link that this process holds, ready to be read and applied.
pub struct Started {
    pub lease: Lease,
    pub ledger: Ledger,
    /// Sessions of each pipeline's lanes, by source, with the checkpoint they move.
    pub lanes: Pair<Vec<(TagSession, Checkpoint)>>,
    /// All session ids that tandem ever used on each cluster.
    pub tags: Pair<HashSet<Uuid>>,
    /// Positions on each cluster from which its reader resumes.
    pub read_from: Pair<Position>,
    pub recover_to: Pair<Timestamp>,
    /// From when a first start replicates.
    pub started_from: Option<DateTime>,
    /// Clients that carry nothing but the lanes' transactions.
    pub writers: Pair<Cluster>,
}

/// Another process's open transaction holds its checkpoint at most until its session is killed.
const EPOCH_TIME_MAX_MS: i64 = 1000;
const EPOCH_TRIES_MAX: usize = 20;

/// # Errors
/// Cluster errors (4): unreachable, no replica set, the same cluster twice.
pub async fn connect_both(config: &Config) -> Result<Connected> {
    let clusters = Pair::new(
        connect(config, Side::A).await?,
        connect(config, Side::B).await?,
    );
    let servers = Pair::new(
        ServerFacts::read(&clusters.a).await?,
        ServerFacts::read(&clusters.b).await?,
    );
    must_differ(config, &servers)?;
    let own = clusters
        .as_ref()
        .map(|cluster| Own::new(cluster, &config.link.database));
    Ok(Connected {
        clusters,
        servers,
        own,
    })
}

/// Takes the link over and makes it ready for recovery.
///
/// # Errors
/// As the exit codes say: config (3), cluster (4), history (5), fenced (8).
pub async fn take_over(
    config: &Config,
    connected: &Connected,
    store: &Store,
    first_start: bool,
) -> Result<Started> {
    let own = &connected.own;
    let identity = identity_of(config, &connected.servers);
    if let Some(before) = store.identity()? {
        must_match(config, &before, &identity)?;
    }
    let mut history = History::read(config, own).await?;
    if let Some(before) = history.identity(config).filter(|_| history.is_ready()) {
        must_match(config, &before, &identity)?;
    }
    must_not_overlap(config, &identity, own).await?;
    if !first_start {
        history.must_be_whole(config, store)?;
        must_reach_back(&history, connected).await?;
    }

    for side in Side::BOTH {
        let statement = doc! {
            "q": { "_id": &config.link.name },
            "u": { "$setOnInsert": link_document(config, &identity) },
            "upsert": true,
        };
        own[side].update("links", vec![statement]).await?;
    }
    let lease = Lease::new(
        own.clone(),
        &config.link.name,
        store.store_id(),
        config.link.lease_duration,
    );
    lease.take().await?;
    store.set_identity(&identity)?;
    if store.complete_since()?.is_none() {
        store.set_complete_since(DateTime::now())?;
    }

    let mut tags = Pair::new(HashSet::new(), HashSet::new());
    for side in Side::BOTH {
        tags[side].extend(session_ids(&history.sessions[side]));
        tags[side].extend(store.tag_sessions(side)?);
        kill_sessions(&connected.clusters[side], &tags[side]).await?;
    }
    let epoch = history.epoch() + 1;
    let mut started_from = None;
    if first_start || !history.is_ready() {
        let from = first_positions(config, own).await?;
        started_from = Some(from);
        make_ready(config, own, epoch, from).await?;
    } else {
        raise_epoch(config, connected, &history, epoch, &tags).await?;
    }
    history = History::read(config, own).await?;
    if started_from.is_none() {
        must_reach_back(&history, connected).await?;
    }

    let writers = Pair::new(
        connect(config, Side::A).await?,
        connect(config, Side::B).await?,
    );
    let lanes = open_lanes(config, own, &writers, &history, store, &mut tags).await?;
    let recover_to = Pair::new(own.a.operation_time().await?, own.b.operation_time().await?);
    let applied = |side: Side| applied_of(&history.checkpoints[side]);
    let rules = Rules {
        mode: config.link.mode,
        policy: config.conflicts.policy,
    };
    let mut ledger = Ledger::new(
        rules,
        Pair::new(applied(Side::A), applied(Side::B)),
        recover_to,
    );
    restore_notes(config, own, &mut ledger).await?;
    let read_from = Pair::new(
        ledger.complete_of(Side::A).clone(),
        ledger.complete_of(Side::B).clone(),
    );
    Ok(Started {
        lease,
        ledger,
        lanes,
        tags,
        read_from,
        recover_to,
        started_from: started_from.map(|from| wall_time(from.a)),
        writers,
    })
}

fn applied_of(checkpoints: &[FoundCheckpoint]) -> Vec<AppliedThrough> {
    checkpoints
        .iter()
        .map(|found| found.applied.clone())
        .collect()
}

fn wall_time(time: Timestamp) -> DateTime {
    DateTime::from_millis(i64::from(time.time) * 1000)
}

/// The oplogs must still hold everything after the lowest checkpoints.
async fn must_reach_back(history: &History, connected: &Connected) -> Result<()> {
    for side in Side::BOTH {
        let lowest = history.checkpoints[side]
            .iter()
            .map(|found| &found.applied)
            .min();
        let Some(lowest) = lowest else { continue };
        let cluster = &connected.clusters[side];
        let oldest = oldest_entry(cluster).await?;
        if oldest.is_some_and(|oldest| oldest > lowest.0.time) {
            return Err(Error::history(format!(
                "the oplog of {} no longer reaches back to the last checkpoint",
                cluster.name
            ))
            .hint("make both sides equal, then `tandem run --first-start`; a larger oplog helps against it"));
        }
    }
    Ok(())
}

/// A dead process's open transactions would block applications, and our own epoch.
async fn kill_sessions(cluster: &Cluster, ids: &HashSet<Uuid>) -> Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    let sessions: Vec<_> = ids.iter().map(|id| doc! { "id": *id }).collect();
    let doing = format!("end the sessions of a former process on {}", cluster.name);
    cluster
        .command("admin", doc! { "killSessions": sessions }, &doing)
        .await
        .map(|_| ())
}

async fn first_positions(config: &Config, own: &Pair<Own>) -> Result<Pair<Timestamp>> {
    let now = Pair::new(own.a.operation_time().await?, own.b.operation_time().await?);
    let InitialSync::None { start_at } = config.initial_sync;
    let Some(start_at) = start_at else {
        return Ok(now);
    };
    for side in Side::BOTH {
        let name = &own[side].cluster.name;
        if start_at > now[side] {
            return Err(Error::config(format!(
                "initial_sync.start_at: it is in the future of {name}"
            )));
        }
        let oldest = oldest_entry(&own[side].cluster).await?;
        if oldest.is_some_and(|oldest| oldest > start_at) {
            return Err(Error::history(format!(
                "the oplog of {name} does not reach back to initial_sync.start_at"
            )));
        }
    }
    Ok(Pair::new(start_at, start_at))
}

fn lanes_of(config: &Config, pipeline: PipelineId) -> usize {
    match (config.link.mode, pipeline) {
        (Mode::OneWay, PipelineId::BToA) => 1,
        (Mode::OneWay | Mode::TwoWay, _) => config.apply.lanes,
    }
}

/// All checkpoints are there before anything is applied; `ready` comes last, a then b.
async fn make_ready(
    config: &Config,
    own: &Pair<Own>,
    epoch: i64,
    from: Pair<Timestamp>,
) -> Result<()> {
    let link = &config.link.name;
    tracing::warn!(
        link = %link,
        from_a = %wall_time(from.a).try_to_rfc3339_string().unwrap_or_default(),
        from_b = %wall_time(from.b).try_to_rfc3339_string().unwrap_or_default(),
        "first start: replicating from now on, nothing older is compared"
    );
    for pipeline in PipelineId::BOTH {
        let side = keeper(config.link.mode, pipeline);
        let old = doc! { "q": { "link": link, "pipeline": pipeline.as_str() }, "limit": 0 };
        own[side].delete("checkpoints", vec![old]).await?;
        let lanes = lanes_of(config, pipeline);
        let insert = |lane| {
            let document =
                checkpoint_document(link, pipeline, lane, lanes, epoch, from[pipeline.source()]);
            doc! {
                "q": { "_id": checkpoint_id(link, pipeline, lane) },
                "u": { "$set": document },
                "upsert": true,
            }
        };
        own[side]
            .update("checkpoints", (0..lanes).map(insert).collect())
            .await?;
    }
    for side in Side::BOTH {
        own[side]
            .delete("keys", vec![doc! { "q": { "_id.link": link }, "limit": 0 }])
            .await?;
        let unpaired = doc! { "q": { "link": link }, "limit": 0 };
        own[side].delete("collections", vec![unpaired]).await?;
        let ready = doc! { "q": { "_id": link }, "u": { "$set": { "ready": true } } };
        own[side].update("links", vec![ready]).await?;
    }
    Ok(())
}

/// From here on no older process can move a checkpoint.
async fn raise_epoch(
    config: &Config,
    connected: &Connected,
    history: &History,
    epoch: i64,
    tags: &Pair<HashSet<Uuid>>,
) -> Result<()> {
    for side in Side::BOTH {
        let mut statements = Vec::new();
        for pipeline in PipelineId::BOTH {
            if keeper(config.link.mode, pipeline) != side {
                continue;
            }
            for found in &history.checkpoints[pipeline.source()] {
                let id = checkpoint_id(&config.link.name, pipeline, found.lane);
                statements.push(doc! { "q": { "_id": id }, "u": { "$max": { "epoch": epoch } } });
            }
        }
        if statements.is_empty() {
            continue;
        }
        let mut tries = 0;
        loop {
            let raised = connected.own[side]
                .update_within("checkpoints", statements.clone(), EPOCH_TIME_MAX_MS)
                .await;
            tries += 1;
            match raised {
                Ok(_) => break,
                Err(error) if error.is_retryable() && tries < EPOCH_TRIES_MAX => {
                    tracing::warn!(%error, "cannot raise the epoch yet, ending old sessions again");
                    kill_sessions(&connected.clusters[side], &tags[side]).await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Fresh sessions for every lane, on record on the cluster and locally before their first use.
async fn open_lanes(
    config: &Config,
    own: &Pair<Own>,
    writers: &Pair<Cluster>,
    history: &History,
    store: &Store,
    tags: &mut Pair<HashSet<Uuid>>,
) -> Result<Pair<Vec<(TagSession, Checkpoint)>>> {
    let link = &config.link.name;
    let mut lanes = Pair::new(Vec::new(), Vec::new());
    for pipeline in PipelineId::BOTH {
        let side = keeper(config.link.mode, pipeline);
        let found = &history.checkpoints[pipeline.source()];
        if found.len() != lanes_of(config, pipeline) {
            tracing::warn!(
                pipeline = pipeline.as_str(),
                lanes = found.len(),
                "another number of lanes takes effect after a first start only"
            );
        }
        let mut ids = Vec::new();
        for checkpoint in found {
            let session = TagSession::open(&writers[side]).await?;
            ids.push(session.id());
            let id = checkpoint_id(link, pipeline, checkpoint.lane);
            lanes[pipeline.source()].push((
                session,
                Checkpoint {
                    id,
                    epoch: checkpoint.epoch,
                    sequence: checkpoint.sequence,
                },
            ));
        }
        let record = |id: &Uuid| {
            doc! {
                "q": { "_id": *id },
                "u": { "$setOnInsert": { "link": link, "pipeline": pipeline.as_str(), "created_at": DateTime::now() } },
                "upsert": true,
            }
        };
        own[side]
            .update("sessions", ids.iter().map(record).collect())
            .await?;
        store.add_tag_sessions(side, &ids)?;
        tags[side].extend(ids);
    }
    Ok(lanes)
}

/// What a note lists is out of date where the other cluster says that it was paid.
async fn restore_notes(config: &Config, own: &Pair<Own>, ledger: &mut Ledger) -> Result<()> {
    let link = &config.link.name;
    let found = Pair::new(notes(&own.a, link).await?, notes(&own.b, link).await?);
    for side in Side::BOTH {
        let paid: HashMap<_, _> = found[side.other()]
            .iter()
            .filter_map(|(key, notes)| Some((key, notes.paid.as_ref()?)))
            .collect();
        for (key, notes) in &found[side] {
            let mut stored = notes.stored.clone();
            if let Some((value, through)) = paid.get(key) {
                stored.lost.retain(|write| write.at > *through);
                if stored.owed.as_deref() == Some(value.as_str()) {
                    stored.owed = None;
                }
            }
            ledger.restore_notes(side, key.clone(), stored);
        }
    }
    Ok(())
}
