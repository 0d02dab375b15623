//! What came of draining a backlog once.

use std::time::Duration;

use crate::resources::{Cpu, Memory};

#[derive(Debug, Clone, Default)]
pub struct Drain {
    pub operations: usize,
    pub time: Duration,
    /// How long it took until the first operation was on the target.
    pub first: Option<Duration>,
    pub cpu: Cpu,
    pub memory: Memory,
}

impl Drain {
    /// Operations a second, from the start of the clock to the end.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.time.as_secs_f64()
    }

    /// From the moment the first operation was on the target.
    pub fn rate_from_first(&self) -> Option<f64> {
        Some(self.operations as f64 / (self.time - self.first?).as_secs_f64())
    }

    pub fn microseconds(&self, cpu_seconds: f64) -> f64 {
        cpu_seconds * 1e6 / self.operations as f64
    }

    pub fn cores_busy(&self) -> f64 {
        self.cpu.of_all() / self.time.as_secs_f64()
    }
}
