//! Charts as inline SVG. Sizes are attributes and shares of the width, so that they need no styles
//! and fit a phone; all text stands outside of the pictures.

use std::collections::BTreeMap;
use std::fmt::Write;

use bson::{DateTime, RawDocument};

use super::{grouped, safe};
use crate::change::{Pair, rfc3339};

const SECOND_MS: i64 = 1000;
const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// What a bar may stand for, in seconds, and what it is called: each a multiple of the one before.
const BUCKETS: [(i64, &str); 10] = [
    (1, "second"),
    (10, "ten seconds"),
    (MINUTE, "minute"),
    (10 * MINUTE, "ten minutes"),
    (HOUR, "hour"),
    (6 * HOUR, "six hours"),
    (DAY, "day"),
    (7 * DAY, "week"),
    (28 * DAY, "four weeks"),
    (364 * DAY, "52 weeks"),
];
/// Times that are told apart while records come; past it they are counted by the next larger bucket.
const TIMES_MAX: usize = 5000;
/// More are too thin to be seen on a phone.
const BARS_MAX: i64 = 90;
/// Wider bars are no bars: what is missing stands before the first, as nothing.
const BARS_MIN: i64 = 12;
pub(super) const ROWS_MAX: usize = 8;

/// Conflicts by time and winner: a, b, nobody.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// Which of the buckets the times are counted by.
    bucket: usize,
    /// By the start of their bucket, in seconds.
    counts: BTreeMap<i64, [u64; 3]>,
}

impl Timeline {
    pub(super) fn add(&mut self, record: &RawDocument) {
        let Ok(at) = record.get_datetime("logged_at") else {
            return;
        };
        let winner = match record.get_str("winner_cluster") {
            Ok("a") => 0,
            Ok("b") => 1,
            Ok(_) | Err(_) => 2,
        };
        let second = at.timestamp_millis().div_euclid(SECOND_MS);
        self.counts.entry(self.start_of(second)).or_default()[winner] += 1;
        while self.counts.len() > TIMES_MAX && self.bucket + 1 < BUCKETS.len() {
            self.coarsen();
        }
    }

    #[cfg(test)]
    pub(super) fn counted_times(&self) -> usize {
        self.counts.len()
    }

    fn start_of(&self, second: i64) -> i64 {
        let (seconds, _) = BUCKETS[self.bucket];
        second.div_euclid(seconds).saturating_mul(seconds)
    }

    fn coarsen(&mut self) {
        self.bucket += 1;
        for (second, counts) in std::mem::take(&mut self.counts) {
            let start = self.start_of(second);
            let sums = self.counts.entry(start).or_default();
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
    }

    /// Bars from the first time to the last.
    fn bars(&self) -> i64 {
        let (seconds, _) = BUCKETS[self.bucket];
        let mut times = self.counts.keys();
        let first = times.next().copied().unwrap_or_default();
        let last = times.next_back().copied().unwrap_or(first);
        (last - first) / seconds + 1
    }

    pub(super) fn write(mut self, out: &mut String, names: &Pair<String>) {
        while self.bars() > BARS_MAX && self.bucket + 1 < BUCKETS.len() {
            self.coarsen();
        }
        let (seconds, unit) = BUCKETS[self.bucket];
        let Some(last) = self.counts.keys().next_back() else {
            return;
        };
        let width = self.bars().max(BARS_MIN);
        let start = last / seconds - width + 1;
        let bars = self.counts.iter();
        let bars: BTreeMap<i64, [u64; 3]> = bars
            .map(|(start, counts)| (start / seconds, *counts))
            .collect();
        let highest = bars.values().map(|bar| bar.iter().sum()).max().unwrap_or(1);
        let ends = [start, start + width / 2, start + width - 1].map(|bar| label(bar, seconds));
        let (day, ends) = common_day(&ends);
        let _ = write!(
            out,
            "<figure class=\"wide\"><figcaption><h2>Over time</h2><span>conflicts by {unit}, {day}UTC</span></figcaption>\n\
             <div class=\"plot\"><div class=\"scale\"><span>{}</span><span>0</span></div>\n\
             <svg viewBox=\"0 0 {width} 100\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"Conflicts by {unit}\">\n\
             <path class=\"grid\" d=\"M0 .5H{width}M0 50H{width}M0 99.5H{width}\"/>\n",
            grouped(highest)
        );
        for (bar, counts) in &bars {
            let label = label(*bar, seconds);
            write_bar(out, bar - start, counts, highest, &label, names);
        }
        let [from, middle, to] = ends;
        let _ = write!(
            out,
            "</svg>\n<div class=\"axis\"><span>{from}</span><span>{middle}</span><span>{to}</span></div></div>\n\
             <p class=\"legend\"><i class=\"w0\"></i>{} won <i class=\"w1\"></i>{} won <i class=\"w2\"></i>nobody won</p></figure>\n",
            safe(&names.a),
            safe(&names.b)
        );
    }
}

fn write_bar(
    out: &mut String,
    x: i64,
    counts: &[u64; 3],
    highest: u64,
    label: &str,
    names: &Pair<String>,
) {
    let total: u64 = counts.iter().sum();
    let _ = write!(
        out,
        "<g><title>{}: {} ({} won {}, {} won {}, nobody {})</title><rect class=\"hit\" x=\"{x}\" y=\"0\" width=\"1\" height=\"100\"/>",
        safe(label),
        grouped(total),
        safe(&names.a),
        grouped(counts[0]),
        safe(&names.b),
        grouped(counts[1]),
        grouped(counts[2])
    );
    let mut above = 100.0;
    for (winner, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        // What is there is seen, however small.
        let height = (*count as f64 / highest.max(1) as f64 * 100.0).max(0.8);
        above -= height;
        let y = above.max(0.0);
        let left = x as f64 + 0.1;
        let _ = write!(
            out,
            "<rect class=\"w{winner}\" x=\"{left:.1}\" y=\"{y:.2}\" width=\".8\" height=\"{height:.2}\"/>"
        );
    }
    out.push_str("</g>\n");
}

/// When a bar begins: the day, and the time where it matters.
fn label(bar: i64, seconds: i64) -> String {
    let start = bar.saturating_mul(seconds).saturating_mul(SECOND_MS);
    let at = rfc3339(DateTime::from_millis(start));
    let (day, time) = at.split_once('T').unwrap_or((&at, ""));
    let digits = if seconds < MINUTE {
        "00:00:00"
    } else {
        "00:00"
    }
    .len();
    match (seconds < DAY, time.get(..digits)) {
        (true, Some(time)) => format!("{day} {time}"),
        _ => day.to_owned(),
    }
}

/// The day of all labels, which they need not tell then.
fn common_day(labels: &[String; 3]) -> (String, [String; 3]) {
    let parts = labels.each_ref().map(|label| label.split_once(' '));
    match parts {
        [Some((day, from)), Some((other, middle)), Some((last, to))]
            if day == other && day == last =>
        {
            (format!("{day} "), [from, middle, to].map(safe))
        }
        _ => (String::new(), labels.each_ref().map(|label| safe(label))),
    }
}

/// The largest counts as bars, and what is left in one.
pub(super) fn bars(out: &mut String, heading: &str, mut rows: Vec<(String, u64)>, total: u64) {
    if rows.is_empty() {
        return;
    }
    rows.sort_by(|(left, count), (right, other)| other.cmp(count).then(left.cmp(right)));
    let others = rows.split_off(rows.len().min(ROWS_MAX));
    let _ = write!(
        out,
        "<figure><figcaption><h2>{heading}</h2></figcaption>\n<ul class=\"bars\">\n"
    );
    let highest = rows.first().map_or(1, |(_, count)| *count).max(1);
    for (name, count) in rows {
        let name = safe(&name);
        let named = format!("<span class=\"name\" title=\"{name}\">{name}</span>");
        bar(out, &named, count, highest, total);
    }
    if !others.is_empty() {
        let count = others.iter().map(|(_, count)| count).sum();
        let noun = if others.len() == 1 { "other" } else { "others" };
        let named = format!(
            "<span class=\"name\"><em>{} {noun}</em></span>",
            others.len()
        );
        bar(out, &named, count, highest.max(count), total);
    }
    out.push_str("</ul></figure>\n");
}

fn bar(out: &mut String, named: &str, count: u64, highest: u64, total: u64) {
    let width = count as f64 / highest as f64 * 100.0;
    let share = match count as f64 / total.max(1) as f64 * 100.0 {
        share if share < 0.5 => "&lt;1".to_owned(),
        share => format!("{share:.0}"),
    };
    let _ = writeln!(
        out,
        "<li>{named}<span class=\"count\">{} <small>{share} %</small></span>\
         <svg aria-hidden=\"true\"><rect class=\"back\" width=\"100%\" height=\"100%\" rx=\"3\"/><rect class=\"fill\" width=\"{width:.1}%\" height=\"100%\" rx=\"3\"/></svg></li>",
        grouped(count)
    );
}
