//! What a process takes, as the kernel counts it.

/// Ticks of a second in /proc; 100 on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one process has taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resources {
    pub peak_megabytes: f64,
    pub cpu_seconds: f64,
}

impl Resources {
    /// What a living process has taken so far.
    pub fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))?;
        let peak_kilobytes: u64 = peak.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            peak_megabytes: peak_kilobytes as f64 / 1024.0,
            cpu_seconds: cpu_seconds(&pid.to_string())?,
        })
    }
}

/// What this program has taken so far.
pub fn own_cpu_seconds() -> f64 {
    cpu_seconds("self").expect("this process lives")
}

fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
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
