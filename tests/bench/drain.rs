//! How fast a backlog drains: through tandem, through a secondary of the same server, and through a
//! bare loop; and which process its time goes into.

use crate::DOCUMENT_BYTES;
use crate::backlog::{Backlog, Shape};
use crate::bare::{self, Bare};
use crate::measured::Drain;
use crate::report::{median, print_table, shown};
use crate::{native, through_tandem};

/// How many operations make the backlog, unless the command line says otherwise.
const OPERATIONS: usize = 200_000;

/// The same backlog through everybody.
struct Round {
    tandem: Drain,
    secondary: Drain,
    bare: Bare,
}

const HEAD: [&str; 13] = [
    "backlog",
    "tandem, op/s",
    "secondary, op/s",
    "tandem to secondary",
    "bare loop, op/s",
    "tandem to bare",
    "until the first operation, s",
    "from then on, op/s",
    "to secondary",
    "to bare",
    "peak memory, MB",
    "CPU, µs/op",
    "CPU, tandem to bare",
];

const HEAD_OF_PROCESSES: [&str; 7] = [
    "CPU, µs/op",
    "op/s",
    "source",
    "program",
    "target",
    "together",
    "cores busy",
];

pub async fn print(rounds: usize, operations: Option<usize>) {
    let operations = operations.unwrap_or(OPERATIONS);
    let mut all = Vec::new();
    for shape in Shape::ALL {
        let backlog = Backlog::new(shape, operations, DOCUMENT_BYTES);
        let mut of_backlog = Vec::new();
        for round in 1..=rounds {
            of_backlog.push(one_round(&backlog, round).await);
        }
        all.push((backlog.label(), of_backlog));
    }
    let rows: Vec<_> = all
        .iter()
        .map(|(label, rounds)| row(label, rounds))
        .collect();
    print_table(&HEAD, &rows);
    let rows: Vec<_> = all
        .iter()
        .flat_map(|(label, rounds)| rows_of_processes(label, rounds))
        .collect();
    print_table(&HEAD_OF_PROCESSES, &rows);
}

async fn one_round(backlog: &Backlog, round: usize) -> Round {
    let label = backlog.label();
    eprintln!("{label}, round {round}: through tandem");
    let tandem = through_tandem::drain(backlog).await;
    eprintln!("{label}, round {round}: through a secondary");
    let secondary = native::drain(backlog).await;
    eprintln!("{label}, round {round}: through a bare loop");
    let bare = bare::drain_in_parts(backlog).await;
    Round {
        tandem,
        secondary,
        bare,
    }
}

fn row(label: &str, rounds: &[Round]) -> Vec<String> {
    let of = |number: &dyn Fn(&Round) -> Option<f64>, digits| {
        shown(median(rounds.iter().filter_map(number)), digits)
    };
    let tandem = |round: &Round| round.tandem.rate();
    let secondary = |round: &Round| round.secondary.rate();
    let bare = |round: &Round| round.bare.whole.rate();
    let first = |round: &Round| round.tandem.rate_from_first();
    let of_bare = |round: &Round| round.bare.whole.rate_from_first();
    let cpu = |round: &Round| round.tandem.cpu.program;
    vec![
        label.to_owned(),
        of(&|round| Some(tandem(round)), 0),
        of(&|round| Some(secondary(round)), 0),
        of(&|round| Some(tandem(round) / secondary(round)), 2),
        of(&|round| Some(bare(round)), 0),
        of(&|round| Some(tandem(round) / bare(round)), 2),
        of(&|round| Some(round.tandem.first?.as_secs_f64()), 2),
        of(&first, 0),
        of(&|round| Some(first(round)? / secondary(round)), 2),
        of(&|round| Some(first(round)? / of_bare(round)?), 2),
        of(&|round| Some(round.tandem.memory.peak_megabytes), 0),
        of(&|round| Some(round.tandem.microseconds(cpu(round))), 1),
        of(&|round| Some(cpu(round) / round.bare.whole.cpu.program), 2),
    ]
}

/// Somebody's drain of a round.
type Pick = fn(&Round) -> &Drain;

fn rows_of_processes(label: &str, rounds: &[Round]) -> Vec<Vec<String>> {
    let who: [(&str, Pick); 5] = [
        ("tandem", |round| &round.tandem),
        ("bare loop", |round| &round.bare.whole),
        ("its reading alone", |round| &round.bare.reading),
        ("its writing alone", |round| &round.bare.writing),
        ("secondary", |round| &round.secondary),
    ];
    let row = |(name, drain): (&str, Pick)| {
        let of = |number: &dyn Fn(&Drain) -> f64, digits| {
            let numbers = rounds.iter().map(|round| number(drain(round)));
            shown(median(numbers), digits)
        };
        vec![
            format!("{label}: {name}"),
            of(&|drain| drain.rate(), 0),
            of(&|drain| drain.microseconds(drain.cpu.source), 1),
            of(&|drain| drain.microseconds(drain.cpu.program), 1),
            of(&|drain| drain.microseconds(drain.cpu.target), 1),
            of(&|drain| drain.microseconds(drain.cpu.of_all()), 1),
            of(&|drain| drain.cores_busy(), 2),
        ]
    };
    who.into_iter().map(row).collect()
}
