//! A start, in its order: look, refuse, take the link over, and only then write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bson::{DateTime, Timestamp, Uuid};

use super::check::{must_be_granted, must_be_understood};
use super::first_start::{
    FirstSync, first_positions, make_ready, say_that_it_begins_anew, tell_of_first,
    unless_replaced, wall_time, with_the_way_back,
};
use super::former::left_out;
use super::history::{History, notes};
use super::identity::{ServerFacts, identity_of, must_differ, must_match};
use super::initial_sync::{drop_included, make_missing, must_be_empty};
use super::lease::Lease;
use super::merge::{Job, pair_anew};
use super::overlap::{must_not_overlap, tell_of_neighbours};
use super::own::Own;
use super::run::RunOptions;
use super::set_back::{must_hold_what_was_read, must_reach_back};
use super::standing::{Standing, Turn};
use super::sweeper::clear_leftovers;
use super::takeover::{
    claim, kill_sessions, next_epoch, open_lanes, raise_epoch, read_as_holder, session_ids,
    tell_of_store,
};
use super::widening;
use super::written::written_until;
use crate::change::{Pair, PipelineId, Position, Rank, Side};
use crate::cluster::{Cluster, Connect};
use crate::config::Config;
use crate::error::{Class, Error, ExitCode, Result};
use crate::resolve::{Ledger, Rules};
use crate::source::LeftOut;
use crate::store::Store;
use crate::target::{Checkpoint, TagSession};

/// Both clusters, connected and looked at; nothing has been written.
pub struct Connected {
    /// How more connections are made.
    pub way: Arc<dyn Connect>,
    pub clusters: Pair<Cluster>,
    pub servers: Pair<ServerFacts>,
    pub own: Pair<Own>,
}

/// What the operator allows a first start.
#[derive(Debug, Clone, Copy, Default)]
pub struct FirstStart {
    /// Begin anew where an earlier start has left its state.
    pub anew: bool,
    /// Drop what the target of a copy holds.
    pub drop_target: bool,
}

/// A link that this process holds, ready to be read and applied.
pub struct Started {
    pub lease: Lease,
    /// Sessions of each pipeline's lanes, by source, with the checkpoint they move.
    pub lanes: Pair<Vec<(TagSession, Checkpoint)>>,
    /// All session ids that tandem ever used on each cluster.
    pub tags: Pair<HashSet<Uuid>>,
    /// Those of them that former processes used.
    pub former: Pair<HashSet<Uuid>>,
    /// Positions on each cluster from which its reader resumes.
    pub read_from: Pair<Position>,
    pub recover_to: Pair<Timestamp>,
    /// No former process has written documents of applications after this time of each cluster.
    pub written_until: Pair<Timestamp>,
    /// What the servers leave out of the streams, since the link's filters say so.
    pub left_out: Pair<LeftOut>,
    /// From when a first start replicates.
    pub started_from: Option<DateTime>,
    /// A copy has not come to its end.
    pub initial_sync: bool,
    /// A merge or a resync has not come to its end.
    pub merge: Option<Job>,
    /// Clients that carry nothing but the lanes' transactions.
    pub writers: Pair<Cluster>,
}

/// # Errors
/// Cluster errors (4): unreachable, no replica set, the same cluster twice.
pub async fn connect_both(config: &Config, way: Arc<dyn Connect>) -> Result<Connected> {
    let clusters = connect_pair(config, &*way).await?;
    let servers = Pair::new(
        ServerFacts::read(&clusters.a).await?,
        ServerFacts::read(&clusters.b).await?,
    );
    must_differ(config, &servers)?;
    let own = clusters
        .as_ref()
        .map(|cluster| Own::new(cluster, &config.link.database));
    Ok(Connected {
        way,
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
    options: &RunOptions,
    standing: &mut Standing,
) -> Result<(Started, Ledger)> {
    let anew = options.first_start.anew || standing.turn == Turn::Turning;
    let found = match look(config, connected, store, options, anew).await {
        // Another process has made the link ready meanwhile, and may have copied something already.
        Err(error) if error.class == Class::Resync || error.exit == ExitCode::Config => {
            look(config, connected, store, options, anew).await
        }
        outcome => outcome,
    }?;
    if found.1 {
        // What it would be refused for is known before anything is written.
        first_positions(config, &connected.own).await?;
    }
    let lease = claim(config, connected, store).await?;
    let held = lease.clone();
    let taken = async {
        // Whoever held it until now may have changed what was looked at.
        let now = History::read(config, &connected.own).await?;
        let found = match found.0.is_of_the_same_process(&now) {
            true => found,
            false => look(config, connected, store, options, anew).await?,
        };
        prepare(config, connected, store, options, standing, found, lease).await
    };
    match taken.await {
        Err(error) => {
            let error = unless_replaced(&held, error).await;
            held.give_back().await;
            Err(error)
        }
        taken => taken,
    }
}

/// Everything between the lease and the first event.
async fn prepare(
    config: &Config,
    connected: &Connected,
    store: &Store,
    options: &RunOptions,
    standing: &mut Standing,
    (before, is_first, widening): (History, bool, Option<Job>),
    lease: Lease,
) -> Result<(Started, Ledger)> {
    let own = &connected.own;
    let sync = FirstSync::of(config, &options.work);
    let mut tags = Pair::new(HashSet::new(), HashSet::new());
    for side in Side::BOTH {
        tags[side].extend(session_ids(&before.sessions[side]));
        tags[side].extend(store.tag_sessions(side)?);
        kill_sessions(&connected.clusters[side], &tags[side]).await?;
    }
    let epoch = next_epoch(own, &config.link.name, &lease).await?;
    tell_of_store(store.begin_epoch(epoch)?, epoch, is_first);
    let mut started_from = None;
    if is_first {
        say_that_it_begins_anew(&before, &lease).await?;
        if matches!(sync, FirstSync::Copy) && options.first_start.drop_target {
            drop_included(config, &connected.clusters.b).await?;
        }
        started_from = Some(begin(config, own, &lease, epoch, &sync, standing).await?);
    } else {
        raise_epoch(config, connected, &before, epoch, &tags).await?;
        if let Some(job) = options.work.resync().or(widening.as_ref()) {
            job.put_on_record(&own.b, &config.link.name, &lease).await?;
            pair_anew(own, &config.link.name, job).await?;
        }
    }
    widening::remember(config, connected, store, &before).await?;
    let history = read_as_holder(config, connected, &lease, epoch, &mut tags).await?;
    must_reach_back(&history, connected).await?;
    let writers = connect_pair(config, &*connected.way).await?;
    let former = tags.clone();
    let lanes = open_lanes(config, own, &writers, &history, store, &mut tags).await?;
    let recover_to = Pair::new(own.a.operation_time().await?, own.b.operation_time().await?);
    let left_out = left_out(config, &connected.clusters).await?;
    let mut ledger = restore(config, own, &history, recover_to).await?;
    let initial_sync = history.is_copying();
    if initial_sync {
        ledger.hold(PipelineId::BToA);
    }
    let merge = history.merge();
    if merge.is_some() {
        ledger.hold_both();
    }
    if history.is_merging_first() {
        ledger.begin_joining();
    }
    let read_from = |side: Side| ledger.complete_of(side).clone();
    let started = Started {
        read_from: Pair::new(read_from(Side::A), read_from(Side::B)),
        lease,
        lanes,
        tags,
        former,
        recover_to,
        written_until: written_until(store, &before, &history, recover_to)?,
        left_out,
        started_from,
        initial_sync,
        merge,
        writers,
    };
    Ok((started, ledger))
}

/// Puts the beginning of a link on record, or of its other direction; gives from when it is.
async fn begin(
    config: &Config,
    own: &Pair<Own>,
    lease: &Lease,
    epoch: i64,
    sync: &FirstSync,
    standing: &mut Standing,
) -> Result<DateTime> {
    let turning = standing.turn == Turn::Turning;
    let from = match standing.from.filter(|_| turning) {
        Some(from) => from,
        None => {
            if matches!(sync, FirstSync::None) {
                make_missing(config, own).await?;
            }
            first_positions(config, own).await?
        }
    };
    tell_of_first(config, from, sync, turning);
    make_ready(config, own, lease, epoch, from, sync).await?;
    if turning {
        standing.open(own, &config.link.name).await?;
    }
    Ok(wall_time(from.a))
}

/// Reads what is there and refuses what does not fit. Writes nothing. Tells whether it is a first
/// start, as it is too where only a resync can help, and which resync new namespaces need.
async fn look(
    config: &Config,
    connected: &Connected,
    store: &Store,
    options: &RunOptions,
    anew: bool,
) -> Result<(History, bool, Option<Job>)> {
    let identity = identity_of(config, &connected.servers);
    let mut known = store.identity()?;
    if let Some(before) = &known {
        must_match(config, before, &identity)?;
    }
    for side in Side::BOTH {
        must_be_granted(config, &connected.clusters[side]).await?;
        must_be_understood(config, &connected.clusters[side]).await?;
    }
    let history = History::read(config, &connected.own).await?;
    history.must_be_of_a_known_format(config)?;
    if let Some(before) = history.identity(config).filter(|_| history.is_ready()) {
        must_match(config, &before, &identity)?;
        // Another host may have included more since.
        known = Some(before);
    }
    let neighbours = must_not_overlap(config, &identity.replica_set_ids, &connected.own).await?;
    tell_of_neighbours(config, &neighbours);
    let mut is_first = anew || !history.is_ready();
    let copies = matches!(FirstSync::of(config, &options.work), FirstSync::Copy);
    if is_first && copies && !options.first_start.drop_target {
        must_be_empty(config, &connected.clusters.b).await?;
    }
    let resync = options.work.resync();
    if resync.is_some() && history.is_copying() {
        return Err(Error::usage("the initial copy has not come to its end")
            .hint("`tandem run` goes on with it"));
    }
    let begins_anew = resync.is_some_and(Job::is_about_everything);
    if !anew {
        match may_go_on(config, connected, store, &history).await {
            Err(error) if error.class == Class::Resync && begins_anew => {
                tracing::warn!(%error, "beginning from now on, and merging everything");
                is_first = true;
            }
            outcome => outcome.map_err(|error| with_the_way_back(error, &history))?,
        }
    }
    let needed = || widening::needed(known.as_ref(), &identity, &history, resync);
    let widening = if is_first { None } else { needed()? };
    Ok((history, is_first, widening))
}

async fn may_go_on(
    config: &Config,
    connected: &Connected,
    store: &Store,
    history: &History,
) -> Result<()> {
    history.must_be_whole(config, store)?;
    must_reach_back(history, connected).await?;
    must_hold_what_was_read(config, history, connected).await
}

async fn connect_pair(config: &Config, way: &dyn Connect) -> Result<Pair<Cluster>> {
    Ok(Pair::new(
        way.connect(config, Side::A).await?,
        way.connect(config, Side::B).await?,
    ))
}

/// The ledger as the last process left it on the clusters.
async fn restore(
    config: &Config,
    own: &Pair<Own>,
    history: &History,
    recover_to: Pair<Timestamp>,
) -> Result<Ledger> {
    let rules = Rules {
        mode: config.link.mode,
        policy: config.conflicts.policy,
    };
    let applied = |side: Side| {
        let found = history.checkpoints[side].iter();
        found.map(|found| found.applied.clone()).collect()
    };
    let checkpoints = Pair::new(applied(Side::A), applied(Side::B));
    let rank = Rank::of(Side::B, config.conflicts.tie);
    clear_leftovers(&config.link.name, own, rank, &checkpoints).await?;
    let mut ledger = Ledger::new(rules, checkpoints, recover_to);
    for side in Side::BOTH {
        for found in &history.checkpoints[side] {
            if let Some(ahead) = &found.ahead {
                ledger.resume_ahead(side, found.lane, ahead.clone());
            }
        }
    }
    restore_notes(config, own, &mut ledger).await?;
    Ok(ledger)
}

impl Started {
    pub fn lane_counts(&self) -> Pair<usize> {
        Pair::new(self.lanes.a.len(), self.lanes.b.len())
    }

    /// The epoch that this process has raised every checkpoint to.
    pub fn epoch(&self) -> i64 {
        self.lanes
            .a
            .first()
            .map_or(0, |(_, checkpoint)| checkpoint.epoch)
    }
}

/// What a note lists is out of date where the other cluster says that it was paid.
async fn restore_notes(config: &Config, own: &Pair<Own>, ledger: &mut Ledger) -> Result<()> {
    let link = &config.link.name;
    let rank = Rank::of(Side::B, config.conflicts.tie);
    let found = Pair::new(
        notes(&own.a, link, rank).await?,
        notes(&own.b, link, rank).await?,
    );
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
            for event in &notes.witnessed {
                ledger.restore_witnessed(side, event.clone());
            }
        }
    }
    Ok(())
}
