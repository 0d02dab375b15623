//! What the clusters remember of the link: its document, its checkpoints, its sessions, its notes.

use std::sync::Arc;

use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};

use super::checkpoints::FoundCheckpoint;
use super::merge::Job;
use super::own::Own;
use super::set_back::forgotten;
use crate::change::{
    ChangeEvent, DocumentKey, Namespace, Operation, Pair, PipelineId, Position, Rank, RawEvent,
    SharedEvent, Side, Version,
};
use crate::config::{Config, Mode};
use crate::error::{Error, Result};
use crate::resolve::{LostWrite, StoredNotes};
use crate::store::{LinkIdentity, Store};
use crate::target::key_in;

/// What the clusters hold of a link is understood by whoever knows this format. Since 2 a checkpoint
/// may be `ahead` of its position.
pub const LINK_FORMAT: i64 = 2;

/// In the link's document while a link that was ready begins anew.
pub const BEGINS_ANEW: &str = "begins_anew";

/// Everything that both clusters remember.
#[derive(Debug, Default)]
pub struct History {
    /// The link's document on each cluster.
    pub links: Pair<Option<Document>>,
    /// By the pipeline's source, ordered by lane.
    pub checkpoints: Pair<Vec<FoundCheckpoint>>,
    pub sessions: Pair<Vec<Document>>,
}

/// The cluster that keeps a pipeline's checkpoints: its target. In one-way mode nothing goes to
/// the source, so what is known of the target's history stays there.
pub fn keeper(mode: Mode, pipeline: PipelineId) -> Side {
    match (mode, pipeline) {
        (Mode::OneWay { from }, _) => from.other(),
        (Mode::TwoWay, pipeline) => pipeline.target(),
    }
}

impl History {
    /// # Errors
    /// As the clusters say.
    pub async fn read(config: &Config, own: &Pair<Own>) -> Result<Self> {
        let link = &config.link.name;
        let mut history = History::default();
        for side in Side::BOTH {
            let found = own[side].find("links", doc! { "_id": link }).await?;
            history.links[side] = found.into_iter().next();
            history.sessions[side] = own[side].find("sessions", doc! { "link": link }).await?;
        }
        for pipeline in PipelineId::BOTH {
            let filter = doc! { "link": link, "pipeline": pipeline.as_str() };
            let side = keeper(config.link.mode, pipeline);
            let found = own[side].find("checkpoints", filter).await?;
            let mut checkpoints: Vec<_> = found
                .iter()
                .filter_map(FoundCheckpoint::of_document)
                .collect();
            checkpoints.sort_by_key(|checkpoint| checkpoint.lane);
            history.checkpoints[pipeline.source()] = checkpoints;
        }
        Ok(history)
    }

    /// Whether an earlier start got as far as making the link's state complete. One that was killed
    /// before it had told both clusters so has applied nothing: it is a first start again.
    pub fn is_ready(&self) -> bool {
        let is_begun = |side: &Side| self.links[*side].is_some() && !self.is_ready_on(*side);
        Side::BOTH.iter().any(|side| self.is_ready_on(*side)) && !Side::BOTH.iter().any(is_begun)
    }

    /// Whether a start anew has not come to its end, on whichever cluster.
    fn begins_anew(&self) -> bool {
        let says_so = |link: &Document| link.get_bool(BEGINS_ANEW).unwrap_or(false);
        let mut links = [&self.links.a, &self.links.b].into_iter().flatten();
        links.any(says_so)
    }

    /// How far the copy or merge is that the link begins with; the last cluster to be told counts.
    fn initial_sync(&self) -> Option<&str> {
        self.links.b.as_ref()?.get_str("initial_sync").ok()
    }

    pub fn is_copying(&self) -> bool {
        self.initial_sync() == Some("copying")
    }

    pub fn is_merging_first(&self) -> bool {
        self.initial_sync() == Some("merging")
    }

    /// The merge or resync that has not come to its end.
    pub fn merge(&self) -> Option<Job> {
        let resync = self.links.b.as_ref()?.get_document("resync").ok();
        let resync = resync.and_then(Job::of_document);
        resync.or(self.is_merging_first().then(Job::default))
    }

    /// Whether no process has taken the link over between two looks.
    pub fn is_of_the_same_process(&self, later: &History) -> bool {
        let epochs = |history: &History| {
            let of = |side: Side| {
                let found = history.checkpoints[side].iter();
                found.map(|found| found.epoch).collect::<Vec<_>>()
            };
            Pair::new(of(Side::A), of(Side::B))
        };
        let of_start = |history: &History| (history.is_ready(), history.begins_anew());
        of_start(self) == of_start(later) && epochs(self) == epochs(later)
    }

    /// # Errors
    /// Fenced (8) where another process has raised it further.
    pub fn must_be_of_epoch(&self, epoch: i64, link: &str) -> Result<()> {
        let mut found = self.checkpoints.a.iter().chain(&self.checkpoints.b);
        match found.all(|found| found.epoch == epoch) {
            true => Ok(()),
            false => Err(Error::fenced(format!(
                "another process has taken over link {link}"
            ))),
        }
    }

    fn is_ready_on(&self, side: Side) -> bool {
        let is_ready = |link: &Document| link.get_bool("ready").unwrap_or(false);
        self.links[side].as_ref().is_some_and(is_ready)
    }

    /// # Errors
    /// A store error (7) where a newer tandem has written the link.
    pub fn must_be_of_a_known_format(&self, config: &Config) -> Result<()> {
        for side in Side::BOTH {
            let link = self.links[side].as_ref();
            let format = link.and_then(|link| link.get_i64("format").ok());
            if let Some(format) = format.filter(|format| *format > LINK_FORMAT) {
                let (name, link) = (&config.clusters[side].name, &config.link.name);
                return Err(Error::store(format!(
                    "{name} has link {link} in format {format}, this tandem knows formats up to {LINK_FORMAT}"
                ))
                .hint("run the newer tandem that wrote it"));
            }
        }
        Ok(())
    }

    /// The identity that the link was started with, where any cluster knows it.
    pub fn identity(&self, config: &Config) -> Option<LinkIdentity> {
        let found = self.links.a.as_ref().or(self.links.b.as_ref())?;
        let text = |name: &str| found.get_str(name).map(str::to_owned).ok();
        let list = |name: &str| {
            let list = found.get_array(name).ok()?;
            Some(
                list.iter()
                    .filter_map(Bson::as_str)
                    .map(str::to_owned)
                    .collect::<Vec<_>>(),
            )
        };
        Some(LinkIdentity {
            link: config.link.name.clone(),
            mode: text("mode")?,
            tie: if text("tie")? == "b" {
                Side::B
            } else {
                Side::A
            },
            database: config.link.database.clone(),
            replica_set_ids: Pair::new(text("set_a")?, text("set_b")?),
            include: list("include")?,
            exclude: list("exclude")?,
            filters: list("filters").unwrap_or_default(),
            renames: list("renames").unwrap_or_default(),
        })
    }

    /// State that is there on one side only, or that the local store knows better, must not be
    /// mistaken for a first start.
    ///
    /// # Errors
    /// A history error (5).
    pub fn must_be_whole(&self, config: &Config, store: &Store) -> Result<()> {
        let names = config
            .clusters
            .as_ref()
            .map(|cluster| cluster.name.as_str());
        let lost = |what: String| {
            Err(Error::history(what).hint(
                "a restored backup? `tandem resync` begins from now on and merges both sides",
            ))
        };
        if self.begins_anew() {
            let link = &config.link.name;
            return Err(Error::history(format!(
                "a start that began link {link} anew was broken off before it was done"
            ))
            .hint(
                "`tandem run --first-start` does it again; `tandem resync` begins from now on and \
                 merges both sides",
            ));
        }
        if !self.is_ready() {
            return match store.checkpoints()?.is_empty() {
                true => Ok(()),
                false => lost(
                    "the local store knows checkpoints that the clusters do not have".to_owned(),
                ),
            };
        }
        for side in Side::BOTH {
            if !self.is_ready_on(side) {
                let what = format!("{} has lost the link's state", names[side]);
                return Err(forgotten(config, side, what));
            }
            // The first ids are put on record last, before anything is applied.
            let has_applied = |found: &FoundCheckpoint| found.sequence > 0;
            let lacks_ids = self.sessions[side].is_empty() && config.link.mode.sends(side.other());
            if lacks_ids && self.checkpoints[side.other()].iter().any(has_applied) {
                return lost(format!(
                    "{} has lost the ids of tandem's sessions",
                    names[side]
                ));
            }
        }
        for pipeline in PipelineId::BOTH {
            let found = &self.checkpoints[pipeline.source()];
            let lanes = found.first().map_or(0, |checkpoint| checkpoint.lanes);
            if found.len() != lanes || lanes == 0 {
                let keeper = names[keeper(config.link.mode, pipeline)];
                return lost(format!(
                    "{keeper} has lost checkpoints of {}",
                    pipeline.as_str()
                ));
            }
        }
        for known in store.checkpoints()? {
            let found = self.checkpoints[known.pipeline.source()].get(known.lane);
            let newer =
                found.is_some_and(|found| (known.epoch, known.seq) > (found.epoch, found.sequence));
            if newer {
                let keeper = keeper(config.link.mode, known.pipeline);
                let what = format!(
                    "{} stands behind what this state directory remembers of it",
                    names[keeper]
                );
                return Err(forgotten(config, keeper, what));
            }
        }
        Ok(())
    }
}

/// The highest epoch on record. Where a turned link begins, it is on the other cluster.
///
/// # Errors
/// As the clusters say.
pub async fn highest_epoch(own: &Pair<Own>, link: &str) -> Result<i64> {
    let mut highest = 0;
    for side in Side::BOTH {
        let found = own[side].find("checkpoints", doc! { "link": link }).await?;
        let epochs = found.iter().filter_map(|one| one.get_i64("epoch").ok());
        highest = epochs.fold(highest, i64::max);
    }
    Ok(highest)
}

/// Notes of a former process on one cluster.
///
/// # Errors
/// As the cluster says.
pub async fn notes(own: &Own, link: &str, rank: Rank) -> Result<Vec<(DocumentKey, FoundNotes)>> {
    let found = own.find("keys", doc! { "_id.link": link }).await?;
    Ok(found
        .iter()
        .filter_map(|found| found_notes(found, rank))
        .collect())
}

/// One key's notes, and what the other side's transactions left about them.
#[derive(Debug, Clone, Default)]
pub struct FoundNotes {
    pub stored: StoredNotes,
    /// The value of the other side's note that was paid, and how far the document was replaced.
    pub paid: Option<(String, Timestamp)>,
    /// One-way mode: local writes of b that a has not touched yet.
    pub witnessed: Vec<SharedEvent>,
}

fn found_notes(found: &Document, rank: Rank) -> Option<(DocumentKey, FoundNotes)> {
    let id = found.get_document("_id").ok()?;
    let namespace = Namespace::parse(id.get_str("ns").ok()?)?;
    let key = DocumentKey::of(&namespace, &key_in(found)?)?;
    let lost = found.get_array("lost").into_iter().flatten();
    let lost = lost.filter_map(|write| {
        let write = write.as_document()?;
        Some(LostWrite {
            record: write.get_str("record").ok()?.into(),
            at: write.get_timestamp("at").ok()?,
        })
    });
    let paid = found.get_document("paid").ok().and_then(|paid| {
        let value = paid.get_str("value").ok()?.to_owned();
        Some((value, paid.get_timestamp("through").ok()?))
    });
    let stored = StoredNotes {
        owed: found.get_str("owed").ok().map(Into::into),
        lost: lost.collect(),
        included: found.get_timestamp("included").ok(),
        dead: found.get_bool("dead").unwrap_or(false),
    };
    let notes = FoundNotes {
        stored,
        paid,
        witnessed: witnessed(found, &key, rank),
    };
    Some((key, notes))
}

/// Noted writes, oldest first and each of them once; what they changed is not on record any more.
fn witnessed(found: &Document, key: &DocumentKey, rank: Rank) -> Vec<SharedEvent> {
    let event = |local: &Bson| {
        let local = local.as_document()?;
        let wall_time_ms = local.get_datetime("wall_time").ok()?.timestamp_millis();
        let operation = Operation::parse(local.get_str("operation").ok()?)?;
        Some(Arc::new(ChangeEvent {
            position: Position::of_event(
                local.get_timestamp("time").ok()?,
                local.get_str("token").ok()?,
            ),
            key: key.clone(),
            operation,
            version: Version {
                wall_time_ms: local.get_i64("version").ok()?,
                rank,
            },
            wall_time_ms,
            raw: RawEvent::of(RawDocumentBuf::try_from(local).ok()?, operation),
        }))
    };
    let list = found.get_array("local").into_iter().flatten();
    let mut events: Vec<SharedEvent> = list.filter_map(event).collect();
    events.sort_by(|one, other| one.position.cmp(&other.position));
    events.dedup_by(|one, other| one.position == other.position);
    events
}
