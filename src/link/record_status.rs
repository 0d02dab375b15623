//! What becomes of a record on the clusters, when somebody decides about it.

use bson::{RawDocumentBuf, rawdoc};

use super::restorer::Restorer;
use crate::change::{ConflictKind, DocumentKey, Pair, RecordStatus, Side};
use crate::cluster::Cluster;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::target::key_id;

/// Where a link keeps its state on both clusters.
pub struct Place<'a> {
    pub clusters: &'a Pair<Cluster>,
    /// The database of tandem's own state.
    pub database: &'a str,
    pub link: &'a str,
}

impl Place<'_> {
    /// A dead letter that nobody has settled is discarded. One that was applied meanwhile stays
    /// resolved. A record lies on one cluster, the target of its pipeline or the winner.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn discard(&self, id: &str) -> Result<()> {
        let letter = rawdoc! {
            "_id": id,
            "kind": ConflictKind::DeadLetter.as_str(),
            "status": RecordStatus::Logged.as_str(),
        };
        let discarded = rawdoc! { "status": RecordStatus::Discarded.as_str() };
        self.set(letter, discarded).await
    }

    /// # Errors
    /// As the clusters say.
    pub async fn restored(&self, id: &str, by: &Restorer) -> Result<()> {
        self.set(rawdoc! { "_id": id }, restored(by)).await
    }

    async fn set(&self, which: RawDocumentBuf, fields: RawDocumentBuf) -> Result<()> {
        for side in Side::BOTH {
            let cluster = &self.clusters[side];
            let doing = format!("write {}.conflicts on {}", self.database, cluster.name);
            let command = rawdoc! {
                "update": "conflicts",
                "updates": [{ "q": which.clone(), "u": { "$set": fields.clone() } }],
                "writeConcern": { "w": "majority" },
            };
            cluster.write(self.database, command, &doing).await?;
        }
        Ok(())
    }

    /// Takes the mark off a document that had an event on `target` that could not be applied.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn unmark_dead(&self, target: Side, key: &DocumentKey) -> Result<()> {
        let cluster = &self.clusters[target];
        let doing = format!("write {}.keys on {}", self.database, cluster.name);
        let command = rawdoc! {
            "update": "keys",
            "updates": [{ "q": { "_id": key_id(self.link, key) }, "u": { "$unset": { "dead": "" } } }],
            "writeConcern": { "w": "majority" },
        };
        cluster.write(self.database, command, &doing).await?;
        Ok(())
    }
}

/// Marks a record as restored, on the clusters and then in the store.
///
/// # Errors
/// Exit 2 where there is no such record; as the clusters and the store say.
pub async fn mark_restored(
    store: &Store,
    place: &Place<'_>,
    id: &str,
    by: &Restorer,
) -> Result<()> {
    if store.record(id)?.is_none() {
        return Err(unknown(id));
    }
    place.restored(id, by).await?;
    store.set_record_fields(id, &restored(by))?;
    store.flush()
}

fn restored(by: &Restorer) -> RawDocumentBuf {
    rawdoc! { "restored": by.to_document(), "status": RecordStatus::Restored.as_str() }
}

/// No record has this id.
pub fn unknown(id: &str) -> Error {
    Error::usage(format!("there is no record {id}")).hint("`tandem conflict-report` shows the ids")
}
