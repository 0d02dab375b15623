//! A link that begins: from when on it reads, and what of it is on record before anything is applied.

use bson::{DateTime, Document, Timestamp, Uuid, doc};

use super::checkpoints::{checkpoint_document, checkpoint_id};
use super::history::{BEGINS_ANEW, History, LINK_FORMAT, keeper};
use super::initial_sync::must_be_empty;
use super::lease::Lease;
use super::merge::Job;
use super::own::Own;
use super::run::Work;
use super::takeover::lanes_of;
use crate::change::{Pair, PipelineId, Side};
use crate::cluster::errors;
use crate::config::{Config, InitialSync, START_AT};
use crate::error::{Class, Error, ExitCode, Result};
use crate::source::oldest_entry;

/// What a first start does about what both clusters hold.
pub(super) enum FirstSync {
    None,
    Copy,
    Merge(Job),
}

impl FirstSync {
    pub fn of(config: &Config, work: &Work) -> Self {
        match (work.resync(), config.initial_sync) {
            (Some(job), _) => FirstSync::Merge(job.clone()),
            (None, InitialSync::Copy) => FirstSync::Copy,
            (None, InitialSync::Merge) => FirstSync::Merge(Job::default()),
            (None, InitialSync::None { .. }) => FirstSync::None,
        }
    }

    fn as_str(&self) -> &'static str {
        match self {
            FirstSync::None => "none",
            FirstSync::Copy => "copying",
            FirstSync::Merge(_) => "merging",
        }
    }
}

pub(super) fn wall_time(time: Timestamp) -> DateTime {
    DateTime::from_millis(i64::from(time.time) * 1000)
}

/// Where a first start begins to read.
///
/// # Errors
/// A config error (3) or a history error (5) where that is not in the oplogs; as the clusters say.
pub(super) async fn first_positions(config: &Config, own: &Pair<Own>) -> Result<Pair<Timestamp>> {
    let mut from = Pair::new(own.a.operation_time().await?, own.b.operation_time().await?);
    let InitialSync::None { start_at } = config.initial_sync else {
        return Ok(from);
    };
    for side in Side::BOTH {
        let Some(start_at) = start_at[side] else {
            continue;
        };
        let (name, key) = (&own[side].cluster.name, START_AT[side]);
        if start_at > from[side] {
            let what = format!("{key}: it is in the future of {name}");
            return Err(Error::config(what));
        }
        let oldest = oldest_entry(&own[side].cluster).await?;
        if oldest.is_some_and(|oldest| oldest > start_at) {
            let what = format!("the oplog of {name} does not reach back to {key}");
            return Err(Error::history(what));
        }
        from[side] = start_at;
    }
    Ok(from)
}

/// A resync takes up no copy that has not come to its end.
pub(super) fn with_the_way_back(error: Error, history: &History) -> Error {
    if error.class != Class::Resync || !history.is_copying() {
        return error;
    }
    error.hint(
        "the initial copy had not come to its end: `tandem run --first-start --drop-target` begins \
         it anew, and drops what was copied so far",
    )
}

/// What a copy's target is refused for may be what another process has copied, which has taken over
/// meanwhile: then that is what ends this one.
pub(super) async fn unless_replaced(lease: &Lease, error: Error) -> Error {
    match error.exit {
        ExitCode::Config => lease.must_be_held().await.err().unwrap_or(error),
        _ => error,
    }
}

/// Says from when a first start replicates.
pub(super) fn tell_of_first(
    config: &Config,
    from: Pair<Timestamp>,
    sync: &FirstSync,
    turning: bool,
) {
    let what = match (turning, sync) {
        (true, _) => "first start in the new direction: going on from where the cutover was",
        (false, FirstSync::Copy) => {
            "first start: replicating from now on, and copying what a holds"
        }
        (false, FirstSync::Merge(_)) => {
            "first start: replicating from now on, and merging what both hold"
        }
        (false, FirstSync::None) => {
            "first start: replicating from these times on, nothing older is compared"
        }
    };
    tracing::warn!(
        link = %config.link.name,
        from_a = %wall_time(from.a).try_to_rfc3339_string().unwrap_or_default(),
        from_b = %wall_time(from.b).try_to_rfc3339_string().unwrap_or_default(),
        "{what}"
    );
}

/// Collections that hold anything of the link, and what of it.
async fn left_by_former(own: &Own, link: &str) -> Result<Vec<(&'static str, Document)>> {
    let mut left = Vec::new();
    for collection in ["keys", "collections", "ddl", "ranges"] {
        let of_link = match collection {
            "keys" => doc! { "_id.link": link },
            _ => doc! { "link": link },
        };
        if own.holds(collection, of_link.clone()).await? {
            left.push((collection, of_link));
        }
    }
    Ok(left)
}

/// Deletes what former processes have left. It is marked first, and the lease is this process's own
/// after that: what another one puts there later, once it has taken over, is without the mark, whenever
/// the deletes arrive.
async fn forget_former(own: &Own, link: &str, lease: &Lease) -> Result<()> {
    let left = left_by_former(own, link).await?;
    lease.must_be_held().await?;
    let mark = Uuid::new().to_string();
    for (collection, of_link) in &left {
        let change = doc! { "$set": { "left_to": &mark } };
        let all = doc! { "q": of_link.clone(), "u": change, "multi": true };
        own.update(collection, vec![all]).await?;
    }
    if !left.is_empty() {
        lease.must_be_held().await?;
    }
    for (collection, mut marked) in left {
        marked.insert("left_to", &mark);
        let all = doc! { "q": marked, "limit": 0 };
        own.delete(collection, vec![all]).await?;
    }
    Ok(())
}

/// Says on both clusters that a link which was ready begins anew, before anything of its former state,
/// or of what it replicates, is touched. A process that is killed from here on leaves checkpoints, notes
/// and documents that do not belong together: only another start anew may follow it.
///
/// # Errors
/// Fenced (8) where another process has taken the lease; as the clusters say.
pub(super) async fn say_that_it_begins_anew(former: &History, lease: &Lease) -> Result<()> {
    for side in Side::BOTH.into_iter().filter(|_| former.is_ready()) {
        let change = doc! { "$set": { BEGINS_ANEW: true } };
        lease.change_link(side, change).await?;
    }
    Ok(())
}

/// All checkpoints are there before anything is applied; `ready` comes last, a then b.
///
/// # Errors
/// A config error (3) where a copy's target is not empty; as the clusters say.
pub(super) async fn make_ready(
    config: &Config,
    own: &Pair<Own>,
    lease: &Lease,
    epoch: i64,
    from: Pair<Timestamp>,
    sync: &FirstSync,
) -> Result<()> {
    let link = &config.link.name;
    // A process that slept meanwhile leaves those alone that another one has made.
    for side in Side::BOTH {
        let old = doc! { "q": { "link": link, "epoch": { "$lt": epoch } }, "limit": 0 };
        own[side].delete("checkpoints", vec![old]).await?;
    }
    for pipeline in PipelineId::BOTH {
        let side = keeper(config.link.mode, pipeline);
        let lanes = lanes_of(config, pipeline);
        let insert = |lane| {
            let document =
                checkpoint_document(link, pipeline, lane, lanes, epoch, from[pipeline.source()]);
            doc! {
                "q": { "_id": checkpoint_id(link, pipeline, lane), "epoch": { "$lt": epoch } },
                "u": { "$set": document },
                "upsert": true,
            }
        };
        let inserts = (0..lanes).map(insert).collect();
        match own[side].update("checkpoints", inserts).await {
            Err(error) if errors::code_of(&error) == Some(errors::DUPLICATE_KEY) => {
                return Err(Error::fenced(format!(
                    "another process has taken over link {link}"
                )));
            }
            outcome => outcome?,
        };
    }
    if matches!(sync, FirstSync::Copy) {
        // Now a majority has whatever was there when `from` was read: what comes later is an event.
        must_be_empty(config, &own.b.cluster).await?;
    }
    for side in Side::BOTH {
        forget_former(&own[side], link, lease).await?;
        let mut set = doc! {
            "ready": true,
            "format": LINK_FORMAT,
            "initial_sync": sync.as_str(),
        };
        if let FirstSync::Merge(job) = sync {
            set.insert("resync", job.to_document());
        }
        let mut over = doc! { BEGINS_ANEW: "" };
        if !matches!(sync, FirstSync::Merge(_)) {
            over.insert("resync", "");
        }
        let change = doc! { "$set": set, "$unset": over };
        lease.change_link(side, change).await?;
    }
    Ok(())
}
