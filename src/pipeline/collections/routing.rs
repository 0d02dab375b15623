//! Which collections are kept in one lane.

use bson::doc;

use super::Collections;
use super::listing::{indexes_of_all, is_collated, unique_fields};
use crate::change::{Namespace, Side};
use crate::error::Result;

impl Collections {
    /// Whether all documents of a namespace must share a lane, as a unique index or a collation on
    /// either side asks for. Decided when its first event is read, and the same ever after.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn needs_one_lane(&self, namespace: &Namespace) -> Result<bool> {
        self.route(std::slice::from_ref(namespace)).await?;
        Ok(self.is_in_one_lane(namespace))
    }

    /// Decides for each of these namespaces whether it is kept in one lane, where that is not known.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn route(&self, namespaces: &[Namespace]) -> Result<()> {
        let mut new = namespaces.to_vec();
        new.retain(|namespace| !self.routed().contains_key(namespace));
        if new.is_empty() {
            return Ok(());
        }
        let mut single = vec![false; new.len()];
        for side in Side::BOTH {
            let places: Vec<_> = new.iter().map(|new| self.place(new, side)).collect();
            let indexes = indexes_of_all(&self.clusters[side], &places).await?;
            for (single, indexes) in single.iter_mut().zip(&indexes) {
                *single |= !unique_fields(indexes).is_empty() || is_collated(indexes);
            }
        }
        self.set_one_lane(new.into_iter().zip(single).collect())
            .await
    }

    /// Puts on record whether namespaces are kept in one lane, and with what is new which collections
    /// they are: the next process has to know them by the same lasting names.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn set_one_lane(&self, decided: Vec<(Namespace, bool)>) -> Result<()> {
        let updates = decided.iter().map(|(namespace, single)| {
            let mut update = doc! { "$set": { "single_lane": single } };
            // What is on record already may be of a later process, or paired.
            if let Some(entry) = self.known().get(namespace) {
                update.insert("$setOnInsert", entry.described());
            }
            (namespace.clone(), update)
        });
        self.save_updates(updates.collect()).await?;
        self.routed().extend(decided);
        Ok(())
    }
}
