//! The driver behind the seam: the only way to a real server.

use std::pin::Pin;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, Uuid};
use futures_util::StreamExt;
use mongodb::error::{Error as DriverError, ErrorKind, WriteFailure};
use mongodb::options::{
    ClientOptions, CursorType, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
};
use mongodb::raw_batch_cursor::RawBatchCursor;
use mongodb::{Client, ClientSession};

use super::errors;
use super::failure::{Failure, FailureKind};
use super::server::{Answer, Batch, Cursor, CursorKind, Server, Session};
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

/// A client of the driver.
#[derive(Debug)]
pub struct DriverServer {
    client: Client,
    /// How long its end may take.
    shutdown_time_max: Duration,
}

impl DriverServer {
    /// A client that is there already.
    pub fn of(client: Client, shutdown_time_max: Duration) -> Self {
        Self {
            client,
            shutdown_time_max,
        }
    }

    /// # Errors
    /// As [`super::connect`].
    pub(super) async fn connect(config: &Config, side: Side, doing: &str) -> Result<Self> {
        let cluster = &config.clusters[side];
        let limit = config.timeouts.connect;
        let parsed = tokio::time::timeout(limit, ClientOptions::parse(cluster.uri.reveal()))
            .await
            .map_err(|_| errors::deadline_passed(doing, limit))?;
        let mut options = parsed.map_err(|error| refused(error, side, doing, &cluster.uri))?;
        options.app_name = Some(APP_NAME.to_owned());
        options.server_selection_timeout = Some(limit);
        options.connect_timeout = Some(limit);
        options.max_pool_size = options.max_pool_size.or(Some(POOL_SIZE_MAX));
        options.max_connecting = options.max_connecting.or(Some(CONNECTING_MAX));
        options.selection_criteria =
            Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        options.read_concern = Some(ReadConcern::majority());
        options.write_concern = Some(WriteConcern::majority());
        let client = Client::with_options(options)
            .map_err(|error| refused(error, side, doing, &cluster.uri))?;
        Ok(Self::of(client, config.timeouts.operation))
    }

    async fn cursor(
        &self,
        database: &str,
        command: RawDocumentBuf,
        kind: CursorKind,
    ) -> Result<RawBatchCursor, Failure> {
        let database = self.client.database(database);
        let call = database.run_raw_cursor_command(command);
        let call = match kind {
            CursorKind::Ending {
                batch_documents_max: None,
            } => call,
            CursorKind::Ending {
                batch_documents_max: Some(documents),
            } => call.batch_size(documents),
            CursorKind::Awaiting {
                await_time_max,
                batch_documents_max,
            } => call
                .cursor_type(CursorType::TailableAwait)
                .max_time(await_time_max)
                .batch_size(batch_documents_max),
        };
        Ok(call.batch().await?)
    }
}

impl Server for DriverServer {
    fn run<'a>(&'a self, database: &'a str, command: RawDocumentBuf) -> Answer<'a, Document> {
        Box::pin(async move {
            let database = self.client.database(database);
            Ok(database.run_raw_command(command).await?)
        })
    }

    /// As the driver does with its own reads, one is sent once more where the connection is stale.
    fn open<'a>(
        &'a self,
        database: &'a str,
        command: RawDocumentBuf,
        kind: CursorKind,
    ) -> Answer<'a, Box<dyn Cursor>> {
        Box::pin(async move {
            let cursor = match self.cursor(database, command.clone(), kind).await {
                Err(failure) if failure.kind == FailureKind::Network => {
                    self.cursor(database, command, kind).await?
                }
                outcome => outcome?,
            };
            Ok(Box::new(DriverCursor(cursor)) as Box<dyn Cursor>)
        })
    }

    fn start_session(&self) -> Answer<'_, Box<dyn Session>> {
        Box::pin(async move {
            let session = self
                .client
                .start_session()
                .causal_consistency(false)
                .await?;
            let id = session.id().get("id").and_then(|id| match id {
                bson::Bson::Binary(binary) => binary.to_uuid().ok(),
                _ => None,
            });
            let id = id.ok_or_else(|| {
                Failure::new(FailureKind::Other, "a driver session without an id")
            })?;
            let session = DriverSession {
                client: self.client.clone(),
                session,
                id,
            };
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }

    /// Must be awaited before the runtime goes: the driver's pool still works after the last handle
    /// is dropped, and panics without a runtime.
    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let closing = self.client.clone().shutdown().immediate(true);
            let _ = tokio::time::timeout(self.shutdown_time_max, closing).await;
        })
    }
}

struct DriverCursor(RawBatchCursor);

impl Cursor for DriverCursor {
    fn next(&mut self) -> Answer<'_, Option<Batch>> {
        Box::pin(async move {
            let batch = self.0.next().await.transpose()?;
            Ok(batch.map(Batch::of_driver))
        })
    }
}

struct DriverSession {
    client: Client,
    session: ClientSession,
    id: Uuid,
}

impl Session for DriverSession {
    fn id(&self) -> Uuid {
        self.id
    }

    fn run<'a>(&'a mut self, database: &'a str, command: RawDocumentBuf) -> Answer<'a, Document> {
        Box::pin(async move {
            let database = self.client.database(database);
            let call = database.run_raw_command(command);
            Ok(call.session(&mut self.session).await?)
        })
    }

    fn first_batch<'a>(
        &'a mut self,
        database: &'a str,
        command: RawDocumentBuf,
    ) -> Answer<'a, Option<Batch>> {
        Box::pin(async move {
            let database = self.client.database(database);
            let session = &mut self.session;
            let mut cursor = database
                .run_raw_cursor_command(command)
                .session(&mut *session)
                .batch()
                .await?;
            let batch = cursor.stream(session).next().await.transpose()?;
            Ok(batch.map(Batch::of_driver))
        })
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        let code = code(&error);
        let mut failure = match (error.kind.as_ref(), code) {
            (ErrorKind::Command(command), _) => {
                Failure::refused(command.code, Some(&command.code_name), &command.message)
            }
            (ErrorKind::Write(WriteFailure::WriteError(write)), _) => {
                Failure::refused(write.code, write.code_name.as_deref(), &write.message)
            }
            (ErrorKind::Write(WriteFailure::WriteConcernError(concern)), _) => {
                Failure::refused(concern.code, Some(&concern.code_name), &concern.message)
            }
            (ErrorKind::InsertMany(_) | ErrorKind::BulkWrite(_), Some(code)) => {
                Failure::refused(code, None, "")
            }
            (ErrorKind::InsertMany(_) | ErrorKind::BulkWrite(_), None) => {
                Failure::new(FailureKind::Other, "a bulk write failed")
            }
            (ErrorKind::ServerSelection { message, .. }, _) => {
                Failure::new(FailureKind::NoPrimary, no_primary(message))
            }
            (kind, _) => Failure::new(kind_of(kind), kind.to_string()),
        };
        failure.labels = error.labels().iter().cloned().collect();
        failure.operation_time = error
            .server_response()
            .and_then(|reply| reply.get_timestamp("operationTime").ok());
        failure
    }
}

fn kind_of(kind: &ErrorKind) -> FailureKind {
    match kind {
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } => FailureKind::Network,
        ErrorKind::DnsResolve { .. } => FailureKind::NoPrimary,
        ErrorKind::Authentication { .. } => FailureKind::Authentication,
        ErrorKind::InvalidTlsConfig { .. } => FailureKind::Tls,
        ErrorKind::IncompatibleServer { .. } | ErrorKind::SessionsNotSupported => {
            FailureKind::Unsupported
        }
        _ => FailureKind::Other,
    }
}

/// The server's error code, from the reply itself, its write errors or its write concern error.
fn code(error: &DriverError) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        ErrorKind::InsertMany(many) => many
            .write_errors
            .as_ref()
            .and_then(|errors| errors.first())
            .map(|first| first.code)
            .or(many.write_concern_error.as_ref().map(|c| c.code)),
        _ => None,
    }
}

/// The driver prints its whole view of the cluster; the members and their errors are enough.
fn no_primary(message: &str) -> String {
    let members: Vec<String> = message
        .split("Address: ")
        .skip(1)
        .map(|member| {
            let address = member.split([',', ' ']).next().unwrap_or_default();
            let said = match (member.split_once("Kind: "), member.split_once("Type: ")) {
                (Some((_, error)), _) => error.split(", labels").next(),
                (None, Some((_, kind))) => kind.split([',', ' ']).next(),
                (None, None) => None,
            };
            format!("{address} ({})", said.unwrap_or("unknown"))
        })
        .collect();
    match members.as_slice() {
        [] => "no primary found".to_owned(),
        members => format!("no primary found among {}", members.join(", ")),
    }
}

/// What the driver refused in a connection string, without quoting user or password.
fn refused(error: DriverError, side: Side, doing: &str, uri: &Secret) -> Error {
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
        _ => errors::classify(error.into(), doing),
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

    #[test]
    fn a_cluster_without_a_primary_names_its_members_and_their_errors() {
        let message = "Server selection timeout: No available servers. Topology: { Type: \
            ReplicaSetNoPrimary, Servers: [ { Address: eu1:27017, Type: Unknown, Error: Kind: \
            I/O error: Connection refused, labels: {} }, { Address: eu2:27017, Type: RsSecondary } ] }";
        assert_eq!(
            no_primary(message),
            "no primary found among eu1:27017 (I/O error: Connection refused), eu2:27017 (RsSecondary)"
        );
        assert_eq!(no_primary("odd"), "no primary found");
    }
}
