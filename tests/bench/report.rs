//! The table at the end.

use std::time::Duration;

use crate::backlog::Backlog;

/// What one process has taken for a drain.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resources {
    pub peak_megabytes: f64,
    pub cpu_seconds: f64,
}

/// One backlog, drained once.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    pub time: Duration,
    pub resources: Option<Resources>,
}

/// One line of the table: medians over the rounds.
pub struct Row {
    what: String,
    tandem: f64,
    native: Option<f64>,
    ratio: Option<f64>,
    resources: Resources,
}

impl Row {
    pub fn of(backlog: &Backlog, drains: Vec<(Drain, Option<Drain>)>) -> Self {
        let rate = |drain: &Drain| backlog.drained() as f64 / drain.time.as_secs_f64();
        let ours = |of: fn(Resources) -> f64| {
            median(drains.iter().filter_map(|(ours, _)| ours.resources.map(of)))
        };
        let both = || {
            let pair =
                |(ours, native): &(Drain, Option<Drain>)| Some((rate(ours), rate(&(*native)?)));
            drains.iter().filter_map(pair)
        };
        Self {
            what: backlog.label(),
            tandem: median(drains.iter().map(|(ours, _)| rate(ours))).unwrap_or_default(),
            native: median(both().map(|(_, native)| native)),
            ratio: median(both().map(|(ours, native)| ours / native)),
            resources: Resources {
                peak_megabytes: ours(|taken| taken.peak_megabytes).unwrap_or_default(),
                cpu_seconds: ours(|taken| taken.cpu_seconds).unwrap_or_default(),
            },
        }
    }
}

/// Prints a Markdown table.
pub fn print_rows(rows: &[Row]) {
    println!("| backlog | tandem, op/s | secondary, op/s | ratio | peak memory, MB | CPU, s |");
    println!("|---|---:|---:|---:|---:|---:|");
    for row in rows {
        println!(
            "| {} | {:.0} | {} | {} | {:.0} | {:.1} |",
            row.what,
            row.tandem,
            shown(row.native, 0),
            shown(row.ratio, 2),
            row.resources.peak_megabytes,
            row.resources.cpu_seconds,
        );
    }
}

fn shown(number: Option<f64>, digits: usize) -> String {
    number.map_or("-".to_owned(), |number| format!("{number:.digits$}"))
}

fn median(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => None,
        count if count % 2 == 1 => Some(numbers[middle]),
        _ => Some((numbers[middle - 1] + numbers[middle]) / 2.0),
    }
}
