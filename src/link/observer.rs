//! Takes what the readers read: documents to the exchange, changes of collections to the record.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};

use super::own::Own;
use crate::change::{ConflictKind, Namespace, Pair, PipelineId, RecordStatus, Side, record_id};
use crate::config::ConflictsConfig;
use crate::error::{Error, Result};
use crate::pipeline::{HandedOver, Shared, insist};
use crate::source::{DdlEvent, Moment, Observed, Observer};

/// The observer of both readers of a link.
#[derive(Clone)]
pub struct LinkObserver {
    shared: Arc<Shared>,
    own: Pair<Own>,
    /// Lanes by the `_id` of their checkpoint document.
    lanes: Arc<HashMap<String, (PipelineId, usize)>>,
    /// Why a cluster's stream is broken; none while it works.
    broken: Arc<Mutex<Pair<Option<String>>>>,
    /// A version this far ahead of this host's clock is worth a warning.
    future_warn: Duration,
    /// One that is further ahead stops the link.
    future_max: Option<Duration>,
    warned_at: Arc<Mutex<Option<Instant>>>,
}

/// An application with a wrong clock writes on and on.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

impl LinkObserver {
    pub fn new(
        shared: Arc<Shared>,
        own: Pair<Own>,
        lanes: HashMap<String, (PipelineId, usize)>,
        conflicts: &ConflictsConfig,
    ) -> Self {
        Self {
            shared,
            own,
            lanes: Arc::new(lanes),
            broken: Arc::default(),
            future_warn: conflicts.clock_skew_warn,
            future_max: conflicts.future_max,
            warned_at: Arc::default(),
        }
    }

    /// Why the stream of `side` is broken.
    pub fn broken(&self, side: Side) -> Option<String> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken[side].clone()
    }

    fn take(&self, side: Side, moment: Moment, ddl: &mut Vec<DdlEvent>) -> Result<HandedOver> {
        let mut handed = HandedOver {
            local: Vec::new(),
            echoes: Vec::new(),
            through: moment.through,
        };
        let now_ms = DateTime::now().timestamp_millis();
        for event in moment.observed {
            match event.observed {
                Observed::Local(event) => {
                    self.check_version(side, event.version.wall_time_ms, now_ms)?;
                    handed.local.push(event);
                }
                Observed::Echo(id) => handed.echoes.extend(self.lanes.get(&*id).copied()),
                Observed::Ddl(event) => ddl.push(event),
                Observed::Own(_) | Observed::Passing => {}
            }
        }
        let counters = &self.shared.counters[side];
        counters.totals().events_read += handed.local.len() as u64;
        if let Some(wall) = moment.wall_time_ms {
            counters.seen().observed_wall_ms = Some(wall);
        }
        Ok(handed)
    }

    /// A namespace that is seen for the first time gets its lanes before its first event.
    async fn route(&self, handed: &HandedOver) -> Result<()> {
        for event in &handed.local {
            let namespace = event.key.namespace();
            if self.shared.exchange.is_routed(namespace) {
                continue;
            }
            let single = insist(|| self.shared.collections.needs_one_lane(namespace)).await?;
            self.shared.exchange.route(namespace.clone(), single);
        }
        Ok(())
    }

    /// The write's own wall time is no measure: it is as wrong as its server's clock.
    fn check_version(&self, side: Side, version_ms: i64, now_ms: i64) -> Result<()> {
        let ahead = version_ms.saturating_sub(now_ms);
        let further_than = |limit: Duration| ahead > limit.as_millis() as i64;
        let name = &self.shared.facts.names[side];
        if !self.future_max.is_some_and(further_than) {
            if further_than(self.future_warn) {
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

    /// Puts a change of a collection on record, and stops replicating what is not paired any more.
    async fn take_ddl(&self, side: Side, event: &DdlEvent) -> Result<()> {
        let namespace = &event.namespace;
        match event.operation.as_str() {
            "create" | "shardCollection" | "invalidate" | "endOfTransaction" => return Ok(()),
            "createIndexes" if side == Side::B && self.shared.is_building(namespace) => {
                self.shared.collections.forget_indexes(namespace);
                return Ok(());
            }
            "createIndexes" | "dropIndexes" | "modify" => {
                self.shared.collections.forget_indexes(namespace);
            }
            _ => {}
        }
        let name = &self.shared.facts.names[side];
        tracing::warn!(cluster = %name, operation = %event.operation, %namespace, "a change of a collection is not replicated, see the conflict report");
        self.put_on_record(side, event).await?;
        let reason = format!("{} on {name}", event.operation);
        match event.operation.as_str() {
            "drop" | "rename" => self.unpair(namespace, &reason).await?,
            "dropDatabase" => {
                let gone = self.shared.collections.in_database(namespace.database());
                for namespace in &gone {
                    self.unpair(namespace, &reason).await?;
                }
            }
            _ => {}
        }
        match &event.to {
            Some(to) => self.unpair(to, &reason).await,
            None => Ok(()),
        }
    }

    async fn unpair(&self, namespace: &Namespace, reason: &str) -> Result<()> {
        if self.shared.collections.is_unpaired(namespace) {
            return Ok(());
        }
        self.shared.collections.unpair(namespace, reason).await?;
        self.shared.exchange.ledger().unpair(namespace.clone());
        Ok(())
    }

    async fn put_on_record(&self, side: Side, event: &DdlEvent) -> Result<()> {
        let record = ddl_record(&self.shared, side, event)?;
        let mut body = record.clone();
        let id = body.remove("_id");
        let statement = doc! { "q": { "_id": id }, "u": { "$setOnInsert": body }, "upsert": true };
        self.own[side].update("conflicts", vec![statement]).await?;
        let raw = RawDocumentBuf::try_from(&record)
            .map_err(|error| Error::bug("a record that cannot be written").caused_by(error))?;
        self.shared.store.put_records(&[raw])?;
        Ok(())
    }
}

fn ddl_record(shared: &Shared, side: Side, event: &DdlEvent) -> Result<Document> {
    let facts = &shared.facts;
    let change = Document::try_from(event.raw.clone())
        .map_err(|error| Error::bug("an event that cannot be read").caused_by(error))?;
    Ok(doc! {
        "_id": record_id(&facts.link, &facts.replica_set_ids[side], &event.position.token),
        "logged_at": DateTime::now(),
        "pipeline": PipelineId::from_source(side).as_str(),
        "namespace": event.namespace.as_str(),
        "document_key": Bson::Null,
        "kind": ConflictKind::Ddl.as_str(),
        "policy": facts.policy,
        "winner": Bson::Null,
        "winner_cluster": Bson::Null,
        "reason": &event.operation,
        "winning": Bson::Null,
        "losing": {
            "operation": &event.operation,
            "cluster_time": event.position.time,
            "wall_time": DateTime::from_millis(event.wall_time_ms),
            "version": event.wall_time_ms,
            "change": change,
            "document": Bson::Null,
        },
        "clock_skew_ms": Bson::Null,
        "status": RecordStatus::Logged.as_str(),
    })
}

impl Observer for LinkObserver {
    async fn observe(&self, side: Side, moments: Vec<Moment>) -> Result<()> {
        let mut ready = Vec::with_capacity(moments.len());
        for moment in moments {
            let mut ddl = Vec::new();
            let handed = self.take(side, moment, &mut ddl)?;
            if !ddl.is_empty() {
                // What came before must not wait for the record of the change.
                self.shared
                    .exchange
                    .hand_over(side, std::mem::take(&mut ready));
                for event in &ddl {
                    insist(|| self.take_ddl(side, event)).await?;
                }
            }
            self.route(&handed).await?;
            ready.push(handed);
        }
        self.shared.exchange.hand_over(side, ready);
        Ok(())
    }

    async fn room(&self, side: Side) {
        self.shared.exchange.wait_for_room(side).await;
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
