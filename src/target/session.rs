//! A session whose id marks every write of tandem, and its transactions.
//!
//! The driver's own transactions refuse a read concern per command, so all transaction fields are
//! given by hand on an explicit session without causal consistency.

use bson::{Document, RawDocumentBuf, Timestamp, Uuid, cstr, rawdoc};
use futures_util::StreamExt;
use mongodb::ClientSession;
use mongodb::raw_batch_cursor::RawBatch;

use crate::cluster::Cluster;
use crate::error::{Error, Result};

/// The snapshot a transaction reads and writes at.
#[derive(Debug, Clone, Copy)]
pub enum Snapshot {
    /// `readConcern: { level: "snapshot", atClusterTime }`.
    At(Timestamp),
    /// Whatever the server takes at the first command.
    Latest,
}

/// One tag session. Nothing but tandem's transactions may ever run on it.
pub struct TagSession {
    session: ClientSession,
    cluster: Cluster,
    id: Uuid,
    /// Rises for ever, over aborts and elections.
    transaction_number: i64,
    started: bool,
    snapshot: Snapshot,
}

impl TagSession {
    /// A fresh session. Its id must be stored on the cluster before the first transaction.
    ///
    /// # Errors
    /// Where the driver cannot start a session.
    pub async fn open(cluster: &Cluster) -> Result<Self> {
        let doing = format!("start a session on {}", cluster.name);
        let session = cluster
            .client
            .start_session()
            .causal_consistency(false)
            .await
            .map_err(|error| crate::cluster::errors::classify(error, &doing))?;
        let id = session
            .id()
            .get("id")
            .and_then(|id| match id {
                bson::Bson::Binary(binary) => binary.to_uuid().ok(),
                _ => None,
            })
            .ok_or_else(|| Error::bug("a driver session without an id"))?;
        Ok(Self {
            session,
            cluster: cluster.clone(),
            id,
            transaction_number: 0,
            started: false,
            snapshot: Snapshot::Latest,
        })
    }

    pub fn id(&self) -> Uuid {
        self.id
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What completes the sentence "cannot …".
    pub fn doing(&self, verb: &str) -> String {
        format!("{verb} {}", self.cluster.name)
    }

    /// From here on commands belong to a new transaction. A former one that was left open is
    /// aborted by the server as soon as the new number reaches it.
    pub fn begin(&mut self, snapshot: Snapshot) {
        self.transaction_number += 1;
        self.started = false;
        self.snapshot = snapshot;
    }

    /// Runs a command inside the transaction.
    pub async fn run(
        &mut self,
        database: &str,
        mut command: RawDocumentBuf,
    ) -> mongodb::error::Result<Document> {
        self.mark(&mut command);
        self.send(database, command).await
    }

    /// Runs a `find` inside the transaction and returns its first batch, raw.
    pub async fn first_batch(
        &mut self,
        database: &str,
        mut command: RawDocumentBuf,
    ) -> mongodb::error::Result<Option<RawBatch>> {
        self.mark(&mut command);
        let database = self.cluster.client.database(database);
        let limit = self.cluster.operation_timeout;
        let session = &mut self.session;
        let call = async {
            let mut cursor = database
                .run_raw_cursor_command(command)
                .session(&mut *session)
                .batch()
                .await?;
            cursor.stream(session).next().await.transpose()
        };
        match tokio::time::timeout(limit, call).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    fn mark(&mut self, command: &mut RawDocumentBuf) {
        command.append(cstr!("txnNumber"), self.transaction_number);
        command.append(cstr!("autocommit"), false);
        if !self.started {
            command.append(cstr!("startTransaction"), true);
            command.append(
                cstr!("readConcern"),
                match self.snapshot {
                    Snapshot::At(time) => rawdoc! { "level": "snapshot", "atClusterTime": time },
                    Snapshot::Latest => rawdoc! { "level": "snapshot" },
                },
            );
            self.started = true;
        }
    }

    /// Commits with majority. Whatever the answer, only the checkpoint knows the outcome unless it
    /// is `ok: 1` without a write concern error.
    pub async fn commit(&mut self) -> mongodb::error::Result<Document> {
        let command = rawdoc! {
            "commitTransaction": 1,
            "txnNumber": self.transaction_number,
            "autocommit": false,
            "writeConcern": { "w": "majority" },
        };
        self.send("admin", command).await
    }

    /// Aborts, if anything was started. Errors do not matter: the next number aborts it too.
    pub async fn abort(&mut self) {
        if self.started {
            let command = rawdoc! {
                "abortTransaction": 1,
                "txnNumber": self.transaction_number,
                "autocommit": false,
            };
            let _ = self.send("admin", command).await;
            self.started = false;
        }
    }

    async fn send(
        &mut self,
        database: &str,
        command: RawDocumentBuf,
    ) -> mongodb::error::Result<Document> {
        let database = self.cluster.client.database(database);
        let call = database.run_raw_command(command).session(&mut self.session);
        match tokio::time::timeout(self.cluster.operation_timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}
