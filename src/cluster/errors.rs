//! The one table from what a server or the driver says to who can do something about it.

use std::fmt;

use bson::Document;
use mongodb::error::{
    Error as DriverError, ErrorKind, RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR,
    WriteFailure,
};

use super::advice;
use super::said::{said, shortened};
use crate::error::{Class, Error, ExitCode, Result};

/// Passes by itself: the cluster is away, electing, busy, or refused this one attempt.
const RETRY_CODES: [i32; 38] = [
    6,     // HostUnreachable
    7,     // HostNotFound
    24,    // LockTimeout
    43,    // CursorNotFound
    46,    // LockBusy
    50,    // MaxTimeMSExpired
    63,    // StaleShardVersion
    64,    // WriteConcernTimeout
    89,    // NetworkTimeout
    91,    // ShutdownInProgress
    100,   // UnsatisfiableWriteConcern
    112,   // WriteConflict
    133,   // FailedToSatisfyReadPreference
    134,   // ReadConcernMajorityNotAvailableYet
    136,   // CappedPositionLost
    150,   // StaleEpoch
    175,   // QueryPlanKilled
    189,   // PrimarySteppedDown
    202,   // NetworkInterfaceExceededTimeLimit
    234,   // RetryChangeStream
    237,   // CursorKilled
    239,   // SnapshotTooOld
    246,   // SnapshotUnavailable
    251,   // NoSuchTransaction
    262,   // ExceededTimeLimit
    290,   // TransactionExceededLifetimeLimitSeconds
    365,   // TemporarilyUnavailable
    371,   // writes are blocked by setUserWriteBlockMode
    9001,  // SocketException
    10058, // not primary, of old servers
    10107, // NotWritablePrimary
    11600, // InterruptedAtShutdown
    11601, // Interrupted
    11602, // InterruptedDueToReplStateChange
    13388, // StaleConfig
    13435, // NotPrimaryNoSecondaryOk
    13436, // NotPrimaryOrSecondary
    OUT_OF_DISK_SPACE,
];

/// Retried, so that the link goes on by itself once somebody has made room.
const OUT_OF_DISK_SPACE: i32 = 14031;

/// Somebody must change the cluster or the account: code, and what to do.
const OPERATOR_CODES: [(i32, &str); 8] = [
    (11, "create the user, or correct the connection string"),
    (
        13,
        "grant the missing privilege; `tandem check` lists them all",
    ),
    (
        18,
        "correct user, password or authSource in the connection string",
    ),
    (76, "start mongod as a replica set"),
    (93, "repair the replica set's configuration"),
    (94, "initiate the replica set"),
    (8000, "correct user and password in the connection string"),
    (40573, "start mongod as a replica set"),
];

/// A cutover, or an operator, has blocked writes with `setUserWriteBlockMode`.
pub const WRITES_BLOCKED: i32 = 371;

/// The position to go on from is gone.
const RESYNC_CODES: [i32; 2] = [
    280, // ChangeStreamFatalError
    286, // ChangeStreamHistoryLost
];

/// The label a server puts on a change stream error that no retry can help.
const NON_RESUMABLE_LABEL: &str = "NonResumableChangeStreamError";
const RESUMABLE_LABEL: &str = "ResumableChangeStreamError";

/// Names what failed (`cannot {doing}: …`) and who can do something about it.
///
/// `doing` names the cluster: `read shop.orders on eu`.
pub fn classify(error: DriverError, doing: &str) -> Error {
    let cause = Cause::of(&error);
    let (exit, class, hint) = verdict(&error, cause.code);
    let mut classified = Error::new(exit, class, format!("cannot {doing}")).caused_by(cause);
    classified.hint = hint.map(str::to_owned);
    classified
}

/// A call that did not end within its deadline.
pub fn deadline_passed(doing: &str, deadline: std::time::Duration) -> Error {
    Error::unreachable(format!(
        "cannot {doing}: no answer within {} s",
        deadline.as_secs_f64()
    ))
}

/// Looks for what a write command reports inside `ok: 1`: `writeErrors` and `writeConcernError`.
///
/// # Errors
/// The first of them, by its code as [`classify`] does; a code tandem does not know is the
/// operator's, since the server has refused this one write.
pub fn check_reply(reply: &Document, doing: &str) -> Result<()> {
    let write_error = reply.get_array("writeErrors").ok();
    let write_error = write_error.and_then(|errors| errors.first()?.as_document());
    let concern = reply.get_document("writeConcernError").ok();
    match write_error.or(concern) {
        Some(error) => Err(reported(error, doing)),
        None => Ok(()),
    }
}

/// An error that the server reports inside `ok: 1`; see [`check_reply`].
pub fn reported(error: &Document, doing: &str) -> Error {
    let code = error.get_i32("code").unwrap_or_default();
    let name = error.get_str("codeName").ok();
    let message = error.get_str("errmsg").unwrap_or_default();
    let cause = Cause {
        code: Some(code),
        text: shortened(said(code, name, message)),
    };
    let class = class_of_code(code).unwrap_or(Class::Operator);
    let mut reported = Error::new(ExitCode::Cluster, class, format!("cannot {doing}"));
    reported.hint = hint_for(code).map(str::to_owned);
    reported.caused_by(cause)
}

/// What somebody can do about a server's error code.
fn hint_for(code: i32) -> Option<&'static str> {
    if code == OUT_OF_DISK_SPACE {
        return Some("free disk space on the cluster");
    }
    let known = OPERATOR_CODES.iter().find(|(known, _)| *known == code);
    known.map(|(_, hint)| *hint)
}

/// The server's error code, from the reply itself, its write errors or its write concern error.
pub fn code(error: &DriverError) -> Option<i32> {
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

/// The server's error code behind an error made by [`classify`].
pub fn code_of(error: &Error) -> Option<i32> {
    std::error::Error::source(error)?
        .downcast_ref::<Cause>()?
        .code
}

/// Who can do something about a server's error code, by itself; none: a code tandem does not know.
pub fn class_of_code(code: i32) -> Option<Class> {
    if RETRY_CODES.contains(&code) {
        Some(Class::Retry)
    } else if RESYNC_CODES.contains(&code) {
        Some(Class::Resync)
    } else if OPERATOR_CODES.iter().any(|(known, _)| *known == code) {
        Some(Class::Operator)
    } else {
        None
    }
}

fn verdict(error: &DriverError, code: Option<i32>) -> (ExitCode, Class, Option<&'static str>) {
    const LOST: Option<&str> = Some("`tandem resync` begins from now on and merges both sides");
    if error.contains_label(NON_RESUMABLE_LABEL) {
        return (ExitCode::History, Class::Resync, LOST);
    }
    if let Some(code) = code {
        match class_of_code(code) {
            Some(Class::Resync) => return (ExitCode::History, Class::Resync, LOST),
            Some(class @ (Class::Retry | Class::Operator)) => {
                let hint = advice::on_nobody(&error.to_string());
                return (ExitCode::Cluster, class, hint.or(hint_for(code)));
            }
            Some(Class::Bug) | None => {}
        }
    }
    let passes = [
        RESUMABLE_LABEL,
        TRANSIENT_TRANSACTION_ERROR,
        RETRYABLE_WRITE_ERROR,
    ];
    if passes.iter().any(|label| error.contains_label(label)) {
        return (ExitCode::Cluster, Class::Retry, None);
    }
    match error.kind.as_ref() {
        ErrorKind::Io(_)
        | ErrorKind::ConnectionPoolCleared { .. }
        | ErrorKind::ServerSelection { .. }
        | ErrorKind::DnsResolve { .. } => (
            ExitCode::Cluster,
            Class::Retry,
            Some(advice::on_connection(&error.to_string())),
        ),
        ErrorKind::Authentication { .. } => (
            ExitCode::Cluster,
            Class::Operator,
            Some("correct user, password or authSource in the connection string"),
        ),
        ErrorKind::InvalidTlsConfig { .. } => (
            ExitCode::Cluster,
            Class::Operator,
            Some("correct the tls options in the connection string"),
        ),
        ErrorKind::IncompatibleServer { .. } | ErrorKind::SessionsNotSupported => {
            (ExitCode::Cluster, Class::Operator, None)
        }
        _ => (ExitCode::Unexpected, Class::Bug, None),
    }
}

/// What the server or driver said, without what may hold a document.
#[derive(Debug)]
struct Cause {
    code: Option<i32>,
    text: String,
}

impl Cause {
    fn of(error: &DriverError) -> Self {
        let code = code(error);
        let text = match error.kind.as_ref() {
            ErrorKind::Command(command) => {
                said(command.code, Some(&command.code_name), &command.message)
            }
            ErrorKind::Write(WriteFailure::WriteError(write)) => {
                said(write.code, write.code_name.as_deref(), &write.message)
            }
            ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
                said(concern.code, Some(&concern.code_name), &concern.message)
            }
            ErrorKind::InsertMany(_) | ErrorKind::BulkWrite(_) => match code {
                Some(code) => said(code, None, ""),
                None => "a bulk write failed".to_owned(),
            },
            ErrorKind::ServerSelection { message, .. } => no_primary(message),
            kind => kind.to_string(),
        };
        Self {
            code,
            text: shortened(text),
        }
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

impl fmt::Display for Cause {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl std::error::Error for Cause {}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;
    use mongodb::error::CommandError;

    fn refused(code: i32) -> DriverError {
        let reply = doc! { "code": code, "codeName": "Name", "errmsg": "key { card: 4111 }" };
        let command: CommandError = bson::deserialize_from_document(reply).unwrap();
        ErrorKind::Command(command).into()
    }

    #[test]
    fn a_code_says_who_can_help_and_how_the_process_ends() {
        for (code, class, exit) in [
            (112, Class::Retry, ExitCode::Cluster),
            (251, Class::Retry, ExitCode::Cluster),
            (10107, Class::Retry, ExitCode::Cluster),
            (14031, Class::Retry, ExitCode::Cluster),
            (13, Class::Operator, ExitCode::Cluster),
            (286, Class::Resync, ExitCode::History),
            (280, Class::Resync, ExitCode::History),
            (9, Class::Bug, ExitCode::Unexpected),
        ] {
            let error = classify(refused(code), "read shop.orders on eu");
            assert_eq!((error.class, error.exit), (class, exit), "{code}");
            assert_eq!(code_of(&error), Some(code));
        }
    }

    #[test]
    fn a_lost_connection_is_retried() {
        let broken = DriverError::from(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
        assert!(classify(broken, "write to eu").is_retryable());
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

    #[test]
    fn an_error_inside_ok_is_an_error_and_its_code_is_known() {
        check_reply(&doc! { "ok": 1, "n": 1 }, "write").unwrap();
        for (reply, code, class) in [
            (
                doc! { "writeErrors": [{ "code": 11000, "errmsg": "secret" }] },
                11000,
                Class::Operator,
            ),
            (
                doc! { "writeConcernError": { "code": 64 } },
                64,
                Class::Retry,
            ),
        ] {
            let error = check_reply(&reply, "write to eu").unwrap_err();
            assert_eq!((code_of(&error), error.class), (Some(code), class));
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_message_that_quotes_a_document_is_not_shown() {
        let shown = classify(refused(11000), "write to shop.orders on eu").to_string();
        assert_eq!(shown, "cannot write to shop.orders on eu: Name (11000)");
    }
}
