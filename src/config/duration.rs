//! Lengths of time as people type them: `5ms`, `15s`, `30m`, `2h`, `90d`, `1h30m`.

use std::time::Duration;

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads whole numbers with a unit each, the larger unit first.
///
/// # Errors
/// A sentence on what is expected, fit to stand after a key or an option.
pub fn parse(text: &str) -> Result<Duration, String> {
    let refused =
        || format!("must be a length of time such as 500ms, 15s, 2h or 90d, not {text:?}");
    let mut rest = text.trim();
    let mut total_ms: u64 = 0;
    let mut last_unit_ms = u64::MAX;
    if rest.is_empty() {
        return Err(refused());
    }
    while !rest.is_empty() {
        let digits_end = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(refused)?;
        let unit_end = rest[digits_end..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| digits_end + at);
        let count: u64 = rest[..digits_end].parse().map_err(|_| refused())?;
        let unit_ms = unit(&rest[digits_end..unit_end]).ok_or_else(refused)?;
        if unit_ms >= last_unit_ms {
            return Err(refused());
        }
        last_unit_ms = unit_ms;
        total_ms = count
            .checked_mul(unit_ms)
            .and_then(|part| total_ms.checked_add(part))
            .ok_or_else(refused)?;
        rest = &rest[unit_end..];
    }
    Ok(Duration::from_millis(total_ms))
}

/// The shortest way to type a length of time in whole milliseconds.
pub fn show(length: Duration) -> String {
    let ms = length.as_millis() as u64;
    if ms == 0 {
        return "0s".to_owned();
    }
    let (name, unit_ms) = UNITS
        .iter()
        .rev()
        .find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms))
        .expect("every whole number of ms is a multiple of 1 ms");
    format!("{}{name}", ms / unit_ms)
}

fn unit(name: &str) -> Option<u64> {
    let (_, ms) = UNITS.iter().find(|(known, _)| *known == name)?;
    Some(*ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_numbers_with_units() {
        for (text, ms) in [
            ("5ms", 5),
            ("15s", 15_000),
            ("30m", 1_800_000),
            ("2h", 7_200_000),
            ("90d", 7_776_000_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "-5s",
            "1.5h",
            "5 s",
            "5x",
            "30m1h",
            "1s1s",
            "99999999999999999999d",
            "999999999999999d",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_length_is_shown_in_its_largest_whole_unit() {
        for text in ["5ms", "15s", "90m", "2h", "90d", "0s"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
