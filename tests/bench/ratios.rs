//! How the rate of a drain changes with what is drained: each case beside the one it is compared with,
//! in the same run.

use crate::cases::{Case, Group};
use crate::measured::Drain;
use crate::report::{median, print_table, shown};
use crate::through_tandem;

/// Rounds go through all cases in turn, so that a machine that gets slower does so for all of them.
pub async fn print(group: Group, rounds: usize, operations: Option<usize>) {
    let cases = group.cases(operations);
    let mut of_cases: Vec<Vec<Drain>> = vec![Vec::new(); cases.len()];
    for round in 1..=rounds {
        for (case, drains) in cases.iter().zip(&mut of_cases) {
            eprintln!("{}, round {round}: {}", group.name(), case.name);
            drains.push(through_tandem::drain_with(&case.backlog, &case.settings).await);
        }
    }
    let head = [
        group.name(),
        "op/s",
        "MB/s",
        "ratio",
        "from the first operation on, op/s",
        "ratio",
    ];
    let rows: Vec<_> = cases
        .iter()
        .zip(&of_cases)
        .map(|(case, drains)| {
            let base = case
                .compared_with
                .map(|at| (&cases[at], of_cases[at].as_slice()));
            row(case, drains, base)
        })
        .collect();
    print_table(&head, &rows);
}

fn row(case: &Case, drains: &[Drain], base: Option<(&Case, &[Drain])>) -> Vec<String> {
    let whole = |drain: &Drain| Some(drain.rate());
    let later = Drain::rate_from_first;
    let ratio = |of: &dyn Fn(&Drain) -> Option<f64>| {
        let (base, of_base) = base?;
        let unit = |case: &Case| match case.by_bytes {
            true => case.backlog.document_bytes as f64,
            false => 1.0,
        };
        Some(of_median(drains, of)? * unit(case) / (of_median(of_base, of)? * unit(base)))
    };
    let rate = of_median(drains, whole);
    let megabytes = rate.map(|rate| rate * case.backlog.document_bytes as f64 / 1e6);
    vec![
        case.name.clone(),
        shown(rate, 0),
        shown(megabytes, 1),
        shown(ratio(&whole), 2),
        shown(of_median(drains, later), 0),
        shown(ratio(&later), 2),
    ]
}

fn of_median(drains: &[Drain], of: impl Fn(&Drain) -> Option<f64>) -> Option<f64> {
    median(drains.iter().filter_map(of))
}
