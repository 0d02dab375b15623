//! The documents that a decision to settle needs besides the two that differ.

use std::collections::HashMap;

use bson::{RawDocumentBuf, Timestamp};

use super::lane::Lane;
use super::records::Documents;
use crate::change::{DocumentKey, Namespace, Pair};
use crate::cluster::{Cluster, errors};
use crate::resolve::{Base, Found, Plan};
use crate::source::{Place, read_at};
use crate::target::{CollectionInfo, Refusal};

/// Documents as they were before some writes, those that the server still keeps; none for one that
/// was not there.
type AsOf = HashMap<DocumentKey, Option<RawDocumentBuf>>;

/// What documents to be settled were before what is known to make them differ.
#[derive(Default)]
pub(super) struct Bases {
    /// Before the source's writes that have not arrived.
    source: AsOf,
    /// Before the target's writes that are on record as lost.
    target: AsOf,
}

/// The snapshot is too old, or from before the collection.
const NOT_KEPT: [i32; 2] = [239, 246];

impl Lane {
    pub(super) async fn read_bases(
        &self,
        plan: &Plan,
        pairs: &HashMap<Namespace, Pair<CollectionInfo>>,
        place_of: impl Fn(&Namespace) -> Option<Place>,
    ) -> Result<Bases, Refusal> {
        let place_on_target = |namespace: &Namespace| {
            let found = &pairs.get(namespace)?[plan.pipeline.target()];
            Some(Place {
                name: found.name.clone(),
                uuid: Some(found.uuid),
                collated: found.collated,
                selection: Default::default(),
            })
        };
        let (source, target) = (&self.source, self.session.cluster());
        let mut bases = Bases::default();
        for decision in &plan.decisions {
            let Some(settle) = &decision.settle else {
                continue;
            };
            let key = &decision.key;
            let before = settle.base_at();
            self.read_base(source, before, key, &place_of, &mut bases.source)
                .await?;
            let before = settle.target_base_at();
            self.read_base(target, before, key, place_on_target, &mut bases.target)
                .await?;
        }
        Ok(bases)
    }

    async fn read_base(
        &self,
        cluster: &Cluster,
        at: Option<Timestamp>,
        key: &DocumentKey,
        place_of: impl Fn(&Namespace) -> Option<Place>,
        bases: &mut AsOf,
    ) -> Result<(), Refusal> {
        let Some(at) = at else { return Ok(()) };
        match read_at(cluster, at, std::slice::from_ref(key), place_of).await {
            Ok(mut found) => {
                bases.insert(key.clone(), found.remove(key));
            }
            Err(error) if errors::code_of(&error).is_some_and(|c| NOT_KEPT.contains(&c)) => {}
            Err(error) => return Err(self.refused_read(cluster, error).await),
        }
        Ok(())
    }
}

pub(super) fn found<'a>(
    key: &DocumentKey,
    of_source: &'a Documents,
    of_target: &'a Documents,
    bases: &'a Bases,
) -> Found<'a> {
    let base = |of: &'a AsOf| match of.get(key) {
        Some(base) => Base::Known(base.as_deref()),
        None => Base::Unknown,
    };
    Found {
        source: of_source.get(key).map(|document| document.as_ref()),
        target: of_target.get(key).map(|document| document.as_ref()),
        base: base(&bases.source),
        target_base: base(&bases.target),
    }
}
