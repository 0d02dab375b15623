//! How much of a cluster's oplog the link has left before its resume point is gone.

use std::time::Duration;

use bson::{Bson, Document, Timestamp, doc};

use crate::cluster::Cluster;
use crate::error::Result;
use crate::source::oldest_entry;

/// The part of the window that may be used up without a word.
const USED_PERCENT_MAX: u64 = 50;

/// A window that is short is looked at this often while it lasts.
const LOOKS_IN_A_WINDOW: u32 = 10;
const LOOK_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// A cluster's oplog, as it is now.
#[derive(Debug, Clone, Copy)]
pub struct OplogWindow {
    oldest: Timestamp,
    now: Timestamp,
    /// Bytes that it holds, and that it may hold; none where the account may not ask.
    filled: Option<(u64, u64)>,
}

impl OplogWindow {
    /// # Errors
    /// As the cluster says.
    pub async fn read(cluster: &Cluster) -> Result<Option<Self>> {
        let Some(oldest) = oldest_entry(cluster).await? else {
            return Ok(None);
        };
        let hello = doc! { "hello": 1 };
        let reply = cluster.command("admin", hello, "read the time").await?;
        let Ok(now) = reply.get_timestamp("operationTime") else {
            return Ok(None);
        };
        let stats = doc! { "collStats": "oplog.rs" };
        let stats = cluster.command("local", stats, "read the oplog's size");
        let filled = stats.await.ok().and_then(|stats| {
            let bytes = |name: &str| whole(&stats, name);
            Some((bytes("size")?, bytes("maxSize")?))
        });
        Ok(Some(Self {
            oldest,
            now,
            filled,
        }))
    }

    /// From its oldest entry to now.
    pub fn seconds(&self) -> u64 {
        u64::from(self.now.time.saturating_sub(self.oldest.time))
    }

    /// How long a window it will be once the oplog is full and loses its oldest entries.
    fn seconds_when_full(&self) -> u64 {
        match self.filled {
            Some((bytes, bytes_max)) if bytes > 0 && bytes < bytes_max => {
                // A cluster that has just begun has written its oplog in no whole second yet.
                let whole = u128::from(self.seconds().max(1)) * u128::from(bytes_max);
                u64::try_from(whole / u128::from(bytes)).unwrap_or(u64::MAX)
            }
            Some(_) | None => self.seconds(),
        }
    }

    /// How far behind a resume point is, in seconds, where that is more than half of the window.
    pub fn too_far_behind(&self, applied: Timestamp) -> Option<u64> {
        let behind = u64::from(self.now.time.saturating_sub(applied.time));
        let used = behind.saturating_mul(100);
        let may_use = self.seconds_when_full().saturating_mul(USED_PERCENT_MAX);
        (used > may_use).then_some(behind)
    }

    /// How long from now until the oplog no longer holds what comes after `applied`, if the link
    /// stands still and the writes go on as they do.
    pub fn seconds_left(&self, applied: Timestamp) -> u64 {
        let behind = u64::from(self.now.time.saturating_sub(applied.time));
        self.seconds_when_full().saturating_sub(behind)
    }

    /// When to look again.
    pub fn look_again_in(&self, interval_max: Duration) -> Duration {
        let part = Duration::from_secs(self.seconds_when_full()) / LOOKS_IN_A_WINDOW;
        part.clamp(LOOK_INTERVAL_MIN, interval_max)
    }
}

fn whole(document: &Document, name: &str) -> Option<u64> {
    match document.get(name)? {
        Bson::Int32(number) => u64::try_from(*number).ok(),
        Bson::Int64(number) => u64::try_from(*number).ok(),
        Bson::Double(number) => Some(*number as u64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(time: u32) -> Timestamp {
        Timestamp { time, increment: 1 }
    }

    fn window(filled: Option<(u64, u64)>) -> OplogWindow {
        OplogWindow {
            oldest: at(1000),
            now: at(1100),
            filled,
        }
    }

    #[test]
    fn half_of_a_full_window_is_too_far() {
        for filled in [None, Some((10, 10)), Some((12, 10))] {
            assert_eq!(window(filled).too_far_behind(at(1050)), None);
            assert_eq!(window(filled).too_far_behind(at(1049)), Some(51));
        }
    }

    #[test]
    fn an_oplog_that_is_still_filling_up_is_measured_by_its_window_when_full() {
        let filling = window(Some((10, 40)));
        assert_eq!(filling.too_far_behind(at(1000)), None);
        assert_eq!(filling.seconds(), 100);
        assert_eq!(window(Some((0, 10))).too_far_behind(at(1000)), Some(100));
    }

    #[test]
    fn what_is_left_is_the_window_when_full_less_how_far_behind_the_link_is() {
        assert_eq!(window(None).seconds_left(at(1100)), 100);
        assert_eq!(window(None).seconds_left(at(1030)), 30);
        assert_eq!(window(Some((10, 40))).seconds_left(at(1030)), 330);
        assert_eq!(window(None).seconds_left(at(900)), 0);
        let just_begun = OplogWindow {
            now: at(1000),
            ..window(Some((10, 40)))
        };
        assert_eq!(just_begun.seconds_left(at(1000)), 4);
    }

    #[test]
    fn a_short_window_is_looked_at_more_often() {
        let max = Duration::from_secs(30);
        let again = |filled| window(filled).look_again_in(max).as_secs();
        assert_eq!(again(None), 10);
        assert_eq!(again(Some((1, 1000))), 30);
    }
}
