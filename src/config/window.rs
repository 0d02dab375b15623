//! A daily window of time, such as 22:00-06:00, in a time zone.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// From a time of day up to, without, another one; past midnight where the second is the earlier.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    from: Time,
    to: Time,
    zone: TimeZone,
}

impl Window {
    /// Reads `22:00-06:00`.
    ///
    /// # Errors
    /// A sentence on what is expected, fit to stand after an option.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Window, String> {
        let (from, to) = times(text)?;
        Ok(Window { from, to, zone })
    }

    /// Whether it is open at `now`.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.around(now)
            .any(|(open, close)| open <= now && now < close)
    }

    /// When it closes or opens next, after `now`. None past the end of the calendar.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let open = self
            .around(now)
            .filter(|(open, close)| *open <= now && now < *close);
        match open.map(|(_, close)| close).max() {
            Some(close) => Some(close),
            None => self
                .around(now)
                .map(|(open, _)| open)
                .filter(|open| *open > now)
                .min(),
        }
    }

    /// Openings of the days about `now`, each with its closing. A time of day that the clocks skip
    /// is the moment as long after the change, one that comes twice is the first.
    fn around(&self, now: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let today = now.to_zoned(self.zone.clone()).date();
        (-1..=2).filter_map(move |days: i64| {
            let day = today.checked_add(days.days()).ok()?;
            let last = if self.to > self.from {
                day
            } else {
                day.tomorrow().ok()?
            };
            let (open, close) = (self.at(day, self.from)?, self.at(last, self.to)?);
            (open < close).then_some((open, close))
        })
    }

    fn at(&self, day: Date, time: Time) -> Option<Timestamp> {
        let moment = self.zone.to_ambiguous_zoned(day.to_datetime(time));
        moment.compatible().ok().map(|moment| moment.timestamp())
    }
}

fn times(text: &str) -> Result<(Time, Time), String> {
    let refused = || format!("must be two times of day such as 22:00-06:00, not {text:?}");
    let (from, to) = text.split_once('-').ok_or_else(refused)?;
    let time = |text: &str| -> Option<Time> {
        let (hour, minute) = text.trim().split_once(':')?;
        if hour.len() > 2 || minute.len() != 2 {
            return None;
        }
        Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
    };
    match (time(from), time(to)) {
        (Some(from), Some(to)) if from != to => Ok((from, to)),
        _ => Err(refused()),
    }
}

/// Checks what was typed before its time zone is known.
///
/// # Errors
/// As [`Window::parse`].
pub fn check(text: &str) -> Result<String, String> {
    times(text).map(|_| text.to_owned())
}

/// Reads `Europe/Berlin` or `UTC`.
///
/// # Errors
/// A sentence on what is expected, fit to stand after an option.
pub fn zone(name: &str) -> Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| {
        format!(
            "must be a time zone that this host knows, such as Europe/Berlin or UTC, not {name:?}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clocks go from 02:00 to 03:00 on 2026-03-29 and from 03:00 to 02:00 on 2026-10-25.
    const CENTRAL_EUROPE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn window(text: &str) -> Window {
        Window::parse(text, TimeZone::posix(CENTRAL_EUROPE).unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The moments at which it changes over the days from a moment on, as UTC.
    fn changes(window: &Window, from: &str, count: usize) -> Vec<String> {
        let mut now = at(from);
        let mut found = Vec::new();
        for _ in 0..count {
            let before = window.is_open(now);
            now = window.next_change(now).unwrap();
            assert_ne!(window.is_open(now), before, "at {now}");
            found.push(now.to_string());
        }
        found
    }

    #[test]
    fn a_window_in_the_day_opens_and_closes_each_day() {
        let window = window("09:00-17:30");
        assert_eq!(
            changes(&window, "2026-01-10T00:00:00Z", 3),
            [
                "2026-01-10T08:00:00Z",
                "2026-01-10T16:30:00Z",
                "2026-01-11T08:00:00Z"
            ]
        );
        assert!(window.is_open(at("2026-01-10T08:00:00Z")));
        assert!(!window.is_open(at("2026-01-10T16:30:00Z")));
    }

    #[test]
    fn a_window_over_midnight_is_one() {
        assert_eq!(
            changes(&window("22:00-06:00"), "2026-01-10T12:00:00Z", 3),
            [
                "2026-01-10T21:00:00Z",
                "2026-01-11T05:00:00Z",
                "2026-01-11T21:00:00Z"
            ]
        );
        assert!(window("22:00-06:00").is_open(at("2026-01-10T23:30:00Z")));
    }

    #[test]
    fn a_night_is_an_hour_shorter_in_spring_and_longer_in_autumn() {
        let window = window("22:00-06:00");
        assert_eq!(
            changes(&window, "2026-03-28T12:00:00Z", 2),
            ["2026-03-28T21:00:00Z", "2026-03-29T04:00:00Z"]
        );
        assert_eq!(
            changes(&window, "2026-10-24T12:00:00Z", 2),
            ["2026-10-24T20:00:00Z", "2026-10-25T05:00:00Z"]
        );
    }

    #[test]
    fn a_time_that_the_clocks_skip_or_repeat_opens_once() {
        assert_eq!(
            changes(&window("02:30-05:00"), "2026-03-28T12:00:00Z", 3),
            [
                "2026-03-29T01:30:00Z",
                "2026-03-29T03:00:00Z",
                "2026-03-30T00:30:00Z"
            ]
        );
        assert_eq!(
            changes(&window("02:30-05:00"), "2026-10-24T12:00:00Z", 3),
            [
                "2026-10-25T00:30:00Z",
                "2026-10-25T04:00:00Z",
                "2026-10-26T01:30:00Z"
            ]
        );
        assert_eq!(
            changes(&window("01:00-02:30"), "2026-10-24T12:00:00Z", 2),
            ["2026-10-24T23:00:00Z", "2026-10-25T00:30:00Z"]
        );
    }

    #[test]
    fn what_is_no_window_is_refused() {
        let utc = || TimeZone::UTC;
        for text in [
            "",
            "22:00",
            "22:00-22:00",
            "24:00-06:00",
            "22-06",
            "22:00-6:0",
            "a-b",
        ] {
            assert!(Window::parse(text, utc()).is_err(), "{text}");
        }
        assert!(Window::parse("22:00-6:00", utc()).is_ok());
        assert!(zone("Nowhere/Land").is_err());
    }
}
