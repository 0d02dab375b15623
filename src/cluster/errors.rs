//! The one table from what a server or the driver says to who can do something about it.

use bson::Document;

use super::advice;
use super::failure::{Failure, FailureKind};
use crate::error::{Class, Error, ExitCode, Result};

/// Passes by itself: the cluster is away, electing, busy, or refused this one attempt.
const RETRY_CODES: [i32; 40] = [
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
    12586, // BackgroundOperationInProgressForDatabase: an index is being built
    12587, // BackgroundOperationInProgressForNamespace
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
/// Nothing has the name.
pub const NAMESPACE_NOT_FOUND: i32 = 26;
pub const NAMESPACE_EXISTS: i32 = 48;
/// Another collection has taken the name, or nothing has it.
pub const COLLECTION_UUID_MISMATCH: i32 = 361;
pub const DUPLICATE_KEY: i32 = 11000;
/// BSONObjectTooLarge: of a change stream, an event past 16 MB.
pub const OBJECT_TOO_LARGE: i32 = 10334;

/// The position to go on from is gone.
const RESYNC_CODES: [i32; 2] = [
    280, // ChangeStreamFatalError
    286, // ChangeStreamHistoryLost
];

/// The label a server puts on a change stream error that no retry can help.
const NON_RESUMABLE_LABEL: &str = "NonResumableChangeStreamError";
/// The label of an error that ended a transaction and that another one may not meet.
pub const TRANSIENT_TRANSACTION_LABEL: &str = "TransientTransactionError";

/// Labels of what passes by itself: a broken change stream, a transaction, a write.
const PASSING_LABELS: [&str; 3] = [
    "ResumableChangeStreamError",
    TRANSIENT_TRANSACTION_LABEL,
    "RetryableWriteError",
];

/// Names what failed (`cannot {doing}: …`) and who can do something about it.
///
/// `doing` names the cluster: `read shop.orders on eu`.
pub fn classify(failure: Failure, doing: &str) -> Error {
    let (exit, class, hint) = verdict(&failure);
    let mut classified = Error::new(exit, class, format!("cannot {doing}")).caused_by(failure);
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
    let cause = Failure::refused(code, name, message);
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

/// The server's error code behind an error made by [`classify`].
pub fn code_of(error: &Error) -> Option<i32> {
    std::error::Error::source(error)?
        .downcast_ref::<Failure>()?
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

fn verdict(failure: &Failure) -> (ExitCode, Class, Option<&'static str>) {
    const LOST: Option<&str> = Some("`tandem resync` begins from now on and merges both sides");
    if failure.has_label(NON_RESUMABLE_LABEL) {
        return (ExitCode::History, Class::Resync, LOST);
    }
    if let Some(code) = failure.code {
        match class_of_code(code) {
            Some(Class::Resync) => return (ExitCode::History, Class::Resync, LOST),
            Some(class @ (Class::Retry | Class::Operator)) => {
                let hint = advice::on_nobody(&failure.to_string());
                return (ExitCode::Cluster, class, hint.or(hint_for(code)));
            }
            Some(Class::Bug) | None => {}
        }
    }
    if PASSING_LABELS.iter().any(|label| failure.has_label(label)) {
        return (ExitCode::Cluster, Class::Retry, None);
    }
    match failure.kind {
        FailureKind::Network | FailureKind::NoPrimary => (
            ExitCode::Cluster,
            Class::Retry,
            Some(advice::on_connection(&failure.to_string())),
        ),
        FailureKind::Authentication => (
            ExitCode::Cluster,
            Class::Operator,
            Some("correct user, password or authSource in the connection string"),
        ),
        FailureKind::Tls => (
            ExitCode::Cluster,
            Class::Operator,
            Some("correct the tls options in the connection string"),
        ),
        FailureKind::Unsupported => (ExitCode::Cluster, Class::Operator, None),
        FailureKind::Refused | FailureKind::Other => (ExitCode::Unexpected, Class::Bug, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::doc;
    use mongodb::error::{CommandError, Error as DriverError, ErrorKind};

    fn refused(code: i32) -> Failure {
        let reply = doc! { "code": code, "codeName": "Name", "errmsg": "key { card: 4111 }" };
        let command: CommandError = bson::deserialize_from_document(reply).unwrap();
        DriverError::from(ErrorKind::Command(command)).into()
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
        assert!(classify(broken.into(), "write to eu").is_retryable());
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
