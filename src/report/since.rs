//! The times that `--since` and `--until` take: RFC 3339, or so long ago.

use std::time::Duration;

use bson::DateTime;

use crate::change::parse_rfc3339;
use crate::error::{Error, Result};

/// `2026-01-02T03:04:05Z`, or `30s`, `30m`, `24h`, `7d`, `2w` before `now`.
///
/// # Errors
/// Exit 2 for anything else.
pub fn parse_since(text: &str, now: DateTime) -> Result<DateTime> {
    if let Some(time) = parse_rfc3339(text) {
        return Ok(time);
    }
    let wrong = || {
        Error::usage(format!("{text} is not a time"))
            .hint("write 2026-01-31T18:00:00Z, or how long ago: 30m, 24h, 7d")
    };
    let ago = ago(text).ok_or_else(wrong)?;
    let ago_ms = i64::try_from(ago.as_millis()).map_err(|_| wrong())?;
    let at = now.timestamp_millis().checked_sub(ago_ms);
    at.map(DateTime::from_millis).ok_or_else(wrong)
}

fn ago(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        'w' => 7 * 24 * 60 * 60,
        _ => return None,
    };
    let number = &text[..text.len() - unit.len_utf8()];
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = digits.then(|| number.parse().ok()).flatten()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ExitCode;

    const NOW: DateTime = DateTime::from_millis(1_700_000_000_000);

    #[test]
    fn a_time_is_absolute_or_so_long_ago() {
        for (text, ms) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T22:13:20.5+02:00", 1_699_992_800_500),
            ("30s", 1_699_999_970_000),
            ("30m", 1_699_998_200_000),
            ("24h", 1_699_913_600_000),
            ("7d", 1_699_395_200_000),
            ("1w", 1_699_395_200_000),
            ("0h", 1_700_000_000_000),
        ] {
            let time = parse_since(text, NOW).unwrap();
            assert_eq!(time, DateTime::from_millis(ms), "{text}");
        }
    }

    #[test]
    fn anything_else_is_a_usage_error() {
        for text in [
            "",
            "h",
            "yesterday",
            "24",
            "-1h",
            "+1h",
            "1.5h",
            "24 h",
            "5ü",
            "2023-11-14",
            "99999999999999999999h",
            "18446744073709551615w",
            "9223372036854775807s",
        ] {
            let error = parse_since(text, NOW).unwrap_err();
            assert_eq!(error.exit, ExitCode::Usage, "{text}");
        }
    }
}
