//! What must hold once everything has been applied.

use tandem::change::Side;

use crate::cluster::{Change, Cluster, LocalWrite, Writes, id_before};
use crate::link::Link;
use crate::options::Before;

/// What was found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    Stuck,
    Diverged,
    /// A write that saw the final state was thrown away for it.
    CausalityBroken,
    /// A write is neither in the final state nor on record.
    LoserNotLogged,
    /// A record says that a write came back, and it did not.
    FalselyOverturned,
    /// A write of the final state is on record as lost.
    WinnerLogged,
    /// The ledger still holds something that nothing waits for.
    Leaked,
    OnTheWay(&'static str),
}

pub fn check(link: &Link) -> Result<(), Failure> {
    if let Some(what) = link.broken_on_the_way {
        return Err(Failure::OnTheWay(what));
    }
    for key in 0..link.options.keys {
        let (a, b) = (link.clusters.a.now(key), link.clusters.b.now(key));
        if a.document != b.document {
            return Err(Failure::Diverged);
        }
    }
    for side in Side::BOTH {
        for write in link.clusters[side].local_writes() {
            let final_writes =
                link.clusters.a.now(write.key).seen | link.clusters.b.now(write.key).seen;
            check_write(link, write, final_writes)?;
        }
    }
    for key in 0..link.options.keys {
        for side in Side::BOTH {
            check_before(link, side, key)?;
        }
    }
    check_nothing_is_left(link)
}

/// What was there before the start lives on, is on record, or went with a write that had seen it:
/// a delete, or one that is on record itself with the whole document.
fn check_before(link: &Link, side: Side, key: usize) -> Result<(), Failure> {
    let bit: Writes = 1 << id_before(side, key);
    let has = |writes: Writes| writes & bit != 0;
    let is_logged = |id: usize| {
        let on = |side: Side| link.clusters[side].records.contains_key(&id);
        Side::BOTH.into_iter().any(on)
    };
    let clusters = [&link.clusters.a, &link.clusters.b];
    let is_final = clusters.iter().any(|cluster| has(cluster.now(key).seen));
    let lives = is_final
        || clusters
            .iter()
            .any(|cluster| has(cluster.identical) || has(cluster.both_absent));
    let gone = clusters
        .iter()
        .flat_map(|cluster| cluster.local_writes())
        .filter(|write| write.key == key && has(write.seen))
        .any(|write| matches!(write.change, Change::Delete) || is_logged(write.id));
    let merged = link.options.before == Before::Merged;
    if merged && is_final && is_logged(id_before(side, key)) {
        return Err(Failure::WinnerLogged);
    }
    let was_there = has(link.clusters[side].read_at(key, 0).seen);
    // Without a merge, deltas go to documents that nobody has compared.
    let counts = was_there && link.options.before != Before::Settled;
    match !counts || lives || is_logged(id_before(side, key)) || gone {
        true => Ok(()),
        false => Err(Failure::LoserNotLogged),
    }
}

fn check_write(link: &Link, write: &LocalWrite, final_writes: Writes) -> Result<(), Failure> {
    let records = Side::BOTH.map(|side| link.clusters[side].records.get(&write.id).copied());
    let is_logged = records.iter().any(Option::is_some);
    let stands = records.contains(&Some(false));
    let is_overturned = records.contains(&Some(true));
    let is_final = final_writes & (1 << write.id) != 0;
    // A side may be told to win though its document is not even there.
    let told = link.options.before == Before::Merged && link.options.from.is_some();
    if !is_final && final_writes & !write.seen == 0 && !(told && is_logged) {
        return Err(Failure::CausalityBroken);
    }
    let is_in = |of: fn(&Cluster) -> Writes| {
        (of(&link.clusters.a) | of(&link.clusters.b)) & (1 << write.id) != 0
    };
    if is_in(|cluster| cluster.identical) {
        return Ok(());
    }
    if is_in(|cluster| cluster.both_absent) {
        return match is_final || is_logged || is_deleted_for_good(link, write) {
            true => Ok(()),
            false => Err(Failure::LoserNotLogged),
        };
    }
    match is_final {
        true if stands => Err(Failure::WinnerLogged),
        false if is_overturned => Err(Failure::FalselyOverturned),
        false if !is_logged => Err(Failure::LoserNotLogged),
        true | false => Ok(()),
    }
}

/// Whether it is a delete, or one that had seen it is not on record as lost.
fn is_deleted_for_good(link: &Link, write: &LocalWrite) -> bool {
    let is_lost = |id: &usize| {
        Side::BOTH
            .into_iter()
            .any(|side| link.clusters[side].records.get(id) == Some(&false))
    };
    Side::BOTH
        .into_iter()
        .flat_map(|side| link.clusters[side].local_writes())
        .filter(|later| matches!(later.change, Change::Delete))
        .filter(|later| later.key == write.key && later.seen & (1 << write.id) != 0)
        .any(|later| later.id == write.id || !is_lost(&later.id))
}

fn check_nothing_is_left(link: &Link) -> Result<(), Failure> {
    let clusters = [&link.clusters.a, &link.clusters.b];
    let paid = clusters
        .iter()
        .flat_map(|cluster| &cluster.notes)
        .any(|notes| notes.paid.is_some());
    let owing = (0..link.options.keys).filter(|key| {
        clusters
            .iter()
            .any(|cluster| cluster.notes[*key].owed.is_some())
    });
    let queued = Side::BOTH
        .iter()
        .any(|side| link.ledger.queue_bytes(*side) > 0);
    if paid || queued || link.ledger.entries() > owing.count() {
        return Err(Failure::Leaked);
    }
    Ok(())
}
