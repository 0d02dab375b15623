//! How fast a backlog drains: through tandem, through a secondary of the same server, and through a
//! bare loop.

mod bare;
mod native;
mod report;
mod resources;
mod support;

// Of these the benchmark needs only a part.
#[allow(dead_code)]
mod backlog;
#[allow(dead_code)]
mod through_tandem;

use std::process::ExitCode;
use std::time::Duration;

use backlog::{Backlog, Place, Shape};
use report::{Round, Row, print_rows};

/// How many operations make the backlog, unless the command line says otherwise.
const OPERATIONS: usize = 60_000;
const OPERATIONS_OF_MEMORY: usize = 1_000_000;
const DOCUMENT_BYTES: usize = 1024;
const DOCUMENT_BYTES_OF_MEMORY: usize = 100;

/// Holds every backlog that this program makes.
const OPLOG_MEGABYTES: u32 = 2048;

/// Holds the documents and the five minutes of their history that a server keeps: with less, what is
/// measured is how the server writes pages out.
const CACHE_GIGABYTES: &str = "1";

/// Longest time for one backlog to drain.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(600);

struct Arguments {
    operations: usize,
    rounds: usize,
    memory: bool,
}

fn arguments() -> Option<Arguments> {
    let mut operations = None;
    let (mut rounds, mut memory) = (1, false);
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            // Of cargo bench.
            "--bench" => {}
            "--memory" => memory = true,
            "--rounds" => rounds = given.next()?.parse().ok().filter(|rounds| *rounds > 0)?,
            number => operations = Some(number.parse().ok()?),
        }
    }
    let usual = match memory {
        true => OPERATIONS_OF_MEMORY,
        false => OPERATIONS,
    };
    Some(Arguments {
        operations: operations.unwrap_or(usual),
        rounds,
        memory,
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("usage: scripts/bench [OPERATIONS] [--rounds N] [--memory]");
        return ExitCode::from(2);
    };
    if arguments.memory {
        memory(&arguments).await;
    } else {
        speed(&arguments).await;
    }
    ExitCode::SUCCESS
}

async fn speed(arguments: &Arguments) {
    let backlogs =
        Shape::ALL.map(|shape| Backlog::new(shape, arguments.operations, DOCUMENT_BYTES));
    let mut drained = Vec::new();
    for backlog in &backlogs {
        let mut rounds = Vec::new();
        for round in 1..=arguments.rounds {
            let label = backlog.label();
            eprintln!("{label}, round {round}: through tandem");
            let tandem = through_tandem::drain(backlog).await;
            eprintln!("{label}, round {round}: through a secondary");
            let secondary = Some(native::drain(backlog).await);
            eprintln!("{label}, round {round}: through a bare loop");
            let bare = Some(bare::drain(backlog).await);
            rounds.push(Round {
                tandem,
                secondary,
                bare,
            });
        }
        drained.push(rounds);
    }
    let both = backlogs.iter().zip(&drained);
    let rows: Vec<Row<'_>> = both
        .map(|(backlog, rounds)| Row::of(backlog, rounds))
        .collect();
    print_rows(&rows);
}

/// Nothing beside it: what counts is the memory of a long backlog, wherever it is. Documents of 1 KB come
/// a fifth as often.
async fn memory(arguments: &Arguments) {
    let operations = arguments.operations;
    let small = |place| Backlog {
        place,
        ..Backlog::new(Shape::Inserts, operations, DOCUMENT_BYTES_OF_MEMORY)
    };
    let backlogs = [
        small(Place::OneSide),
        Backlog::new(Shape::Inserts, operations / 5, DOCUMENT_BYTES),
        small(Place::OneWay),
        small(Place::BothSides),
    ];
    let mut drained = Vec::new();
    for backlog in &backlogs {
        let mut rounds = Vec::new();
        for round in 1..=arguments.rounds {
            eprintln!("{}, round {round}: through tandem", backlog.label());
            rounds.push(Round {
                tandem: through_tandem::drain(backlog).await,
                secondary: None,
                bare: None,
            });
        }
        print_rows(&[Row::of(backlog, &rounds)]);
        drained.push(rounds);
    }
    let both = backlogs.iter().zip(&drained);
    let rows: Vec<Row<'_>> = both
        .map(|(backlog, rounds)| Row::of(backlog, rounds))
        .collect();
    print_rows(&rows);
}
