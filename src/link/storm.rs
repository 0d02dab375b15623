//! Pauses a link that meets more conflicts than its owner takes for normal.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::pausing::{Pausing, Wanted};
use crate::change::PipelineId;
use crate::error::Result;
use crate::pipeline::Shared;

/// Conflicts are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_secs(1);

/// How many conflicts there were in total, and when that was so.
#[derive(Default)]
struct Window(VecDeque<(Instant, u64)>);

impl Window {
    /// Takes the next total, and returns by how much it has grown within the window.
    fn grown(&mut self, now: Instant, total: u64) -> u64 {
        self.0.push_back((now, total));
        while self.0.front().is_some_and(|(at, _)| now - *at > WINDOW) {
            self.0.pop_front();
        }
        self.0.front().map_or(0, |(_, first)| total - first)
    }
}

/// Pauses all pipelines where more than `most` conflicts come within a minute. What came before a
/// resume does not count after it.
///
/// # Errors
/// As the local store says.
pub(super) async fn pause_in_storms(
    shared: Arc<Shared>,
    pausing: Arc<Pausing>,
    most: u64,
) -> Result<()> {
    let mut window = Window::default();
    loop {
        let grown = window.grown(Instant::now(), conflicts(&shared));
        if grown > most {
            let by = format!("conflicts.pause_above = {most} ({grown} conflicts within a minute)");
            pausing.change(None, Wanted::Paused, &by).await?;
        }
        if pausing.is_paused_whole() || grown > most {
            window = Window::default();
        }
        sleep(INTERVAL).await;
    }
}

fn conflicts(shared: &Shared) -> u64 {
    let of = |id: PipelineId| shared.counters[id.source()].totals().conflicts;
    PipelineId::BOTH.into_iter().map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_within_the_window_counts() {
        let mut window = Window::default();
        let start = Instant::now();
        let mut at =
            |seconds: u64, total| window.grown(start + Duration::from_secs(seconds), total);
        assert_eq!(at(0, 1000), 0);
        assert_eq!(at(30, 1007), 7);
        assert_eq!(at(60, 1010), 10);
        assert_eq!(at(61, 1010), 3);
        assert_eq!(at(200, 1010), 0);
    }
}
