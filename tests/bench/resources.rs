//! What processes take, as the kernel counts it.

use std::time::Duration;

use bson::doc;

use crate::support::mongod::Mongod;

/// Ticks of a second in /proc; 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one process has taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resources {
    pub resident_megabytes: f64,
    pub peak_megabytes: f64,
    pub cpu_seconds: f64,
}

impl Resources {
    /// What a living process has taken so far.
    pub fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let megabytes = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kilobytes as f64 / 1024.0)
        };
        Some(Self {
            resident_megabytes: megabytes("VmRSS:")?,
            peak_megabytes: megabytes("VmHWM:")?,
            cpu_seconds: cpu_seconds(pid)?,
        })
    }
}

/// Resident memory of a process while it ran.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    samples: Vec<(Duration, f64)>,
    pub peak_megabytes: f64,
}

impl Memory {
    pub fn push(&mut self, at: Duration, now: &Resources) {
        self.samples.push((at, now.resident_megabytes));
        self.peak_megabytes = now.peak_megabytes;
    }

    /// In megabytes, when so much of the time was over.
    pub fn after(&self, share: f64) -> Option<f64> {
        let (end, _) = self.samples.last()?;
        let then = end.mul_f64(share);
        let index = self.samples.partition_point(|(at, _)| *at < then);
        Some(self.samples[index].1)
    }
}

/// Processor time of those who take part in a drain, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    pub source: f64,
    pub program: f64,
    pub target: f64,
}

impl Cpu {
    pub fn of_all(self) -> f64 {
        self.source + self.program + self.target
    }
}

/// The servers of a drain, and what they had taken before.
pub struct Servers {
    source: Option<(u32, f64)>,
    target: Option<(u32, f64)>,
}

impl Servers {
    pub async fn watch(source: Option<&Mongod>, target: Option<&Mongod>) -> Self {
        Self {
            source: so_far(source).await,
            target: so_far(target).await,
        }
    }

    /// What they have taken since, beside what the program has.
    pub fn taken(&self, program: f64) -> Cpu {
        let taken = |server: Option<(u32, f64)>| {
            server.map_or(0.0, |(pid, before)| {
                cpu_seconds(pid).expect("the server lives") - before
            })
        };
        Cpu {
            source: taken(self.source),
            program,
            target: taken(self.target),
        }
    }
}

async fn so_far(server: Option<&Mongod>) -> Option<(u32, f64)> {
    let status = server?.admin(doc! { "serverStatus": 1 }).await;
    let pid = status.get_i64("pid").expect("a process id") as u32;
    Some((pid, cpu_seconds(pid).expect("the server lives")))
}

/// What this program has taken so far.
pub fn own_cpu_seconds() -> f64 {
    cpu_seconds(std::process::id()).expect("this process lives")
}

fn cpu_seconds(pid: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in brackets; of the rest, the 12th and 13th are times.
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Some(ticks as f64 / TICKS_PER_SECOND)
}
