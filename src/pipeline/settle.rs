//! The documents that a decision to settle needs besides the two that differ.

use std::collections::HashMap;

use bson::RawDocumentBuf;

use super::lane::Lane;
use super::records::Documents;
use crate::change::{DocumentKey, Namespace};
use crate::cluster::errors;
use crate::resolve::{Base, Found, Plan};
use crate::source::{Place, read_at};
use crate::target::Refusal;

/// Documents as they were before the source's writes that have not arrived, those that the server
/// still keeps; none for one that was not there.
pub(super) type Bases = HashMap<DocumentKey, Option<RawDocumentBuf>>;

/// The snapshot is too old, or from before the collection.
const NOT_KEPT: [i32; 2] = [239, 246];

impl Lane {
    pub(super) async fn read_bases(
        &self,
        plan: &Plan,
        place_of: impl Fn(&Namespace) -> Option<Place>,
    ) -> Result<Bases, Refusal> {
        let mut bases = Bases::new();
        for decision in &plan.decisions {
            let settle = decision.settle.as_ref();
            let Some(at) = settle.and_then(|settle| settle.base_at()) else {
                continue;
            };
            let key = std::slice::from_ref(&decision.key);
            match read_at(&self.source, at, key, &place_of).await {
                Ok(mut found) => {
                    bases.insert(decision.key.clone(), found.remove(&decision.key));
                }
                Err(error) if errors::code_of(&error).is_some_and(|c| NOT_KEPT.contains(&c)) => {}
                Err(error) => return Err(self.refused_read(error).await),
            }
        }
        Ok(bases)
    }
}

pub(super) fn found<'a>(
    key: &DocumentKey,
    of_source: &'a Documents,
    of_target: &'a Documents,
    bases: &'a Bases,
) -> Found<'a> {
    Found {
        source: of_source.get(key).map(|document| document.as_ref()),
        target: of_target.get(key).map(|document| document.as_ref()),
        base: match bases.get(key) {
            Some(base) => Base::Known(base.as_deref()),
            None => Base::Unknown,
        },
    }
}
