//! What an application makes of an error that its write met.

use mongodb::error::{Error, ErrorKind, WriteFailure};

const DUPLICATE_KEY: i32 = 11000;

fn code_of(error: &Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(error) => Some(error.code),
        ErrorKind::Write(WriteFailure::WriteError(error)) => Some(error.code),
        _ => None,
    }
}

pub fn is_duplicate(error: &Error) -> bool {
    code_of(error) == Some(DUPLICATE_KEY)
}

/// Nothing of the transaction has been done.
pub fn is_refusal(error: &Error) -> bool {
    error.contains_label("TransientTransactionError") || is_duplicate(error)
}
