//! A connection to one of the two clusters, with a deadline on every call.

mod advice;
pub mod errors;
mod said;

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};
use mongodb::Client;
use mongodb::options::{
    ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};

use crate::change::Side;
use crate::config::{Config, Secret};
use crate::error::{Error, Result};

/// What the clusters' logs and `currentOp` know tandem by.
pub const APP_NAME: &str = "tandem";

/// Connections per member where the connection string gives no `maxPoolSize`: two for each of the
/// most lanes there can be, so that no lane ever waits for another one's connection.
const POOL_SIZE_MAX: u32 = 128;

/// Connections to a member that may be in the making at once. The driver sets no limit on the time
/// of a handshake, so where a network swallows a few of them, its default of 2 leaves no room for
/// any other for as long as its monitor has noticed nothing.
const CONNECTING_MAX: u32 = POOL_SIZE_MAX;

/// The driver tells the cause when its time is over; whoever waits for it must not give up first.
const CAUSE_TIME_MAX: Duration = Duration::from_secs(1);

/// One cluster of the link.
#[derive(Debug, Clone)]
pub struct Cluster {
    pub client: Client,
    pub side: Side,
    /// The name people know the cluster by.
    pub name: String,
    /// How long one call may take.
    pub operation_timeout: Duration,
}

/// Connects to one cluster and has its primary answer once.
///
/// # Errors
/// A connection string the driver refuses is a config error (3). Where no primary answers within
/// `timeouts.connect`, or the account is refused: a cluster error (4).
pub async fn connect(config: &Config, side: Side) -> Result<Cluster> {
    let cluster = &config.clusters[side];
    let limit = config.timeouts.connect;
    let doing = format!("connect to {}", cluster.name);
    let parsed = tokio::time::timeout(limit, ClientOptions::parse(cluster.uri.reveal()))
        .await
        .map_err(|_| errors::deadline_passed(&doing, limit))?;
    let mut options = parsed.map_err(|error| refused(error, side, &doing, &cluster.uri))?;
    options.app_name = Some(APP_NAME.to_owned());
    options.server_selection_timeout = Some(limit);
    options.connect_timeout = Some(limit);
    options.max_pool_size = options.max_pool_size.or(Some(POOL_SIZE_MAX));
    options.max_connecting = options.max_connecting.or(Some(CONNECTING_MAX));
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.read_concern = Some(ReadConcern::majority());
    options.write_concern = Some(WriteConcern::majority());
    let client = Client::with_options(options)
        .map_err(|error| refused(error, side, &doing, &cluster.uri))?;
    let admin = client.database("admin");
    within(
        limit + CAUSE_TIME_MAX,
        &doing,
        admin.run_command(doc! { "hello": 1 }),
    )
    .await?;
    Ok(Cluster {
        client,
        side,
        name: cluster.name.clone(),
        operation_timeout: config.timeouts.operation,
    })
}

impl Cluster {
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
        let database = self.client.database(database);
        self.within(doing, database.run_command(command)).await
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
        let database = self.client.database(database);
        let reply = self
            .within(doing, database.run_raw_command(command))
            .await?;
        errors::check_reply(&reply, doing)?;
        Ok(reply)
    }

    /// Waits for a driver call, at most `timeouts.operation`.
    ///
    /// # Errors
    /// As [`errors::classify`] says; a call that takes longer is retryable.
    pub async fn within<T>(
        &self,
        doing: &str,
        call: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T> {
        within(self.operation_timeout, doing, call.into_future()).await
    }

    /// Ends all connections. Must be awaited before the runtime goes: the driver's pool still
    /// works after the last handle is dropped, and panics without a runtime.
    pub async fn shutdown(self) {
        let closing = self.client.shutdown().immediate(true);
        let _ = tokio::time::timeout(self.operation_timeout, closing).await;
    }
}

async fn within<T>(
    limit: Duration,
    doing: &str,
    call: impl IntoFuture<Output = mongodb::error::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call.into_future()).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(errors::classify(error, doing)),
        Err(_) => Err(errors::deadline_passed(doing, limit)),
    }
}

/// What the driver refused in a connection string, without quoting user or password.
fn refused(error: mongodb::error::Error, side: Side, doing: &str, uri: &Secret) -> Error {
    use mongodb::error::ErrorKind;
    match error.kind.as_ref() {
        ErrorKind::InvalidArgument { message, .. } => {
            let key = format!("clusters.{}.uri", side.as_str());
            let said = if quotes_credentials(message, uri.reveal()) {
                "its user or password part is malformed"
            } else {
                message
            };
            Error::config(format!("{key}: the connection string is not valid: {said}"))
                .hint("percent-encode special characters in user and password")
        }
        _ => errors::classify(error, doing),
    }
}

/// Whether a message holds any part of what stands before the last `@` of a connection string.
fn quotes_credentials(message: &str, uri: &str) -> bool {
    let after_scheme = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let Some((credentials, _)) = after_scheme.rsplit_once('@') else {
        return false;
    };
    credentials
        .split([':', '@', '/', '?', '#'])
        .any(|part| !part.is_empty() && message.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_a_connection_string_never_quotes_its_password() {
        let uri = "mongodb://user:p@ss/word@host/";
        assert!(quotes_credentials("cannot parse 'word@host'", uri));
        assert!(quotes_credentials("invalid user name user", uri));
        assert!(!quotes_credentials("tls is not a bool", uri));
        assert!(!quotes_credentials("anything", "mongodb://host/"));
    }
}
