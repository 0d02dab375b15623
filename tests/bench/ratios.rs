//! How the rate of a drain changes with what is drained: each case beside the one it is compared with,
//! and where its group says so beside the bare loop, in the same run.

use crate::cases::{Case, Group};
use crate::measured::Drain;
use crate::report::{median, print_table, shown};
use crate::{bare, through_tandem};

/// What one case came to, a round after the other.
#[derive(Default)]
struct Rounds {
    tandem: Vec<Drain>,
    bare: Vec<Drain>,
}

/// Rounds go through all cases in turn, so that a machine that gets slower does so for all of them.
pub async fn print(group: Group, rounds: usize, operations: Option<usize>) {
    let cases = group.cases(operations);
    let mut of_cases: Vec<Rounds> = cases.iter().map(|_| Rounds::default()).collect();
    for round in 1..=rounds {
        for (case, of_case) in cases.iter().zip(&mut of_cases) {
            let told = format!("{}, round {round}: {}", group.name(), case.name);
            eprintln!("{told}: through tandem");
            let drain = through_tandem::drain_with(&case.backlog, &case.settings).await;
            of_case.tandem.push(drain);
            if group.is_beside_bare() {
                eprintln!("{told}: through a bare loop");
                of_case.bare.push(bare::drain(&case.backlog).await);
            }
        }
    }
    let mut head = vec![
        group.name(),
        "op/s",
        "MB/s",
        "ratio",
        "from the first operation on, op/s",
        "ratio",
    ];
    if group.is_beside_bare() {
        head.extend([
            "bare loop, op/s",
            "MB/s",
            "ratio",
            "tandem to bare",
            "from the first operation on",
        ]);
    }
    let rows: Vec<_> = cases
        .iter()
        .zip(&of_cases)
        .map(|(case, rounds)| {
            let base = case.compared_with.map(|at| (&cases[at], &of_cases[at]));
            row(case, rounds, base)
        })
        .collect();
    print_table(&head, &rows);
}

fn row(case: &Case, rounds: &Rounds, base: Option<(&Case, &Rounds)>) -> Vec<String> {
    let whole = |drain: &Drain| Some(drain.rate());
    let later = Drain::rate_from_first;
    let ratio = |drains: fn(&Rounds) -> &[Drain], of: &dyn Fn(&Drain) -> Option<f64>| {
        let (base, of_base) = base?;
        let unit = |case: &Case| match case.by_bytes {
            true => case.backlog.document_bytes as f64,
            false => 1.0,
        };
        let measured = of_median(drains(rounds), of)? * unit(case);
        Some(measured / (of_median(drains(of_base), of)? * unit(base)))
    };
    let megabytes = |rate: Option<f64>| {
        let megabytes = rate.map(|rate| rate * case.backlog.document_bytes as f64 / 1e6);
        shown(megabytes, 1)
    };
    let tandem = of_median(&rounds.tandem, whole);
    let mut cells = vec![
        case.name.clone(),
        shown(tandem, 0),
        megabytes(tandem),
        shown(ratio(|of| &of.tandem, &whole), 2),
        shown(of_median(&rounds.tandem, later), 0),
        shown(ratio(|of| &of.tandem, &later), 2),
    ];
    if !rounds.bare.is_empty() {
        let bare = of_median(&rounds.bare, whole);
        cells.extend([
            shown(bare, 0),
            megabytes(bare),
            shown(ratio(|of| &of.bare, &whole), 2),
            shown(to_bare(rounds, whole), 2),
            shown(to_bare(rounds, later), 2),
        ]);
    }
    cells
}

fn of_median(drains: &[Drain], of: impl Fn(&Drain) -> Option<f64>) -> Option<f64> {
    median(drains.iter().filter_map(of))
}

/// The median of what the rounds come to.
fn to_bare(rounds: &Rounds, of: impl Fn(&Drain) -> Option<f64>) -> Option<f64> {
    let both = rounds.tandem.iter().zip(&rounds.bare);
    median(both.filter_map(|(tandem, bare)| Some(of(tandem)? / of(bare)?)))
}
