//! How the rate of a drain changes with what is drained: each case beside the one it is compared with,
//! in the same run.

mod cases;
mod latency;
mod support;

// Of these the benchmark needs only a part.
#[allow(dead_code)]
mod backlog;
#[allow(dead_code)]
mod report;
#[allow(dead_code)]
mod resources;
#[allow(dead_code)]
mod through_tandem;

use std::process::ExitCode;
use std::time::Duration;

use cases::{Case, Group};

/// Holds every backlog that this program makes.
const OPLOG_MEGABYTES: u32 = 4096;
const CACHE_GIGABYTES: &str = "1";

/// Longest time for one backlog to drain.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(900);

const USAGE: &str = "usage: scripts/bench latency [--rounds N]\n       scripts/bench ratios GROUP… [--rounds N] [--operations N]";

struct Arguments {
    groups: Vec<Group>,
    rounds: usize,
    operations: usize,
}

fn arguments() -> Option<Arguments> {
    let mut arguments = Arguments {
        groups: Vec::new(),
        rounds: 1,
        operations: cases::OPERATIONS,
    };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            // Of cargo bench.
            "--bench" => {}
            "--rounds" => arguments.rounds = given.next()?.parse().ok().filter(|n| *n > 0)?,
            "--operations" => arguments.operations = given.next()?.parse().ok()?,
            word => arguments.groups.push(Group::parse(word)?),
        }
    }
    (!arguments.groups.is_empty()).then_some(arguments)
}

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "latency") {
        latency::print().await;
        return ExitCode::SUCCESS;
    }
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}\ngroups: {}", Group::NAMES.join(", "));
        return ExitCode::from(2);
    };
    for group in &arguments.groups {
        print_group(*group, &arguments).await;
    }
    ExitCode::SUCCESS
}

/// Rounds go through all cases in turn, so that a machine that gets slower does so for all of them.
async fn print_group(group: Group, arguments: &Arguments) {
    let cases = group.cases(arguments.operations);
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); cases.len()];
    for round in 1..=arguments.rounds {
        for (case, rates) in cases.iter().zip(&mut rates) {
            eprintln!("{}, round {round}: {}", group.name(), case.name);
            rates.push(rate(case).await);
        }
    }
    let medians: Vec<f64> = rates.into_iter().map(median).collect();
    println!(
        "| {} | operations/s | MB/s | ratio |\n|---|---:|---:|---:|",
        group.name()
    );
    for (case, rate) in cases.iter().zip(&medians) {
        let megabytes = rate * case.backlog.document_bytes as f64 / 1e6;
        let base = case.compared_with.map(|base| medians[base]);
        let by = |base: f64| match case.by_bytes {
            true => {
                let base_bytes = cases[case.compared_with.unwrap_or(0)]
                    .backlog
                    .document_bytes;
                megabytes / (base * base_bytes as f64 / 1e6)
            }
            false => rate / base,
        };
        let ratio = base.map_or("-".to_owned(), |base| format!("{:.2}", by(base)));
        println!("| {} | {rate:.0} | {megabytes:.1} | {ratio} |", case.name);
    }
    println!();
}

async fn rate(case: &Case) -> f64 {
    let drain = through_tandem::drain_with(&case.backlog, &case.settings).await;
    case.backlog.drained() as f64 / drain.time.as_secs_f64()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}
