//! Memory while a long backlog drains, wherever it is. Nothing beside it: what counts is that it is
//! flat.

use crate::DOCUMENT_BYTES;
use crate::backlog::{Backlog, Place, Shape};
use crate::measured::Drain;
use crate::report::{median, print_table, shown};
use crate::through_tandem;

const OPERATIONS: usize = 1_000_000;
const SMALL_BYTES: usize = 100;

const HEAD: [&str; 7] = [
    "backlog",
    "op/s",
    "CPU, µs/op",
    "memory, MB, after 10 % of the time",
    "50 %",
    "at the end",
    "peak",
];

/// Documents of 1 KB come a fifth as often.
pub async fn print(rounds: usize, operations: Option<usize>) {
    let operations = operations.unwrap_or(OPERATIONS);
    let small = |place| Backlog {
        place,
        ..Backlog::new(Shape::Inserts, operations, SMALL_BYTES)
    };
    let large = Backlog::new(Shape::Inserts, operations / 5, DOCUMENT_BYTES);
    let backlogs = [
        small(Place::OneSide),
        large,
        small(Place::OneWay),
        small(Place::BothSides),
    ];
    let mut rows = Vec::new();
    for backlog in backlogs {
        let label = format!("{}, {} bytes each", backlog.label(), backlog.document_bytes);
        let mut drains = Vec::new();
        for round in 1..=rounds {
            eprintln!("{label}, round {round}: through tandem");
            drains.push(through_tandem::drain(&backlog).await);
        }
        rows.push(row(label, &drains));
    }
    print_table(&HEAD, &rows);
}

fn row(label: String, drains: &[Drain]) -> Vec<String> {
    let of = |number: &dyn Fn(&Drain) -> Option<f64>, digits| {
        shown(median(drains.iter().filter_map(number)), digits)
    };
    vec![
        label,
        of(&|drain| Some(drain.rate()), 0),
        of(&|drain| Some(drain.microseconds(drain.cpu.program)), 1),
        of(&|drain| drain.memory.after(0.1), 0),
        of(&|drain| drain.memory.after(0.5), 0),
        of(&|drain| drain.memory.after(1.0), 0),
        of(&|drain| Some(drain.memory.peak_megabytes), 0),
    ]
}
