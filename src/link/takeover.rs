//! Taking a link over from a former process: its sessions, its epoch, new sessions of our own.

use std::collections::HashSet;
use std::time::Duration;

use bson::{DateTime, Document, Uuid, doc};

use super::checkpoints::checkpoint_id;
use super::history::{History, LINK_FORMAT, highest_epoch, keeper};
use super::identity::identity_of;
use super::lease::Lease;
use super::own::Own;
use super::start::Connected;
use crate::change::{Pair, PipelineId, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Result;
use crate::fault::Fault;
use crate::pipeline::uuid_in;
use crate::store::{LinkIdentity, Store};
use crate::target::{Checkpoint, TagSession};

/// Another process's open transaction holds its checkpoint at most until its session is killed.
const EPOCH_TIME_MAX_MS: i64 = 1000;
const EPOCH_TRIES_MAX: usize = 20;

/// The ids of tag sessions in a list of session documents.
pub(super) fn session_ids(found: &[Document]) -> Vec<Uuid> {
    let ids = found.iter().map(|session| uuid_in(session, "_id"));
    ids.flatten().collect()
}

/// A dead process's open transactions would block applications, and our own epoch.
pub(super) async fn kill_sessions(cluster: &Cluster, ids: &HashSet<Uuid>) -> Result<()> {
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

pub(super) fn lanes_of(config: &Config, pipeline: PipelineId) -> usize {
    match config.link.mode.sends(pipeline.source()) {
        true => config.apply.lanes,
        false => 1,
    }
}

/// Above all epochs that there are. The lease is looked for only then: whoever takes it later comes to
/// at least the same number, and this process would change nothing of what that one has made. A process
/// that had slept, and went by a newer one's epoch, would put its own checkpoints in their place.
pub(super) async fn next_epoch(own: &Pair<Own>, link: &str, lease: &Lease) -> Result<i64> {
    let epoch = highest_epoch(own, link).await? + 1;
    if !Fault::TrustingStart.is_on() {
        lease.must_be_held().await?;
    }
    Ok(epoch)
}

/// From here on no older process can move a checkpoint.
pub(super) async fn raise_epoch(
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

/// What the checkpoints hold once this process has raised their epoch and found that it still holds
/// the lease: two that raise it at once could come to the same number, but only the later one of them
/// has the lease. Sessions that another process has put on record until then are ended too.
pub(super) async fn read_as_holder(
    config: &Config,
    connected: &Connected,
    lease: &Lease,
    epoch: i64,
    tags: &mut Pair<HashSet<Uuid>>,
) -> Result<History> {
    if !Fault::TrustingStart.is_on() {
        lease.must_be_held().await?;
    }
    let history = History::read(config, &connected.own).await?;
    if !Fault::TrustingStart.is_on() {
        history.must_be_of_epoch(epoch, &config.link.name)?;
    }
    for side in Side::BOTH {
        let mut late: HashSet<Uuid> = session_ids(&history.sessions[side]).into_iter().collect();
        late.retain(|id| !tags[side].contains(id));
        kill_sessions(&connected.clusters[side], &late).await?;
        tags[side].extend(late);
    }
    Ok(history)
}

/// Fresh sessions for every lane, on record on the cluster and locally before their first use.
pub(super) async fn open_lanes(
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
        let mut ids = Vec::new();
        let epoch = found.first().map_or(0, |checkpoint| checkpoint.epoch);
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
                "u": { "$setOnInsert": {
                    "link": link, "pipeline": pipeline.as_str(), "epoch": epoch, "created_at": DateTime::now(),
                } },
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

/// The link's document of a first start; not ready yet.
fn link_document(config: &Config, identity: &LinkIdentity) -> Document {
    doc! {
        "name_a": &config.clusters.a.name,
        "name_b": &config.clusters.b.name,
        "mode": &identity.mode,
        "tie": identity.tie.as_str(),
        "set_a": &identity.replica_set_ids.a,
        "set_b": &identity.replica_set_ids.b,
        "include": &identity.include,
        "exclude": &identity.exclude,
        "filters": &identity.filters,
        "renames": &identity.renames,
        "include_b": config.namespaces.patterns(Side::B),
    }
}

/// Makes the link known and takes its lease.
pub(super) async fn claim(config: &Config, connected: &Connected, store: &Store) -> Result<Lease> {
    let own = &connected.own;
    let link = &config.link.name;
    let identity = identity_of(config, &connected.servers);
    for side in Side::BOTH {
        let statement = doc! {
            "q": { "_id": link },
            "u": { "$setOnInsert": link_document(config, &identity) },
            "upsert": true,
        };
        own[side].update("links", vec![statement]).await?;
    }
    let lease = Lease::new(
        own.clone(),
        link,
        store.store_id(),
        config.link.lease_duration,
    );
    lease.take().await?;
    for side in Side::BOTH {
        // An older tandem does not understand what this one leaves.
        let format = doc! { "$max": { "format": LINK_FORMAT } };
        lease.change_link(side, format).await?;
    }
    if store.complete_since()?.is_none() {
        store.set_complete_since(DateTime::now())?;
    }
    Ok(lease)
}

/// Says where the state directory does not know the last run of a link that goes on.
pub(super) fn tell_of_store(known: Option<i64>, epoch: i64, is_first: bool) {
    if !is_first && known.is_none_or(|known| known + 1 < epoch) {
        tracing::warn!(
            known,
            on_clusters = epoch - 1,
            "this state directory does not know the last run of the link: it is new, an older copy, \
             or another host has run it; going on from what the clusters remember"
        );
    }
}
