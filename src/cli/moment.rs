//! A moment as it is typed: a time, or how long ago.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;

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

/// A time of day, such as 02:00.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeOfDay(Time);

impl TimeOfDay {
    /// # Errors
    /// A sentence on what is expected.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let time = Time::strptime("%H:%M", typed).ok();
        let time = time.filter(|_| typed.len() == "02:00".len());
        time.map(TimeOfDay)
            .ok_or_else(|| "must be a time of day such as 02:00".to_owned())
    }

    /// When it is next, after `now`. One that the clocks skip is as long after the change.
    pub fn next(self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let today = now.to_zoned(zone.clone()).date();
        let at = |day: Date| {
            let moment = zone.to_ambiguous_zoned(day.to_datetime(self.0));
            moment.compatible().ok().map(|moment| moment.timestamp())
        };
        let days = [Some(today), today.tomorrow().ok()];
        days.into_iter()
            .flatten()
            .filter_map(at)
            .find(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_comes_next_today_or_tomorrow() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let next = |typed: &str, now: &str| {
            let at = TimeOfDay::parse(typed).unwrap();
            at.next(now.parse().unwrap(), &zone).unwrap().to_string()
        };
        assert_eq!(
            next("02:00", "2026-01-10T00:30:00Z"),
            "2026-01-10T01:00:00Z"
        );
        assert_eq!(
            next("02:00", "2026-01-10T01:00:00Z"),
            "2026-01-11T01:00:00Z"
        );
        // The clocks go from 02:00 to 03:00 that night.
        assert_eq!(
            next("02:30", "2026-03-28T12:00:00Z"),
            "2026-03-29T01:30:00Z"
        );
        for typed in ["", "2", "25:00", "2:00", "02:60", "noon", "02:00 "] {
            assert!(TimeOfDay::parse(typed).is_err(), "{typed}");
        }
    }

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
