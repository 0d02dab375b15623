//! A connection to one of the two clusters, with a deadline on every call.

mod advice;
mod driver;
pub mod errors;
mod failure;
mod said;
mod server;
mod written;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bson::{Document, RawDocument, RawDocumentBuf, doc};

use crate::change::Side;
use crate::config::Config;
use crate::error::{Error, Result};
pub use driver::{APP_NAME, DriverServer};
pub use failure::{Failure, FailureKind};
pub use server::{Answer, Batch, Cursor, CursorKind, Server, Session};
use written::Written;
pub use written::majority_after;

/// The driver tells the cause when its time is over; whoever waits for it must not give up first.
const CAUSE_TIME_MAX: Duration = Duration::from_secs(1);

/// One cluster of the link.
#[derive(Debug, Clone)]
pub struct Cluster {
    server: Arc<dyn Server>,
    pub side: Side,
    /// The name people know the cluster by.
    pub name: String,
    /// How long one call may take.
    pub operation_timeout: Duration,
    /// By this connection and its clones.
    written: Arc<Written>,
}

/// How a process comes to its clusters.
pub trait Connect: Send + Sync {
    /// # Errors
    /// As [`connect`].
    fn connect<'a>(
        &'a self,
        config: &'a Config,
        side: Side,
    ) -> Pin<Box<dyn Future<Output = Result<Cluster>> + Send + 'a>>;
}

/// Over the network, with the driver.
pub struct Driver;

impl Connect for Driver {
    fn connect<'a>(
        &'a self,
        config: &'a Config,
        side: Side,
    ) -> Pin<Box<dyn Future<Output = Result<Cluster>> + Send + 'a>> {
        Box::pin(connect(config, side))
    }
}

/// Connects to one cluster and has its primary answer once.
///
/// # Errors
/// A connection string the driver refuses is a config error (3). Where no primary answers within
/// `timeouts.connect`, or the account is refused: a cluster error (4).
pub async fn connect(config: &Config, side: Side) -> Result<Cluster> {
    let doing = format!("connect to {}", config.clusters[side].name);
    let server = DriverServer::connect(config, side, &doing).await?;
    let name = config.clusters[side].name.clone();
    let cluster = Cluster::over(Arc::new(server), side, name, config.timeouts.operation);
    let hello = cluster.server.run("admin", raw(&doc! { "hello": 1 })?);
    within(config.timeouts.connect + CAUSE_TIME_MAX, &doing, hello).await?;
    Ok(cluster)
}

impl Cluster {
    /// The cluster of the link that this server is.
    pub fn over(
        server: Arc<dyn Server>,
        side: Side,
        name: String,
        operation_timeout: Duration,
    ) -> Self {
        Self {
            server,
            side,
            name,
            operation_timeout,
            written: Arc::default(),
        }
    }

    /// A read concern that shows what a majority has, among it everything that [`Cluster::command`] was
    /// told that a majority has.
    pub fn of_majority(&self) -> Document {
        self.written.of_majority()
    }

    /// The same for a raw command.
    pub fn of_majority_raw(&self) -> RawDocumentBuf {
        raw(&self.of_majority()).expect("a read concern")
    }

    /// The same cluster, where one call may take as long as this.
    pub fn waiting(&self, operation_timeout: Duration) -> Self {
        Self {
            operation_timeout,
            ..self.clone()
        }
    }

    /// Whether its primary answers at once.
    pub async fn answers(&self) -> bool {
        let doing = format!("ask {}", self.name);
        let ping = self.command("admin", doc! { "ping": 1 }, &doing);
        ping.await.is_ok()
    }

    /// Runs a command on the primary within `timeouts.operation`.
    ///
    /// `doing` completes the sentence "cannot …" and names the cluster.
    ///
    /// # Errors
    /// As [`errors::classify`] says. `writeErrors` and `writeConcernError` inside `ok: 1` are the
    /// caller's to look at.
    pub async fn command(
        &self,
        database: &str,
        command: Document,
        doing: &str,
    ) -> Result<Document> {
        let is_write = command.contains_key("writeConcern");
        let command = raw(&command)?;
        let reply = self
            .within(doing, self.server.run(database, command))
            .await?;
        if is_write {
            self.written.note(&reply);
        }
        Ok(reply)
    }

    /// Runs a write command on the primary within `timeouts.operation`, byte for byte as given.
    ///
    /// # Errors
    /// As [`errors::classify`] says, also for what the server reports inside `ok: 1`.
    pub async fn write(
        &self,
        database: &str,
        command: RawDocumentBuf,
        doing: &str,
    ) -> Result<Document> {
        let call = self.server.run(database, command);
        let reply = self.within(doing, call).await?;
        errors::check_reply(&reply, doing)?;
        Ok(reply)
    }

    /// Runs a command however long it takes; only a broken connection ends the wait.
    ///
    /// # Errors
    /// As [`Cluster::command`].
    pub async fn command_without_deadline(
        &self,
        database: &str,
        command: Document,
        doing: &str,
    ) -> Result<Document> {
        let call = self.server.run(database, raw(&command)?).await;
        call.map_err(|failure| errors::classify(failure, doing))
    }

    /// Runs a command that answers with a cursor.
    ///
    /// # Errors
    /// As [`errors::classify`] says.
    pub async fn open(
        &self,
        database: &str,
        command: RawDocumentBuf,
        kind: CursorKind,
        doing: &str,
    ) -> Result<Box<dyn Cursor>> {
        let call = self.server.open(database, command, kind);
        self.within(doing, call).await
    }

    /// Hands over every document of a cursor, all of them within `timeouts.operation`.
    ///
    /// # Errors
    /// As [`errors::classify`] says; some may have been handed over then.
    pub async fn each(
        &self,
        database: &str,
        command: RawDocumentBuf,
        doing: &str,
        mut take: impl FnMut(&RawDocument),
    ) -> Result<()> {
        let call = async {
            let opened = self.server.open(database, command, CursorKind::PLAIN);
            let mut cursor = opened.await?;
            while let Some(batch) = cursor.next().await? {
                for document in batch.doc_slices()? {
                    if let Some(document) = document?.as_document() {
                        take(document);
                    }
                }
            }
            Ok(())
        };
        self.within(doing, call).await
    }

    /// All documents of a cursor, within `timeouts.operation`.
    ///
    /// # Errors
    /// As [`Cluster::each`].
    pub async fn all(
        &self,
        database: &str,
        command: Document,
        doing: &str,
    ) -> Result<Vec<Document>> {
        let mut found = Vec::new();
        let take = |document: &RawDocument| found.push(Document::try_from(document));
        self.each(database, raw(&command)?, doing, take).await?;
        let unreadable = |error| errors::classify(Failure::from(error), doing);
        found
            .into_iter()
            .map(|one| one.map_err(unreadable))
            .collect()
    }

    /// The names of all databases.
    ///
    /// # Errors
    /// As [`Cluster::command`].
    pub async fn database_names(&self, doing: &str) -> Result<Vec<String>> {
        let command = doc! { "listDatabases": 1, "nameOnly": true };
        let reply = self.command("admin", command, doing).await?;
        let listed = reply.get_array("databases").into_iter().flatten();
        let name = |one: &bson::Bson| Some(one.as_document()?.get_str("name").ok()?.to_owned());
        Ok(listed.filter_map(name).collect())
    }

    /// A fresh session.
    ///
    /// # Errors
    /// As [`errors::classify`] says.
    pub async fn start_session(&self, doing: &str) -> Result<Box<dyn Session>> {
        self.within(doing, self.server.start_session()).await
    }

    /// Waits for an answer, at most `timeouts.operation`.
    ///
    /// # Errors
    /// As [`errors::classify`] says; a call that takes longer is retryable.
    pub async fn within<T>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T> {
        within(self.operation_timeout, doing, call).await
    }

    /// Ends all connections.
    pub async fn shutdown(self) {
        self.server.shutdown().await;
    }
}

fn raw(command: &Document) -> Result<RawDocumentBuf> {
    RawDocumentBuf::try_from(command)
        .map_err(|error| Error::bug("a command that is no BSON").caused_by(error))
}

async fn within<T>(
    limit: Duration,
    doing: &str,
    call: impl Future<Output = Result<T, Failure>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failure)) => Err(errors::classify(failure, doing)),
        Err(_) => Err(errors::deadline_passed(doing, limit)),
    }
}
