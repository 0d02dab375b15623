//! How much room the conflict log has left. No record is dropped for want of room: the link stops.

use crate::error::{Error, Result};

/// Past this part of the limit somebody should export and prune.
const WARN_NUMERATOR: u64 = 4;
const WARN_DENOMINATOR: u64 = 5;

/// Warns where the log has just passed most of its limit.
///
/// # Errors
/// Exit 7 where it is larger than its limit.
pub fn check(before: u64, now: u64, bytes_max: Option<u64>) -> Result<()> {
    let Some(max) = bytes_max else {
        return Ok(());
    };
    if now > max {
        return Err(Error::store(format!(
            "the conflict log has {now} bytes, more than conflicts.bytes_max ({max}); nothing is lost, and nothing more is applied"
        ))
        .hint(
            "export it (`tandem conflict-report --format ndjson > FILE`), remove what is exported \
             (`tandem conflict prune --before TIME`), or raise the limit",
        ));
    }
    let most = max / WARN_DENOMINATOR * WARN_NUMERATOR;
    if before <= most && now > most {
        tracing::warn!(
            bytes = now,
            bytes_max = max,
            "the conflict log is nearly full; the link stops once it is: export and prune it"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ExitCode;

    #[test]
    fn a_log_past_its_limit_stops_the_link_and_one_without_a_limit_never_does() {
        assert!(check(0, 100, Some(100)).is_ok());
        assert_eq!(check(0, 101, Some(100)).unwrap_err().exit, ExitCode::Store);
        assert!(check(0, u64::MAX, None).is_ok());
    }
}
