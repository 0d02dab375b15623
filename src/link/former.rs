//! Reads a cluster's history: first what former processes of the link wrote, then what applications
//! write.

use std::time::Duration;

use bson::{Timestamp, Uuid};

use super::initial_sync::survey::included;
use super::observer::LinkObserver;
use super::start::{Connected, Started};
use crate::change::{Filters, Pair, Position, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pipeline::{Exchange, Pause, is_simple, uuid_in};
use crate::source::{
    Behind, Decoder, LeftOut, Moment, Observed, Observer, Origin, Patience, Reader,
    SimpleCollection, StreamFilter, Until, first_data_written, timed,
};

/// One cluster, and from where on it is read.
pub(super) struct SideHistory {
    config: Config,
    side: Side,
    cluster: Cluster,
    tags: Vec<Uuid>,
    from: Position,
    left_out: LeftOut,
    recover_to: Timestamp,
    /// Former processes have written nothing after this time.
    written_until: Timestamp,
    single_writes_are_whole: bool,
}

/// The observer of a stream that holds nothing but tandem's own writes.
struct FormerWrites<'a> {
    exchange: &'a Exchange,
    link: LinkObserver,
}

impl SideHistory {
    pub fn new(config: &Config, connected: &Connected, started: &Started, side: Side) -> Self {
        Self {
            config: config.clone(),
            side,
            cluster: connected.clusters[side].clone(),
            tags: started.tags[side].iter().copied().collect(),
            from: started.read_from[side].clone(),
            left_out: started.left_out[side].clone(),
            recover_to: started.recover_to[side],
            written_until: started.written_until[side],
            single_writes_are_whole: connected.servers[side].single_writes_are_whole(),
        }
    }

    /// Foresees what former processes wrote up to the moment of the start, and observes the whole
    /// history then, as far as there is room for it.
    ///
    /// # Errors
    /// As [`Reader::run`] says.
    pub async fn read(self, exchange: &Exchange, observer: LinkObserver) -> Result<()> {
        let mut outages = Pause::of_outages();
        let mut pause = |works: bool| match works {
            true => {
                outages.reset();
                Duration::ZERO
            }
            false => outages.wait(),
        };
        // Both streams pass the moment of the start by it, even if nothing else is written.
        exchange.ask_for_marker(self.side);
        if let Some(first) = self.first_written(&observer, &mut pause).await? {
            let before = Position::before(first, self.from.token.clone());
            let from = before.map_or(self.from.clone(), |before| before.max(self.from.clone()));
            let former = FormerWrites {
                exchange,
                link: observer.clone(),
            };
            let sessions = self.tags.clone();
            self.reader(Origin::Tandem { sessions }, former, from)
                .run(Until::Passed(self.recover_to), &mut pause)
                .await?;
        }
        exchange.own_writes_known(self.side);
        let hidden = self.tags.clone();
        self.reader(Origin::Applications { hidden }, observer, self.from.clone())
            .run(Until::Cancelled, &mut pause)
            .await
    }

    /// When former processes wrote data first, up to the moment of the start. As a rule they have
    /// not since what is to be read, and after a clean stop this host knows it. Else the oplog is
    /// asked: no stream need go through a backlog then, which takes the server several times as long.
    async fn first_written(
        &self,
        observer: &LinkObserver,
        pause: &mut impl FnMut(bool) -> Duration,
    ) -> Result<Option<Timestamp>> {
        if self.written_until < self.from.time || self.tags.is_empty() {
            return Ok(None);
        }
        tracing::debug!(cluster = %self.cluster.name, "looking for former writes in the oplog");
        let own_database = self.config.namespaces.own_database();
        let range = (self.from.time, self.recover_to);
        let mut patience = Patience::usual(&self.cluster);
        loop {
            let cluster = self.cluster.waiting(patience.time_max);
            let look = first_data_written(&cluster, &self.tags, own_database, range);
            let (found, took) = timed(look).await;
            let error = match found {
                Err(error) if error.is_retryable() => error,
                found => return found,
            };
            observer.reachable(self.side, Some(&error));
            patience.took = took;
            patience.learn(&self.cluster).await;
            let wait = pause(false);
            tracing::warn!(cluster = %self.cluster.name, %error, wait_ms = wait.as_millis() as u64, "cannot look for former writes, looking again");
            tokio::time::sleep(wait).await;
        }
    }

    fn reader<O: Observer>(&self, origin: Origin, observer: O, from: Position) -> Reader<O> {
        let config = &self.config;
        let decoder = Decoder::new(
            self.side,
            config.conflicts.tie,
            config.namespaces.clone(),
            filters_of(config, self.side),
            config.conflicts.version_field.clone(),
            self.tags.iter().copied().collect(),
        );
        let filter = StreamFilter {
            side: self.side,
            namespaces: config.namespaces.clone(),
            left_out: match origin {
                Origin::Applications { .. } => self.left_out.clone(),
                Origin::Tandem { .. } => LeftOut::default(),
            },
            origin,
        };
        Reader::new(
            self.cluster.clone(),
            decoder,
            filter,
            observer,
            from,
            self.single_writes_are_whole,
        )
    }
}

/// The filters of a source, by the names that collections have there; a target has none.
fn filters_of(config: &Config, side: Side) -> Filters {
    match config.link.mode.sends(side) {
        true => config.filters.on(side, config.namespaces.renames()),
        false => Filters::default(),
    }
}

/// What the servers leave out of the streams, by the collections that there are now.
///
/// # Errors
/// As the clusters say.
pub(super) async fn left_out(config: &Config, clusters: &Pair<Cluster>) -> Result<Pair<LeftOut>> {
    let mut left_out = Pair::new(LeftOut::default(), LeftOut::default());
    for side in Side::BOTH {
        let filters = filters_of(config, side);
        if filters.is_empty() {
            continue;
        }
        let found = included(&clusters[side], &config.namespaces).await?;
        let simple = found.into_iter().filter(|(_, entry)| is_simple(entry));
        let with_uuid = simple.filter_map(|(name, entry)| {
            let uuid = uuid_in(entry.get_document("info").ok()?, "uuid")?;
            Some(SimpleCollection { name, uuid })
        });
        left_out[side] = LeftOut::of(&filters, &with_uuid.collect::<Vec<_>>());
    }
    Ok(left_out)
}

impl Observer for FormerWrites<'_> {
    async fn observe(&self, side: Side, moments: Vec<Moment>) -> Result<()> {
        let mut written = Vec::new();
        for event in moments.into_iter().flat_map(|moment| moment.observed) {
            let collection = event.collection;
            if let Observed::Own(key) = event.observed {
                let key = self.link.lasting_key(side, key, collection);
                written.push((key, event.position.time));
            }
        }
        self.exchange.foresee(side, &written);
        Ok(())
    }

    async fn room(&self, _: Side) {}

    fn is_behind(&self, _: Side, _: Behind) {}

    fn commits_begun(&self, _: Side) -> u64 {
        0
    }

    async fn commits_known(&self, _: Side, _: u64) {}

    fn why_unclear(&self, _: Side) -> Option<String> {
        None
    }

    fn needs_marker(&self, side: Side) {
        self.exchange.ask_for_marker(side);
    }

    fn reachable(&self, side: Side, error: Option<&Error>) {
        self.link.reachable(side, error);
    }
}
