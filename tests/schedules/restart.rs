//! What a start finds on the clusters.

use tandem::change::{AppliedThrough, Pair, Side};
use tandem::resolve::{Ledger, Spool};

use crate::cluster::{Cluster, timestamp};
use crate::options::{Broken, Options};
use crate::spool::SpoolInMemory;

/// The ledger that a start begins with.
pub fn new_ledger(options: &Options, clusters: &Pair<Cluster>) -> Ledger {
    let checkpoints = |side: Side| {
        let stored = clusters[side.other()].checkpoints.iter();
        let through = stored.map(|checkpoint| checkpoint.through.clone());
        through.map(AppliedThrough).collect()
    };
    let mut ledger = Ledger::new(
        options.rules,
        Pair::new(checkpoints(Side::A), checkpoints(Side::B)),
        Pair::new(timestamp(clusters.a.time), timestamp(clusters.b.time)),
    );
    for side in Side::BOTH {
        let stored = clusters[side.other()].checkpoints.iter();
        let ahead = stored.map(|checkpoint| checkpoint.ahead.clone());
        for (lane, ahead) in ahead
            .enumerate()
            .filter(|_| options.broken != Broken::Ahead)
        {
            ahead
                .into_iter()
                .for_each(|ahead| ledger.resume_ahead(side, lane, ahead));
        }
    }
    let spool = || Box::new(SpoolInMemory::default()) as Box<dyn Spool>;
    ledger.bound(options.room, Pair::new(spool(), spool()));
    ledger
}
