//! Until when former processes wrote documents of applications, as far as this host knows.

use bson::Timestamp;

use super::checkpoints::FoundCheckpoint;
use super::history::History;
use crate::change::{Pair, PipelineId};
use crate::error::Result;
use crate::store::{Store, StoredCheckpoint};

/// By cluster, a time after which no former process has written a document of an application there.
/// It is the moment of the start wherever somebody may have done so unknown to this host.
///
/// `before` is the history as it was found, `history` as it is once no former process can commit any
/// more.
///
/// # Errors
/// As the store says.
pub(super) fn written_until(
    store: &Store,
    before: &History,
    history: &History,
    recover_to: Pair<Timestamp>,
) -> Result<Pair<Timestamp>> {
    let stored = store.checkpoints()?;
    let mut until = recover_to;
    for pipeline in PipelineId::BOTH {
        let stored: Vec<_> = stored
            .iter()
            .filter(|one| one.pipeline == pipeline)
            .collect();
        let [before, now] = [before, history].map(|one| &*one.checkpoints[pipeline.source()]);
        if let Some(known) = known_until(&stored, before, now) {
            until[pipeline.target()] = known;
        }
    }
    Ok(until)
}

/// Every commit of a lane moves its checkpoint, so lanes that stand where this host has left them have
/// committed nothing since. A former process of another host would have raised their epoch.
fn known_until(
    stored: &[&StoredCheckpoint],
    before: &[FoundCheckpoint],
    now: &[FoundCheckpoint],
) -> Option<Timestamp> {
    let is_complete = stored.len() == now.len() && before.len() == now.len();
    let mut lanes = stored.iter().zip(before).zip(now);
    let stands_still = lanes.all(|((stored, before), now)| {
        (stored.lane, stored.lanes, stored.epoch) == (before.lane, before.lanes, before.epoch)
            && (stored.lane, stored.lanes, stored.seq) == (now.lane, now.lanes, now.sequence)
            && stored.applied == now.applied
    });
    if !is_complete || !stands_still {
        return None;
    }
    let of_lanes: Option<Vec<Timestamp>> = stored.iter().map(|one| one.written_until).collect();
    of_lanes?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{AppliedThrough, Position};

    fn at(time: u32) -> Timestamp {
        Timestamp { time, increment: 1 }
    }

    fn applied(lane: usize) -> AppliedThrough {
        AppliedThrough(Position::before(at(50 + lane as u32), "82").unwrap())
    }

    /// Two lanes as a host has left them in epoch 7.
    fn stored() -> [StoredCheckpoint; 2] {
        [(0, 30), (1, 40)].map(|(lane, written_until)| StoredCheckpoint {
            pipeline: PipelineId::AToB,
            lane,
            lanes: 2,
            epoch: 7,
            seq: 9,
            applied: applied(lane),
            written_until: Some(at(written_until)),
        })
    }

    fn found(epoch: i64) -> [FoundCheckpoint; 2] {
        [0, 1].map(|lane| FoundCheckpoint {
            ahead: None,
            lane,
            lanes: 2,
            epoch,
            sequence: 9,
            applied: applied(lane),
        })
    }

    fn known(
        stored: &[StoredCheckpoint],
        before: &[FoundCheckpoint],
        now: &[FoundCheckpoint],
    ) -> Option<Timestamp> {
        known_until(&stored.iter().collect::<Vec<_>>(), before, now)
    }

    #[test]
    fn lanes_that_stand_where_this_host_left_them_have_written_nothing_since() {
        assert_eq!(known(&stored(), &found(7), &found(8)), Some(at(40)));
    }

    #[test]
    fn a_host_that_does_not_know_every_commit_knows_nothing() {
        let changed = |change: fn(&mut FoundCheckpoint)| {
            let mut now = found(8);
            change(&mut now[1]);
            known(&stored(), &found(7), &now)
        };
        assert_eq!(changed(|lane| lane.sequence += 1), None);
        assert_eq!(changed(|lane| lane.applied = applied(0)), None);
        assert_eq!(changed(|lane| lane.lanes = 3), None);
        assert_eq!(known(&stored(), &found(8), &found(9)), None);
        assert_eq!(known(&stored()[..1], &found(7), &found(8)), None);
        assert_eq!(known(&[], &[], &[]), None);

        let mut older_tandem = stored();
        older_tandem[0].written_until = None;
        assert_eq!(known(&older_tandem, &found(7), &found(8)), None);
    }
}
