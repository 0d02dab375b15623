//! A session whose id marks every write of tandem, and its transactions.
//!
//! The driver's own transactions refuse a read concern per command, so all transaction fields are
//! given by hand on an explicit session without causal consistency.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bson::{Document, RawDocumentBuf, Timestamp, Uuid, cstr, rawdoc};

use crate::cluster::{Answer, Batch, Cluster, Failure, Session};
use crate::error::Result;

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
    session: Box<dyn Session>,
    cluster: Cluster,
    /// Rises for ever, over aborts and elections.
    transaction_number: i64,
    started: bool,
    snapshot: Snapshot,
}

impl TagSession {
    /// A fresh session. Its id must be stored on the cluster before the first transaction.
    ///
    /// # Errors
    /// Where no session can be started.
    pub async fn open(cluster: &Cluster) -> Result<Self> {
        let doing = format!("start a session on {}", cluster.name);
        let session = cluster.start_session(&doing).await?;
        Ok(Self {
            session,
            cluster: cluster.clone(),
            transaction_number: 0,
            started: false,
            snapshot: Snapshot::Latest,
        })
    }

    /// A session for a single transaction, begun. A driver hands out the id of an ended session
    /// again, and no number may come twice on it, so all of these have rising numbers.
    ///
    /// # Errors
    /// As [`TagSession::open`].
    pub async fn of_one_transaction(cluster: &Cluster) -> Result<Self> {
        static BEGUN: AtomicI64 = AtomicI64::new(0);
        let mut session = Self::open(cluster).await?;
        session.transaction_number = BEGUN.fetch_add(1, Ordering::Relaxed);
        session.begin(Snapshot::Latest);
        Ok(session)
    }

    pub fn id(&self) -> Uuid {
        self.session.id()
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
    ) -> Result<Document, Failure> {
        self.mark(&mut command);
        self.send(database, command).await
    }

    /// Runs a `find` inside the transaction and returns its first batch, raw.
    pub async fn first_batch(
        &mut self,
        database: &str,
        mut command: RawDocumentBuf,
    ) -> Result<Option<Batch>, Failure> {
        self.mark(&mut command);
        let limit = self.cluster.operation_timeout;
        in_time(limit, self.session.first_batch(database, command)).await
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
    pub async fn commit(&mut self) -> Result<Document, Failure> {
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

    async fn send(&mut self, database: &str, command: RawDocumentBuf) -> Result<Document, Failure> {
        let limit = self.cluster.operation_timeout;
        in_time(limit, self.session.run(database, command)).await
    }
}

async fn in_time<T>(limit: Duration, call: Answer<'_, T>) -> Result<T, Failure> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}
