//! Checks that a test can switch off, to see that it would notice; a release build has no switch.

/// A check of tandem that can be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Transactions run at the server's present instead of the fence they were decided for.
    NoFence,
    /// A write that changes nothing is not made to conflict.
    NoTouch,
    /// A cluster time counts as complete from its first event on.
    EarlyComplete,
    /// What a document holds of the other side already is forgotten.
    NoIncluded,
    /// A note that full state must be sent next is forgotten.
    NoOwed,
    /// A checkpoint moves whoever has raised its epoch.
    NoEpoch,
    /// A checkpoint moves from wherever it is.
    NoSequence,
    /// A read of what a majority has may lack what this process has written.
    StaleReads,
    /// Commands name a collection without its UUID.
    NoUuid,
    /// The transaction that settles a conflict leaves its records to be written afterwards.
    LateRecords,
    /// The sessions of former processes are ended at the start alone.
    EndedOnce,
    /// A reader hands over what it has read while commits of unknown time may be older.
    HastyReader,
    /// A lane decides again before its reader has passed what settling a commit has written.
    EarlyRetry,
    /// A start takes the epoch that it finds for its own, and does not look for its lease again.
    TrustingStart,
    /// What a copy has read is sent whatever was written to it since.
    StaleCopy,
    /// A range of a copy or a merge counts as done before its documents are there.
    EarlyRange,
    /// The events of both pipelines go on amid a copy or a merge.
    NoHold,
    /// A reader takes what tandem has written for an application's.
    NoOrigin,
}

#[cfg(debug_assertions)]
impl Fault {
    /// Names one of them, or several with `+` between them.
    pub const VARIABLE: &str = "TANDEM_FAULT";

    pub fn is_on(self) -> bool {
        use std::sync::LazyLock;
        static CHOSEN: LazyLock<Option<String>> =
            LazyLock::new(|| std::env::var(Fault::VARIABLE).ok());
        let chosen = CHOSEN.as_deref().unwrap_or_default();
        chosen.split('+').any(|name| name == self.name())
    }

    /// Whether an environment variable is the switch, so that no configuration has to know it.
    pub fn is_switched_by(variable: &str) -> bool {
        variable == Self::VARIABLE
    }

    fn name(self) -> &'static str {
        match self {
            Fault::NoFence => "no_fence",
            Fault::NoTouch => "no_touch",
            Fault::EarlyComplete => "early_complete",
            Fault::NoIncluded => "no_included",
            Fault::NoOwed => "no_owed",
            Fault::NoEpoch => "no_epoch",
            Fault::NoSequence => "no_sequence",
            Fault::StaleReads => "stale_reads",
            Fault::NoUuid => "no_uuid",
            Fault::LateRecords => "late_records",
            Fault::EndedOnce => "ended_once",
            Fault::HastyReader => "hasty_reader",
            Fault::EarlyRetry => "early_retry",
            Fault::TrustingStart => "trusting_start",
            Fault::StaleCopy => "stale_copy",
            Fault::EarlyRange => "early_range",
            Fault::NoHold => "no_hold",
            Fault::NoOrigin => "no_origin",
        }
    }
}

#[cfg(not(debug_assertions))]
impl Fault {
    pub const fn is_on(self) -> bool {
        false
    }

    pub const fn is_switched_by(_: &str) -> bool {
        false
    }
}
