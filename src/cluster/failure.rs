//! What a server or the way to it said instead of a reply, whoever stands behind the seam.

use std::fmt;

use bson::Timestamp;

use super::said::{said, shortened};

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The server refused the command; there is a code.
    Refused,
    /// The connection broke: the command may have run or not.
    Network,
    /// Nobody to send the command to.
    NoPrimary,
    Authentication,
    Tls,
    /// The server is too old, or no replica set.
    Unsupported,
    /// The reply cannot be read, or the caller has made a mistake.
    Other,
}

/// What was said, without what may hold a document.
#[derive(Debug, Clone)]
pub struct Failure {
    pub kind: FailureKind,
    pub code: Option<i32>,
    /// The server's labels, and those that the driver adds.
    pub labels: Vec<String>,
    /// The server's `operationTime`, where it refused the command.
    pub operation_time: Option<Timestamp>,
    text: String,
}

impl Failure {
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            code: None,
            labels: Vec::new(),
            operation_time: None,
            text: shortened(text.into()),
        }
    }

    /// A command that the server refused by its code.
    pub fn refused(code: i32, name: Option<&str>, message: &str) -> Self {
        Self {
            code: Some(code),
            ..Self::new(FailureKind::Refused, said(code, name, message))
        }
    }

    pub fn has_label(&self, label: &str) -> bool {
        self.labels.iter().any(|found| found == label)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<bson::error::Error> for Failure {
    fn from(error: bson::error::Error) -> Self {
        Self::new(FailureKind::Other, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(FailureKind::Network, error.to_string())
    }
}
