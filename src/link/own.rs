//! tandem's own database on one cluster: plain majority reads and writes, outside of any batch.

use bson::{Document, Timestamp, doc};

use crate::cluster::{Cluster, errors};
use crate::error::{Error, Result};

/// The state of all links on one cluster.
#[derive(Debug, Clone)]
pub struct Own {
    pub cluster: Cluster,
    pub database: String,
}

impl Own {
    pub fn new(cluster: &Cluster, database: &str) -> Self {
        Self {
            cluster: cluster.clone(),
            database: database.to_owned(),
        }
    }

    /// All matching documents.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn find(&self, collection: &str, filter: Document) -> Result<Vec<Document>> {
        let concern = self.cluster.of_majority();
        self.find_at(concern, collection, filter).await
    }

    /// Whether a document matches.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn holds(&self, collection: &str, filter: Document) -> Result<bool> {
        let doing = self.doing("read", collection);
        let command = doc! {
            "find": collection,
            "filter": filter,
            "limit": 1,
            "singleBatch": true,
            "projection": { "_id": 1 },
            "readConcern": self.cluster.of_majority(),
        };
        let found = self.cluster.all(&self.database, command, &doing).await?;
        Ok(!found.is_empty())
    }

    /// The document of this `_id`, with everything in it that anybody has written so far
    /// (`readConcern: { level: "linearizable" }`), acknowledged or not.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn find_latest(&self, collection: &str, id: &str) -> Result<Option<Document>> {
        let filter = doc! { "_id": id };
        let concern = doc! { "level": "linearizable" };
        let found = self.find_at(concern, collection, filter).await?;
        Ok(found.into_iter().next())
    }

    async fn find_at(
        &self,
        concern: Document,
        collection: &str,
        filter: Document,
    ) -> Result<Vec<Document>> {
        let doing = self.doing("read", collection);
        let command = doc! {
            "find": collection,
            "filter": filter,
            "readConcern": concern,
        };
        self.cluster.all(&self.database, command, &doing).await
    }

    /// Runs `update` statements in order, with majority. Returns how many documents matched or
    /// were made.
    ///
    /// # Errors
    /// As the cluster says, errors inside `ok: 1` included.
    pub async fn update(&self, collection: &str, statements: Vec<Document>) -> Result<usize> {
        self.write(
            collection,
            doc! { "update": collection, "updates": statements },
        )
        .await
    }

    /// Runs `delete` statements.
    ///
    /// # Errors
    /// As [`Own::update`].
    pub async fn delete(&self, collection: &str, statements: Vec<Document>) -> Result<usize> {
        self.write(
            collection,
            doc! { "delete": collection, "deletes": statements },
        )
        .await
    }

    /// Updates with a short `maxTimeMS`: somebody's open transaction may hold a document.
    ///
    /// # Errors
    /// As [`Own::update`]; 50 where the time was up.
    pub async fn update_within(
        &self,
        collection: &str,
        statements: Vec<Document>,
        time_max_ms: i64,
    ) -> Result<usize> {
        let command =
            doc! { "update": collection, "updates": statements, "maxTimeMS": time_max_ms };
        self.write(collection, command).await
    }

    async fn write(&self, collection: &str, mut command: Document) -> Result<usize> {
        let doing = self.doing("write", collection);
        command.insert("writeConcern", doc! { "w": "majority" });
        let reply = self
            .cluster
            .command(&self.database, command, &doing)
            .await?;
        errors::check_reply(&reply, &doing)?;
        Ok(reply.get_i32("n").unwrap_or(0).max(0) as usize)
    }

    /// The cluster's operation time: everything that this process was told of so far is not later.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn operation_time(&self) -> Result<Timestamp> {
        self.time_at(self.cluster.of_majority()).await
    }

    /// Nothing that anybody has written so far is later, acknowledged or not: what a majority is
    /// known to have may lack a write whose answer was lost.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn latest_time(&self) -> Result<Timestamp> {
        self.time_at(doc! { "level": "linearizable" }).await
    }

    async fn time_at(&self, concern: Document) -> Result<Timestamp> {
        let doing = format!("read the time of {}", self.cluster.name);
        let command = doc! { "find": "links", "limit": 1, "readConcern": concern };
        let reply = self
            .cluster
            .command(&self.database, command, &doing)
            .await?;
        reply.get_timestamp("operationTime").map_err(|_| {
            Error::bug(format!(
                "{} does not tell its operation time",
                self.cluster.name
            ))
        })
    }

    fn doing(&self, verb: &str, collection: &str) -> String {
        format!(
            "{verb} {}.{collection} on {}",
            self.database, self.cluster.name
        )
    }
}
