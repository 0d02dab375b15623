//! One error type: what happened, to what, what to do about it, and the exit code it ends in.

use std::error::Error as StdError;
use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The exit codes that scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    Done = 0,
    Unexpected = 1,
    Usage = 2,
    Config = 3,
    Cluster = 4,
    History = 5,
    Found = 6,
    Store = 7,
    Fenced = 8,
    TimedOut = 124,
    Interrupted = 130,
}

/// Who can do something about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Passes by itself: try again with back-off.
    Retry,
    /// The history needed to go on is gone: only a resync helps.
    Resync,
    /// Somebody must change something: configuration, privileges, disk.
    Operator,
    /// A defect of tandem or a server answer that it does not know.
    Bug,
}

impl Class {
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Retry => "retry",
            Class::Resync => "resync",
            Class::Operator => "operator",
            Class::Bug => "bug",
        }
    }
}

/// An error that names the thing it is about.
#[derive(Debug)]
pub struct Error {
    pub exit: ExitCode,
    pub class: Class,
    pub message: String,
    pub hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub fn new(exit: ExitCode, class: Class, message: impl Into<String>) -> Self {
        Self {
            exit,
            class,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, Class::Operator, message)
    }

    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Config, Class::Operator, message)
    }

    pub fn cluster(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Cluster, Class::Operator, message)
    }

    /// A cluster that cannot be reached now and may be later.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Cluster, Class::Retry, message)
    }

    pub fn history(message: impl Into<String>) -> Self {
        Self::new(ExitCode::History, Class::Resync, message)
    }

    pub fn store(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Store, Class::Operator, message)
    }

    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Fenced, Class::Operator, message)
    }

    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::new(ExitCode::TimedOut, Class::Operator, message)
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Unexpected, Class::Bug, message)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What is behind it, without what was being done.
    pub fn reason(&self) -> String {
        match &self.source {
            Some(source) => source.to_string(),
            None => self.message.clone(),
        }
    }

    pub fn is_retryable(&self) -> bool {
        self.class == Class::Retry
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)?;
        let mut next = self.source();
        while let Some(cause) = next {
            write!(out, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|cause| cause as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_ones_scripts_rely_on() {
        let codes = [
            ExitCode::Done,
            ExitCode::Unexpected,
            ExitCode::Usage,
            ExitCode::Config,
            ExitCode::Cluster,
            ExitCode::History,
            ExitCode::Found,
            ExitCode::Store,
            ExitCode::Fenced,
            ExitCode::TimedOut,
            ExitCode::Interrupted,
        ];
        let numbers: Vec<i32> = codes.iter().map(|code| *code as i32).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 124, 130]);
    }

    #[test]
    fn an_error_tells_its_causes_in_order() {
        let error = Error::store("cannot open the store").caused_by(std::io::Error::other("disk"));
        assert_eq!(error.to_string(), "cannot open the store: disk");
    }
}
