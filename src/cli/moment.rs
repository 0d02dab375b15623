//! A moment as it is typed: a time, or how long ago.

use std::time::Duration;

use crate::config::duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    At(jiff::Timestamp),
    Ago(Duration),
}

impl Moment {
    /// # Errors
    /// A sentence on what is expected.
    pub fn parse(typed: &str) -> Result<Self, String> {
        if let Ok(at) = typed.parse() {
            return Ok(Moment::At(at));
        }
        duration::parse(typed).map(Moment::Ago).map_err(|_| {
            "a time such as 2025-01-31T12:00:00Z, or how long ago, such as 24h".to_owned()
        })
    }

    /// The time that is meant; where that is before all times, the first of them.
    pub fn before(self, now: jiff::Timestamp) -> jiff::Timestamp {
        match self {
            Moment::At(at) => at,
            Moment::Ago(ago) => now.checked_sub(ago).unwrap_or(jiff::Timestamp::MIN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_a_length_before_now() {
        let now: jiff::Timestamp = "2025-01-31T12:00:00Z".parse().unwrap();
        for (typed, expected) in [
            ("24h", "2025-01-30T12:00:00Z"),
            ("2025-01-01T01:00:00+01:00", "2025-01-01T00:00:00Z"),
            ("1h30m", "2025-01-31T10:30:00Z"),
            ("0h", "2025-01-31T12:00:00Z"),
            ("99999999d", "-009999-01-02T01:59:59Z"),
        ] {
            let expected: jiff::Timestamp = expected.parse().unwrap();
            assert_eq!(Moment::parse(typed).unwrap().before(now), expected);
        }
        for typed in [
            "",
            "h",
            "yesterday",
            "24",
            "-1h",
            "+1h",
            "1.5h",
            "5ü",
            "2023-11-14",
            "99999999999999999999h",
        ] {
            assert!(Moment::parse(typed).is_err(), "{typed}");
        }
    }
}
