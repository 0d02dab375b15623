//! The table at the end.

use std::time::Duration;

use crate::backlog::Backlog;
use crate::resources::Resources;

/// One backlog, drained once.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    pub time: Duration,
    pub resources: Option<Resources>,
}

/// The bare loop, and how fast each half of it is without the other, in operations per second.
#[derive(Debug, Clone, Copy)]
pub struct Bare {
    pub time: Duration,
    pub cpu_seconds: f64,
    pub read_alone: f64,
    pub write_alone: f64,
}

/// One round: the same backlog through everybody.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    pub tandem: Drain,
    pub secondary: Option<Drain>,
    pub bare: Option<Bare>,
}

/// One line of the table: medians over the rounds.
pub struct Row<'a> {
    backlog: &'a Backlog,
    rounds: &'a [Round],
}

const HEAD: &str = "| backlog | tandem, op/s | secondary, op/s | tandem to secondary \
| bare loop, op/s | tandem to bare | reading alone, op/s | writing alone, op/s \
| peak memory, MB | CPU, µs/op | CPU, tandem to bare |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|";

impl<'a> Row<'a> {
    pub fn of(backlog: &'a Backlog, rounds: &'a [Round]) -> Self {
        Self { backlog, rounds }
    }

    fn median(&self, of: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        median(self.rounds.iter().filter_map(of))
    }

    fn rate(&self, time: Duration) -> f64 {
        self.backlog.drained() as f64 / time.as_secs_f64()
    }

    fn cells(&self) -> Vec<String> {
        let operations = self.backlog.drained() as f64;
        let tandem = |round: &Round| self.rate(round.tandem.time);
        let secondary = |round: &Round| round.secondary.map(|drain| self.rate(drain.time));
        let bare = |round: &Round| round.bare.map(|bare| self.rate(bare.time));
        let taken = |round: &Round| round.tandem.resources.unwrap_or_default();
        let of_bare = |round: &Round| Some(taken(round).cpu_seconds / round.bare?.cpu_seconds);
        [
            (self.median(|round| Some(tandem(round))), 0),
            (self.median(secondary), 0),
            (
                self.median(|round| Some(tandem(round) / secondary(round)?)),
                2,
            ),
            (self.median(bare), 0),
            (self.median(|round| Some(tandem(round) / bare(round)?)), 2),
            (self.median(|round| Some(round.bare?.read_alone)), 0),
            (self.median(|round| Some(round.bare?.write_alone)), 0),
            (self.median(|round| Some(taken(round).peak_megabytes)), 0),
            (
                self.median(|round| Some(taken(round).cpu_seconds * 1e6 / operations)),
                1,
            ),
            (self.median(of_bare), 2),
        ]
        .map(|(number, digits)| shown(number, digits))
        .to_vec()
    }
}

/// Prints a Markdown table.
pub fn print_rows(rows: &[Row<'_>]) {
    println!("{HEAD}");
    for row in rows {
        println!("| {} | {} |", row.backlog.label(), row.cells().join(" | "));
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
