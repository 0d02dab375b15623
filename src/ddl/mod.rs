//! Changes of collections: read on one cluster, brought over to the other behind a barrier.
//!
//! A DDL event closes a gate in its pipeline ([`crate::resolve::Ledger::close_gate`]). Once
//! everything before it has arrived, it gets its turn (`turn`): what it changed is made on the
//! other cluster as it is now on this one, and the gate opens. A turn that is taken twice finds
//! nothing left to do, so a crash needs no further care.

mod barrier;
mod bring;
mod change;
mod create;
mod definition;
mod intent;
mod observe;
mod problems;
mod queue;
mod record;
mod rename;
mod turn;
mod unsaid;
mod view_names;
mod views;
mod worker;

pub use change::index_names;
pub use definition::{effective as effective_options, is_same_index, to_create as index_to_create};
pub use observe::Seen;
pub use record::put_on_record;
pub use view_names::view_options;
pub use worker::Worker;

use std::sync::Arc;

use bson::{Timestamp, Uuid};
use tokio::sync::Mutex;

use crate::change::{Mode, Namespace, NamespaceFilter, Pair, PipelineId, Rank, Side};
use crate::config::Config;
use crate::error::Result;
use crate::link::own::Own;
use crate::pipeline::Collections;
use crate::resolve::Rules;
use crate::telemetry::status::IndexProblem;
use intent::{Created, Intents};
use problems::Problems;
use queue::Queue;

/// What the readers and the worker share about DDL.
pub struct Ddl {
    rules: Rules,
    tie: Side,
    replicate: bool,
    drops: bool,
    namespaces: NamespaceFilter,
    intents: Intents,
    queue: Queue,
    problems: Problems,
    /// Held from the look at a view to the end of what is made of it: beside the turns a copy or a
    /// merge makes views.
    changing_views: Mutex<()>,
}

impl Ddl {
    /// With what former processes have left; `ended_at` are the operation times of this start.
    /// To be called before anything is read: a collection that was about to get its counterpart
    /// keeps its lasting name.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn load(
        config: &Config,
        own: &Pair<Own>,
        collections: &Collections,
        ended_at: Pair<Timestamp>,
    ) -> Result<Arc<Self>> {
        let link = &config.link.name;
        let ddl = Self {
            rules: Rules {
                mode: config.link.mode,
                policy: config.conflicts.policy,
            },
            tie: config.conflicts.tie,
            replicate: config.ddl.replicate,
            drops: config.ddl.drops,
            namespaces: config.namespaces.clone(),
            intents: Intents::new(link, own.clone()),
            queue: Queue::default(),
            problems: Problems::new(link, own.clone()),
            changing_views: Mutex::default(),
        };
        ddl.intents.load(ended_at).await?;
        for side in Side::BOTH {
            for (name, created) in ddl.intents.created(side) {
                let Created { collection, uuid } = created;
                let name = collections.renames().on_other(side, &name);
                if let Some(name) = name
                    && collections.of_uuid(side.other(), uuid).is_none()
                    && collections.place(&collection, side.other()).1.is_none()
                {
                    collections.set_counterpart(&collection, side.other(), uuid, &name);
                }
            }
        }
        ddl.problems.load(collections).await?;
        Ok(Arc::new(ddl))
    }

    /// Indexes that could not be built, with the reasons.
    pub fn index_problems(&self, collections: &Collections) -> Vec<IndexProblem> {
        self.problems.all(collections)
    }

    /// Lists an index that `side` will not have.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn index_refused(
        &self,
        side: Side,
        place: &(Namespace, Option<Uuid>),
        name: &str,
        reason: &str,
    ) -> Result<()> {
        self.problems.add(side, place, name, reason).await
    }

    /// Takes an index off the list that `side` has by now.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn index_is_there(
        &self,
        side: Side,
        place: &(Namespace, Option<Uuid>),
        name: &str,
    ) -> Result<()> {
        self.problems.clear(side, place, name).await
    }

    /// Whether changes on `side` are brought over at all.
    fn sends(&self, side: Side) -> bool {
        self.replicate && self.rules.mode.sends(side)
    }

    /// Whether dropping a collection is brought over: no fence protects what is written into it.
    fn sends_drops(&self) -> bool {
        self.drops || self.rules.mode != Mode::TwoWay
    }

    fn rank(&self, side: Side) -> Rank {
        Rank::of(side, self.tie)
    }

    /// The sides whose pipelines apply anything.
    fn sources(&self) -> &'static [Side] {
        match self.rules.mode {
            Mode::TwoWay => &Side::BOTH,
            Mode::OneWay { from: Side::A } => &[Side::A],
            Mode::OneWay { from: Side::B } => &[Side::B],
        }
    }
}

fn pipeline_of(side: Side) -> PipelineId {
    PipelineId::from_source(side)
}
