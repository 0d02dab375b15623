//! Wall time as text: RFC 3339 in UTC with milliseconds, the only form that people and scripts see.

use bson::DateTime;
use jiff::Timestamp;

/// `2026-01-02T03:04:05.678Z`; a time outside of the years -9999 to 9999 is shown at that bound.
pub fn rfc3339(time: DateTime) -> String {
    format!("{:.3}", time.to_jiff())
}

/// Reads RFC 3339 with any offset; what is finer than a millisecond is cut off.
pub fn parse_rfc3339(text: &str) -> Option<DateTime> {
    text.parse::<Timestamp>().ok().map(DateTime::from_jiff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_three_digits_of_milliseconds_and_reads_back() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_700_000_000_120, "2023-11-14T22:13:20.120Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
        ] {
            let time = DateTime::from_millis(ms);
            assert_eq!(rfc3339(time), text);
            assert_eq!(parse_rfc3339(text), Some(time));
        }
        assert_eq!(
            parse_rfc3339("2023-11-14T23:13:20.12+01:00"),
            Some(DateTime::from_millis(1_700_000_000_120))
        );
        assert_eq!(parse_rfc3339("yesterday"), None);
    }
}
