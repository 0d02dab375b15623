//! The benchmarks that need servers. `scripts/bench` runs them part by part and keeps what they print.

mod backlog;
mod bare;
mod cases;
mod copy;
mod drain;
mod latency;
mod log;
mod measured;
mod memory;
mod native;
mod part;
mod ratios;
mod report;
mod resources;
mod start;
mod support;
mod through_tandem;

use std::process::ExitCode;
use std::time::Duration;

use part::{Arguments, Part};
use support::mongod::MongodOptions;

/// Holds every backlog, and what a copy writes.
const OPLOG_MEGABYTES: u32 = 4096;

/// Holds the documents and the five minutes of their history that a server keeps: with less, what is
/// measured is how the server writes pages out.
const CACHE_GIGABYTES: &str = "1";

/// Longest time for one backlog to drain, or one copy to end.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1800);

const DOCUMENT_BYTES: usize = 1024;

/// A server with room for what the benchmarks do.
fn roomy(set_name: &str) -> MongodOptions {
    MongodOptions {
        oplog_megabytes: OPLOG_MEGABYTES,
        cache_gigabytes: CACHE_GIGABYTES,
        ..MongodOptions::named(set_name)
    }
}

/// As tandem has it: what the bare loop lacks is to be safety alone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(arguments) = Arguments::of(std::env::args().skip(1)) else {
        eprintln!("{}", part::usage());
        return ExitCode::from(2);
    };
    let (rounds, number) = (arguments.rounds, arguments.number);
    match arguments.part {
        Part::Drain => drain::print(rounds, number).await,
        Part::Memory => memory::print(rounds, number).await,
        Part::Latency => latency::print(rounds).await,
        Part::Copy => copy::print(rounds, number).await,
        Part::Start => start::print(rounds, number).await,
        Part::Log => log::print(number).await,
        Part::Ratios(group) => ratios::print(group, rounds, number).await,
    }
    ExitCode::SUCCESS
}
