//! Indexes, views and options of two merged sides: what one lacks is made, what differs is named.

use bson::doc;

use super::scan::Both;
use super::{Merge, Sides};
use crate::change::{Namespace, Pair, Side};
use crate::cluster::errors;
use crate::error::Result;
use crate::link::initial_sync::indexes;
use crate::link::initial_sync::progress::NotDone;
use crate::pipeline::insist;
use crate::verify::compare_schemas;

use std::collections::BTreeMap;

const NAMESPACE_EXISTS: i32 = 48;

impl Merge {
    fn targets(&self) -> &'static [Side] {
        match self.is_one_way() {
            true => &[Side::B],
            false => &[Side::B, Side::A],
        }
    }

    /// Builds on each side what only the other one has. The events of the builds are tandem's own,
    /// until that side's reader has passed them.
    pub(super) async fn build_indexes(&self, both: &Both) -> Result<()> {
        for target in self.targets() {
            let target = *target;
            let Some(there) = &both.sides[target] else {
                continue;
            };
            let namespace = &there.namespace;
            self.shared.set_building(target, namespace, true);
            let places = Pair::new((namespace.clone(), None), (namespace.clone(), None));
            let (clusters, progress) = (&self.clusters, &self.progress);
            insist(|| indexes::build(clusters, target, &places, progress, None)).await?;
            let now = insist(|| self.own[target].operation_time()).await?;
            self.shared.exchange.wait_passed(target, now).await;
            self.shared.set_building(target, namespace, false);
        }
        Ok(())
    }

    pub(super) async fn create_views(&self, found: &BTreeMap<Namespace, Sides>) -> Result<()> {
        for (namespace, sides) in found {
            for target in self.targets() {
                let view = sides[target.other()].as_ref().filter(|one| one.is_view());
                let (Some(view), None) = (view, &sides[*target]) else {
                    continue;
                };
                let mut command = doc! { "create": namespace.collection() };
                command.extend(view.options.clone());
                command.insert("writeConcern", doc! { "w": "majority" });
                let doing = format!("create the view {namespace}");
                let target = &self.clusters[*target];
                let create = || target.command(namespace.database(), command.clone(), &doing);
                match insist(create).await {
                    Ok(_) => {}
                    Err(error) if errors::code_of(&error) == Some(NAMESPACE_EXISTS) => {}
                    Err(error) => self.not_merged(namespace, &error.to_string()),
                }
            }
        }
        Ok(())
    }

    /// Nobody can tell which of two definitions is meant, so both stay.
    pub(super) async fn compare_options(&self) -> Result<()> {
        let patterns = &self.job.namespaces;
        let compare = || compare_schemas(&self.config, &self.clusters, patterns);
        for one in insist(compare).await?.schema {
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
