//! Takes what the readers read: documents to the exchange, changes of collections to the record.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bson::{DateTime, Uuid};
use smallvec::SmallVec;

use super::own::Own;
use crate::change::{DocumentKey, Namespace, Pair, SharedEvent, Side};
use crate::config::ConflictsConfig;
use crate::ddl::{Ddl, Seen, index_names, put_on_record};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::pipeline::{HandedOver, Shared, insist};
use crate::source::{Behind, DdlEvent, Moment, Observed, Observer};
use crate::telemetry::status::IndexProblem;

/// The observer of both readers of a link.
#[derive(Clone)]
pub struct LinkObserver {
    shared: Arc<Shared>,
    own: Pair<Own>,
    ddl: Arc<Ddl>,
    /// Why a cluster's stream is broken; none while it works.
    broken: Arc<Mutex<Pair<Option<String>>>>,
    /// A version that is further ahead of this host's clock stops the link.
    future_max: Option<Duration>,
    warned_at: Arc<Mutex<Option<Instant>>>,
}

/// An application with a wrong clock writes on and on.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// A collection as events name it.
struct Lasting {
    uuid: Uuid,
    name: Namespace,
    /// Its lasting name, where that is another one.
    lasting: Option<Namespace>,
}

impl Lasting {
    fn is_of(&self, uuid: Uuid, name: &Namespace) -> bool {
        self.uuid == uuid && self.name == *name
    }
}

impl LinkObserver {
    pub fn new(
        shared: Arc<Shared>,
        own: Pair<Own>,
        ddl: Arc<Ddl>,
        conflicts: &ConflictsConfig,
    ) -> Self {
        Self {
            shared,
            own,
            ddl,
            broken: Arc::default(),
            future_max: conflicts.future_max,
            warned_at: Arc::default(),
        }
    }

    /// Indexes and options that a cluster refuses.
    pub fn index_problems(&self) -> Vec<IndexProblem> {
        self.ddl.index_problems(&self.shared.collections)
    }

    /// Why the stream of `side` is broken.
    pub fn broken(&self, side: Side) -> Option<String> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken[side].clone()
    }

    fn take(
        &self,
        side: Side,
        moment: Moment,
        now_ms: i64,
        known: &mut Option<Lasting>,
        ddl: &mut Vec<DdlEvent>,
    ) -> Result<HandedOver> {
        let mut handed = HandedOver {
            local: SmallVec::new(),
            through: moment.through,
        };
        for event in moment.observed {
            let collection = event.collection;
            match event.observed {
                Observed::Local(event) => {
                    let event = self.identified(side, event, collection, known);
                    self.check_version(side, event.version.wall_time_ms, now_ms)?;
                    handed.local.push(event);
                }
                Observed::Ddl(event) => ddl.push(*event),
                Observed::Own(_) | Observed::Passing => {}
            }
        }
        Ok(handed)
    }

    fn count(&self, side: Side, events: usize, last_wall_time_ms: Option<i64>) {
        let counters = &self.shared.counters[side];
        counters.totals().events_read += events as u64;
        if last_wall_time_ms.is_some() {
            counters.seen().observed_wall_ms = last_wall_time_ms;
        }
    }

    /// The collection's lasting name, where it is not the one of the event.
    fn lasting(&self, side: Side, name: &Namespace, uuid: Uuid) -> Option<Namespace> {
        let lasting = self.shared.collections.identify(side, uuid, name);
        (lasting != *name).then_some(lasting)
    }

    /// The key under the lasting name of its collection.
    pub(super) fn lasting_key(
        &self,
        side: Side,
        key: DocumentKey,
        uuid: Option<Uuid>,
    ) -> DocumentKey {
        match uuid.and_then(|uuid| self.lasting(side, key.namespace(), uuid)) {
            Some(name) => key.within(&name),
            None => key,
        }
    }

    /// `known` is what the event before was about, mostly the same.
    fn identified(
        &self,
        side: Side,
        event: SharedEvent,
        uuid: Option<Uuid>,
        known: &mut Option<Lasting>,
    ) -> SharedEvent {
        let (Some(uuid), name) = (uuid, event.key.namespace()) else {
            return event;
        };
        if known.as_ref().is_none_or(|known| !known.is_of(uuid, name)) {
            *known = Some(Lasting {
                uuid,
                name: name.clone(),
                lasting: self.lasting(side, name, uuid),
            });
        }
        match known.as_ref().and_then(|known| known.lasting.as_ref()) {
            Some(lasting) => {
                let mut event = Arc::unwrap_or_clone(event);
                event.key = event.key.within(lasting);
                Arc::new(event)
            }
            None => event,
        }
    }

    /// Namespaces that are seen for the first time get their lanes before their first event.
    async fn route(&self, handed: &[HandedOver]) -> Result<()> {
        let exchange = &self.shared.exchange;
        let mut new: Vec<Namespace> = Vec::new();
        let mut before = None;
        for event in handed.iter().flat_map(|handed| &handed.local) {
            let namespace = event.key.namespace();
            if before != Some(namespace) && !exchange.is_routed(namespace) {
                new.push(namespace.clone());
            }
            before = Some(namespace);
        }
        if new.is_empty() {
            return Ok(());
        }
        new.sort();
        new.dedup();
        let collections = &self.shared.collections;
        insist(|| collections.route(&new)).await?;
        for namespace in new {
            let single = collections.is_in_one_lane(&namespace);
            exchange.route(namespace, single);
        }
        Ok(())
    }

    async fn hand_over(&self, side: Side, handed: Vec<HandedOver>) -> Result<()> {
        self.route(&handed).await?;
        self.shared.exchange.hand_over(side, handed)
    }

    /// The write's own wall time is no measure: it is as wrong as its server's clock.
    fn check_version(&self, side: Side, version_ms: i64, now_ms: i64) -> Result<()> {
        let ahead = version_ms.saturating_sub(now_ms);
        let further_than = |limit: Duration| ahead > limit.as_millis() as i64;
        let name = &self.shared.facts.names[side];
        if !self.future_max.is_some_and(further_than) {
            if ahead > 0 && further_than(self.shared.adjustable().clock_skew_warn) {
                self.warn_of_future(name, ahead);
            }
            return Ok(());
        }
        Err(Error::cluster(format!(
            "a write on {name} has a version {} s in the future, more than conflicts.future_max",
            ahead / 1000
        ))
        .hint("correct the clock or the version field of the application, or raise the limit"))
    }

    fn warn_of_future(&self, name: &str, ahead_ms: i64) {
        let mut warned_at = self
            .warned_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|at| at.elapsed() >= WARN_INTERVAL) {
            *warned_at = Some(Instant::now());
            tracing::warn!(cluster = %name, ahead_ms, "a write has a version in the future: it wins every race until then");
        }
    }

    /// A change of a collection waits for its turn, or is put on record.
    async fn take_ddl(&self, side: Side, event: &DdlEvent) -> Result<()> {
        let builds = |event: &DdlEvent| {
            let indexes = index_names(event);
            self.shared.is_building(side, &event.namespace, &indexes)
        };
        if event.operation == "createIndexes" && builds(event) {
            let namespace = self.lasting_of(side, event);
            self.shared.collections.forget_indexes(&namespace);
            return Ok(());
        }
        match self.ddl.observe(&self.shared, side, event).await? {
            Seen::Waits | Seen::Passing => Ok(()),
            Seen::NotSent => self.pass_over(side, event).await,
        }
    }

    /// Puts a change of a collection on record, and stops replicating what is not paired any more.
    async fn pass_over(&self, side: Side, event: &DdlEvent) -> Result<()> {
        let namespace = self.lasting_of(side, event);
        match event.operation.as_str() {
            "create" | "shardCollection" | "invalidate" | "endOfTransaction" => return Ok(()),
            _ => {}
        }
        let name = &self.shared.facts.names[side];
        tracing::warn!(cluster = %name, operation = %event.operation, namespace = %event.namespace, "a change of a collection is not replicated, see the conflict report");
        let own = &self.own[side];
        put_on_record(&self.shared, own, side, event, None, &event.operation).await?;
        let reason = format!("{} on {name}", event.operation);
        match event.operation.as_str() {
            "drop" | "rename" => self.unpair(&namespace, &reason).await?,
            "dropDatabase" => {
                let gone = self
                    .shared
                    .collections
                    .in_database(side, event.namespace.database());
                for namespace in &gone {
                    self.unpair(namespace, &reason).await?;
                }
            }
            _ => {}
        }
        match &event.to {
            Some(to) => {
                let collections = &self.shared.collections;
                let called = collections.called(side, to);
                let called = called.unwrap_or_else(|| collections.on_a(side, to));
                self.unpair(&called, &reason).await
            }
            None => Ok(()),
        }
    }

    fn lasting_of(&self, side: Side, event: &DdlEvent) -> Namespace {
        let collections = &self.shared.collections;
        let known = event
            .collection_uuid
            .and_then(|uuid| collections.of_uuid(side, uuid));
        known.unwrap_or_else(|| collections.on_a(side, &event.namespace))
    }

    async fn unpair(&self, namespace: &Namespace, reason: &str) -> Result<()> {
        if self.shared.collections.is_unpaired(namespace) {
            return Ok(());
        }
        self.shared.collections.unpair(namespace, reason).await?;
        self.shared.exchange.ledger().unpair(namespace.clone());
        Ok(())
    }
}

impl Observer for LinkObserver {
    async fn observe(&self, side: Side, moments: Vec<Moment>) -> Result<()> {
        let mut ready = Vec::with_capacity(moments.len());
        let now_ms = DateTime::now().timestamp_millis();
        let (mut events, mut wall_time_ms, mut known) = (0, None, None);
        for moment in moments {
            let mut ddl = Vec::new();
            wall_time_ms = moment.wall_time_ms.or(wall_time_ms);
            let handed = self.take(side, moment, now_ms, &mut known, &mut ddl)?;
            events += handed.local.len();
            if !ddl.is_empty() {
                // What came before must not wait for the record of the change.
                let before = std::mem::take(&mut ready);
                self.hand_over(side, before).await?;
                for event in &ddl {
                    insist(|| self.take_ddl(side, event)).await?;
                }
                known = None;
            }
            ready.push(handed);
        }
        self.count(side, events, wall_time_ms);
        self.hand_over(side, ready).await
    }

    async fn room(&self, side: Side) {
        self.shared.exchange.wait_for_room(side).await;
    }

    fn is_behind(&self, side: Side, behind: Behind) {
        self.shared.exchange.set_behind(side, behind);
    }

    fn commits_begun(&self, side: Side) -> u64 {
        self.shared.exchange.commits_begun(side)
    }

    async fn commits_known(&self, side: Side, begun: u64) {
        if !Fault::HastyReader.is_on() {
            self.shared.exchange.wait_commits_known(side, begun).await;
        }
    }

    fn why_unclear(&self, side: Side) -> Option<String> {
        self.shared.exchange.why_unclear(side)
    }

    fn needs_marker(&self, side: Side) {
        self.shared.exchange.ask_for_marker(side);
    }

    fn reachable(&self, side: Side, error: Option<&Error>) {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if error.is_none() && broken[side].is_none() {
            return;
        }
        if error.is_none() {
            tracing::info!(cluster = %self.shared.facts.names[side], "change stream works again");
        }
        broken[side] = error.map(ToString::to_string);
    }
}
