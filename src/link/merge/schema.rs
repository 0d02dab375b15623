//! Indexes, views and options of two merged sides: what one lacks is made, what differs is named.

use super::scan::Both;
use super::{Merge, Sides};
use crate::change::{Mode, Namespace, Side};
use crate::error::Result;
use crate::link::initial_sync::indexes;
use crate::link::initial_sync::progress::NotDone;
use crate::pipeline::insist;
use crate::verify::compare_schemas;

use std::collections::BTreeMap;

impl Merge {
    fn targets(&self) -> &'static [Side] {
        match self.config.link.mode {
            Mode::OneWay { from: Side::A } => &[Side::B],
            Mode::OneWay { from: Side::B } => &[Side::A],
            Mode::TwoWay => &[Side::B, Side::A],
        }
    }

    /// Builds on each side what only the other one has.
    pub(super) async fn build_indexes(&self, both: &Both) -> Result<()> {
        let (shared, own, progress) = (&self.shared, &self.own, &self.progress);
        for target in self.targets() {
            let (lasting, ddl) = (&both.lasting, self.worker.ddl());
            insist(|| indexes::build(shared, own, *target, lasting, progress, ddl)).await?;
        }
        Ok(())
    }

    pub(super) async fn create_views(&self, found: &BTreeMap<Namespace, Sides>) -> Result<()> {
        for (namespace, sides) in found {
            for target in self.targets() {
                let view = sides[target.other()].as_ref().filter(|one| one.is_view());
                if view.is_none() || sides[*target].is_some() {
                    continue;
                }
                let copy = || self.worker.copy_view(*target, namespace);
                if let Some(reason) = insist(copy).await? {
                    self.not_merged(namespace, &reason);
                }
            }
        }
        Ok(())
    }

    /// Nobody can tell which of two definitions is meant, so both stay.
    pub(super) async fn compare_options(&self) -> Result<()> {
        // A pattern of the job may name nothing yet.
        let compare = || compare_schemas(&self.config, &self.clusters, &[]);
        for one in insist(compare).await?.schema {
            let is_merged = Namespace::parse(&one.namespace).map(|name| self.job.includes(&name));
            if is_merged == Some(false) {
                continue;
            }
            let (namespace, subject, found) = (one.namespace, one.subject, one.found);
            tracing::warn!(
                namespace,
                subject,
                found,
                "the two sides' definitions differ"
            );
            let mut numbers = self.progress.numbers();
            let known = |other: &NotDone| {
                other.namespace == namespace && Some(&subject) == other.index.as_ref()
            };
            if !numbers.not_done.iter().any(known) {
                numbers.not_done.push(NotDone {
                    namespace,
                    index: None,
                    reason: format!("{subject}: {found}"),
                });
            }
        }
        Ok(())
    }
}
