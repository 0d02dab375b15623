//! Clusters that were set back to a backup: they have forgotten a part of the link's history.

use bson::{DateTime, Timestamp};

use super::checkpoints::FoundCheckpoint;
use super::history::History;
use super::start::Connected;
use crate::change::{Side, rfc3339};
use crate::config::{Config, Mode};
use crate::error::{Error, Result};
use crate::source::{has_entries, oldest_entry};

/// Whatever was read from an oplog was one of its entries, or came right behind one. Longer than
/// any haste between two of them, and shorter than the way to a backup and back.
const GAP_SECONDS_MAX: u32 = 30;

/// What is known of a cluster elsewhere must be a part of its own history. Its oplog ends at the
/// backup and goes on at the restore; a stream that resumes in between goes on without a word.
///
/// # Errors
/// A history error (5).
pub async fn must_hold_what_was_read(
    config: &Config,
    history: &History,
    connected: &Connected,
) -> Result<()> {
    for side in Side::BOTH {
        // The position of a first start is one that the operator may have given.
        let found = history.checkpoints[side].iter();
        let found = found.filter(|found| found.sequence > 0);
        let Some(newest) = found.map(FoundCheckpoint::newest).max() else {
            continue;
        };
        let cluster = &connected.clusters[side];
        let from = Timestamp {
            time: newest.time.saturating_sub(GAP_SECONDS_MAX),
            increment: 0,
        };
        if !has_entries(cluster, from, newest).await? {
            let at = DateTime::from_millis(i64::from(newest.time) * 1000);
            let what = format!(
                "{} has forgotten what was read from it at {}",
                cluster.name,
                rfc3339(at)
            );
            return Err(forgotten(config, side, what));
        }
    }
    Ok(())
}

/// The oplogs must still hold everything after the lowest checkpoints.
///
/// # Errors
/// A history error (5).
pub async fn must_reach_back(history: &History, connected: &Connected) -> Result<()> {
    for side in Side::BOTH {
        let lowest = history.checkpoints[side]
            .iter()
            .map(|found| &found.applied)
            .min();
        let Some(lowest) = lowest else { continue };
        let cluster = &connected.clusters[side];
        let oldest = oldest_entry(cluster).await?;
        if oldest.is_some_and(|oldest| oldest > lowest.0.time) {
            return Err(Error::history(format!(
                "the oplog of {} no longer reaches back to the last checkpoint",
                cluster.name
            ))
            .hint("`tandem resync` begins from now on and merges both sides; a larger oplog helps against it"));
        }
    }
    Ok(())
}

/// `what` one cluster has forgotten, and both ways out of it.
pub fn forgotten(config: &Config, side: Side, what: String) -> Error {
    let (this, other) = (config.clusters[side].name.as_str(), side.other());
    let of_other = config.clusters[other].name.as_str();
    let ways = match config.link.mode {
        Mode::OneWay { from } if from == side => format!(
            "`tandem resync --from {side}` takes from {of_other} what {this} has forgotten, \
             plain `tandem resync` leaves it there",
            side = side.as_str()
        ),
        Mode::OneWay { .. } | Mode::TwoWay => format!(
            "`tandem resync --from {other}` gives {this} the state of {of_other}, \
             plain `tandem resync` merges both",
            other = other.as_str()
        ),
    };
    Error::history(what).hint(format!("was {this} restored from a backup? {ways}"))
}
