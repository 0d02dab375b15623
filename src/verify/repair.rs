//! What a comparison has found is settled by the link, and looked at again.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::lookup::{FIND_KEYS_MAX, Sought, digests, with_tries};
use super::outcome::{DifferenceKind, Verification};
use super::schema::plan;
use crate::change::{DocumentKey, Namespace, Pair, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Result;
use crate::link::both_clusters::with_both;
use crate::link::merge::{RepairKey, Repairs, repair_from_outside};
use crate::link::{self, RunOptions, Work};
use crate::resolve::Tally;

/// Between two looks at documents that still differ: they may be on their way.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// What a repair has come to.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Repaired {
    #[serde(flatten)]
    pub tally: Tally,
    /// Documents that still differ.
    pub left: u64,
}

/// Has the running link settle every document that was found to differ, or runs the link for that
/// where none runs, and takes what is equal then off the findings.
///
/// # Errors
/// As the running link, or a run of it, says.
pub async fn repair(
    config: &Config,
    found: &mut Verification,
    from: Option<Side>,
    settle_time_max: Duration,
    stop: CancellationToken,
) -> Result<Repaired> {
    let only_on = |kind: DifferenceKind| match kind {
        DifferenceKind::MissingOnA => Some(Side::B),
        DifferenceKind::MissingOnB => Some(Side::A),
        DifferenceKind::Fields | DifferenceKind::FieldOrder => None,
    };
    let differing = found.differing.iter();
    let repairs = Repairs {
        keys: differing
            .map(|one| RepairKey::of(&one.key, only_on(one.kind)))
            .collect(),
        from,
        ..Repairs::default()
    };
    if !repairs.keys.is_empty() && !repair_from_outside(config, &repairs).await? {
        let options = RunOptions {
            until_caught_up: true,
            work: Work::Repair(repairs.clone()),
            ..RunOptions::default()
        };
        link::run(config, options, stop).await?;
    }
    with_both(config, async |clusters| {
        look_again(config, clusters, found, settle_time_max).await
    })
    .await?;
    let tally = repairs.tally.lock();
    Ok(Repaired {
        tally: *tally.unwrap_or_else(PoisonError::into_inner),
        left: found.differing.len() as u64,
    })
}

/// Reads what differed until it is equal, for as long as that may still be on its way.
async fn look_again(
    config: &Config,
    clusters: &Pair<Cluster>,
    found: &mut Verification,
    settle_time_max: Duration,
) -> Result<()> {
    let started = Instant::now();
    loop {
        let mut by_namespace: HashMap<Namespace, Vec<DocumentKey>> = HashMap::new();
        for one in &found.differing {
            let keys = by_namespace.entry(one.key.namespace().clone()).or_default();
            keys.push(one.key.clone());
        }
        let mut equal: Vec<DocumentKey> = Vec::new();
        for (namespace, keys) in by_namespace {
            let sought = &Sought::of(config, &namespace);
            for some in keys.chunks(FIND_KEYS_MAX) {
                let (a, b) = with_tries(|| async {
                    tokio::try_join!(
                        digests(&clusters.a, sought, some),
                        digests(&clusters.b, sought, some)
                    )
                })
                .await?;
                let same = |key: &&DocumentKey| a.get(*key) == b.get(*key);
                equal.extend(some.iter().filter(same).cloned());
            }
        }
        for key in &equal {
            found.counts(key.namespace().as_str()).differing -= 1;
            found.differing.retain(|one| one.key != *key);
        }
        if found.differing.is_empty() || started.elapsed() >= settle_time_max {
            break;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    let mut patterns = found.namespaces.keys().cloned().collect::<Vec<_>>();
    patterns.extend(found.schema.iter().map(|one| one.namespace.clone()));
    found.schema = match patterns.is_empty() {
        true => Vec::new(),
        false => plan(config, clusters, &patterns).await?.schema,
    };
    Ok(())
}
