//! How long a server may take to go through a part of its history.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Cluster;

/// How long the server may take for one answer. It answers once it has found something that passes,
/// or has come to the end: behind a backlog of which nothing passes that takes as long as it takes.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub time_max: Duration,
    /// The last answer, or the lack of one.
    pub took: Duration,
}

/// To go through the largest of oplogs.
const PATIENCE_MAX: Duration = Duration::from_secs(3600);

impl Patience {
    /// As much as any call of the cluster may take.
    pub fn usual(cluster: &Cluster) -> Self {
        Self {
            time_max: cluster.operation_timeout,
            took: Duration::ZERO,
        }
    }

    /// Where only this answer of a cluster that is well has taken too long, the next one may take
    /// longer.
    pub async fn learn(&mut self, cluster: &Cluster) {
        let Self { time_max, took } = *self;
        if took < time_max || !cluster.answers().await {
            return;
        }
        self.time_max = (time_max * 2).min(PATIENCE_MAX.max(time_max));
        let time_max_s = self.time_max.as_secs_f64();
        tracing::info!(cluster = %cluster.name, time_max_s, "the cluster is well, reading its history may take longer");
    }
}

/// An answer, and how long it took.
pub async fn timed<T>(answer: impl Future<Output = T>) -> (T, Duration) {
    let asked_at = Instant::now();
    let answer = answer.await;
    (answer, asked_at.elapsed())
}
