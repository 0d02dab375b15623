//! The steps of a schedule as text, kept only where somebody will read them.

use tandem::change::{DocumentKey, Pair, SharedEvent};
use tandem::resolve::Plan;

use crate::cluster::Cluster;
use crate::transaction::{id_of, key_index};

#[derive(Default)]
pub struct Trace(Option<Vec<String>>);

impl Trace {
    pub fn on() -> Self {
        Self(Some(Vec::new()))
    }

    pub fn step(&mut self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.0 {
            lines.push(line());
        }
    }

    pub fn lines(&self) -> &[String] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// A plan in one line.
pub fn describe(plan: &Plan, clusters: &Pair<Cluster>, keys: &[DocumentKey]) -> String {
    let source = &clusters[plan.pipeline.source()];
    let target = &clusters[plan.pipeline.target()];
    let decisions = plan.decisions.iter().map(|decision| {
        let ids = |events: &[SharedEvent], cluster: &Cluster| {
            let ids = events.iter().map(|event| id_of(cluster, keys, event));
            ids.collect::<Vec<_>>()
        };
        let conflict = decision.conflict.as_ref().map(|conflict| {
            format!(
                " {} wins, {:?} against {:?}",
                conflict.winner.as_str(),
                ids(&conflict.mine, source),
                ids(&conflict.theirs, target)
            )
        });
        format!(
            "key {} {:?} of {:?}{} leaves {:?} pays {:?} overturns {:?} outlives {}; ",
            key_index(keys, &decision.key),
            decision.action,
            ids(&decision.events, source),
            conflict.unwrap_or_default(),
            decision.leave_note,
            decision.pays_note,
            decision.overturned,
            decision.outlives_batch,
        )
    });
    let lanes = plan.shares.iter().map(|share| share.lane);
    format!(
        "{} lanes {:?} plan {} events at {} fence {}: {}",
        plan.pipeline.as_str(),
        lanes.collect::<Vec<_>>(),
        plan.batch.len(),
        plan.read_at.time.time,
        plan.fence.time.time,
        decisions.collect::<String>()
    )
}
