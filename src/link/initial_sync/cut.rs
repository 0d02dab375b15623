//! From collections of the source to ranges that can be copied: paired, routed to their lanes and cut.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use futures_util::future::try_join_all;
use tokio::sync::mpsc;

use super::InitialSync;
use super::progress::{NotDone, StoredRange, new_ranges, store_new_ranges, stored_ranges_of_all};
use super::survey::Surveyed;
use crate::change::{Namespace, Side};
use crate::error::Result;
use crate::link::moved::{has_moved, name_now, tell_first};
use crate::pipeline::{Listed, Pairing, Pause, insist, list_all};
use crate::ranges::{Order, RANGE_BYTES_TARGET, Range, Scanned, Size, split_of_size};

/// Collections that are paired and cut together.
const CUT_AT_ONCE: usize = 64;

/// Collections that are cut at the same time.
const CUT_AT_THE_SAME_TIME: usize = 16;

/// A range that is not copied to its end.
pub(super) struct Open {
    pub scanned: Scanned,
    pub range: StoredRange,
    /// How many ranges of its collection are.
    pub left: Arc<AtomicUsize>,
}

/// A collection that is paired, under its lasting name.
struct Ready {
    lasting: Namespace,
    scanned: Scanned,
    ranges: Vec<StoredRange>,
    /// They are not on record yet.
    is_new: bool,
}

type Stored = HashMap<Namespace, Vec<StoredRange>>;

impl InitialSync {
    /// Makes the collections ready some at a time and hands their ranges over; gives their lasting
    /// names.
    pub(super) async fn cut_all(
        &self,
        followed: &[&Surveyed],
        cut: mpsc::Sender<Open>,
    ) -> Result<Vec<Namespace>> {
        let link = &self.shared.facts.link;
        let stored = insist(|| stored_ranges_of_all(&self.own.b, link)).await?;
        let mut lasting = Vec::with_capacity(followed.len());
        for some in followed.chunks(CUT_AT_ONCE) {
            insist(|| self.pair_all(some)).await?;
            let mut ready = Vec::with_capacity(some.len());
            for some in some.chunks(CUT_AT_THE_SAME_TIME) {
                let each = some.iter().map(|one| self.make_ready(one, &stored));
                ready.extend(try_join_all(each).await?.into_iter().flatten());
            }
            let new = ready.iter().filter(|one| one.is_new);
            let new = new.map(|one| (&one.lasting, one.ranges.as_slice()));
            let new: Vec<_> = new.collect();
            insist(|| store_new_ranges(&self.own.b, link, &new)).await?;
            for one in ready {
                self.hand_over(&one.scanned, one.ranges, &cut).await;
                lasting.push(one.lasting);
            }
        }
        Ok(lasting)
    }

    async fn hand_over(
        &self,
        scanned: &Scanned,
        ranges: Vec<StoredRange>,
        to: &mpsc::Sender<Open>,
    ) {
        self.progress.add_earlier(&ranges);
        let open: Vec<_> = ranges.into_iter().filter(|range| !range.is_done).collect();
        if open.is_empty() {
            self.progress.numbers().namespaces_done += 1;
        }
        let left = Arc::new(AtomicUsize::new(open.len()));
        for range in open {
            let open = Open {
                scanned: scanned.clone(),
                range,
                left: left.clone(),
            };
            // Nobody takes them any more where copying has failed, and this ends with it.
            let _ = to.send(open).await;
        }
    }

    /// A collection under its lasting name, and its ranges. It may be renamed or dropped since the
    /// survey, at any moment: the reader tells, so it is tried again once that has come up.
    async fn make_ready(&self, one: &Surveyed, stored: &Stored) -> Result<Option<Ready>> {
        let Some(uuid) = one.uuid else {
            return Ok(None);
        };
        let mut pause = Pause::of_outages();
        let mut came_up = false;
        let collections = &self.shared.collections;
        let lasting = collections.identify(Side::A, uuid, &one.namespace);
        loop {
            match insist(|| self.pair(one, &lasting)).await? {
                Pairing::Paired(pair) => {
                    let scanned = Scanned {
                        selection: self.config.filters.selection(&pair.a.name),
                        namespace: pair.a.name,
                        uuid,
                        order: Order::of(&one.options),
                    };
                    if let Some(ranges) = stored.get(&lasting).cloned() {
                        return Ok(Some(Ready {
                            lasting,
                            scanned,
                            ranges,
                            is_new: false,
                        }));
                    }
                    match insist(|| self.split(one, &scanned)).await {
                        Err(error) if has_moved(&error) => {
                            let now = insist(|| name_now(&self.clusters.a, &scanned)).await?;
                            if now.is_none() {
                                self.not_copied(one);
                                return Ok(None);
                            }
                        }
                        cut => {
                            return Ok(Some(Ready {
                                ranges: new_ranges(&self.shared.facts.link, &lasting, cut?),
                                lasting,
                                scanned,
                                is_new: true,
                            }));
                        }
                    }
                }
                Pairing::Unclear if !came_up => {}
                Pairing::Unpaired | Pairing::Unclear => {
                    self.not_copied(one);
                    return Ok(None);
                }
            }
            let now = insist(|| self.own.a.operation_time()).await?;
            self.shared.exchange.wait_passed(Side::A, now).await;
            came_up = true;
            tokio::time::sleep(pause.wait()).await;
        }
    }

    async fn split(&self, one: &Surveyed, scanned: &Scanned) -> Result<Vec<Range>> {
        let size = Size {
            documents: one.documents,
            bytes: one.bytes,
        };
        split_of_size(&self.clusters.a, scanned, size, RANGE_BYTES_TARGET).await
    }

    /// A view that the target still has, and whose name is a collection's by now, goes in a turn of its
    /// own: the collection is paired after that.
    pub(super) async fn let_views_go(&self, followed: &[&Surveyed]) -> Result<()> {
        let target = &self.clusters.b;
        let names: Vec<_> = followed.iter().map(|one| one.counterpart.clone()).collect();
        let there = insist(|| list_all(target, &names)).await?;
        for one in followed {
            if there.get(&one.counterpart).is_some_and(Listed::is_view) {
                insist(|| self.worker.let_view_go(Side::B, &one.namespace)).await?;
            }
        }
        Ok(())
    }

    /// Makes and routes pairs together, before each is looked at: what does not become one is told
    /// then.
    async fn pair_all(&self, some: &[&Surveyed]) -> Result<()> {
        let collections = &self.shared.collections;
        let names: HashSet<Namespace> = some
            .iter()
            .filter_map(|one| Some(collections.identify(Side::A, one.uuid?, &one.namespace)))
            .collect();
        let names = names.iter().collect();
        let pairings = collections.pair_all(&names, Side::A).await;
        let pairings = tell_first(&self.shared, &self.clusters, pairings).await?;
        let paired = pairings.into_iter();
        let paired = paired.filter(|(_, pairing)| matches!(pairing, Pairing::Paired(_)));
        let mut paired: Vec<Namespace> = paired.map(|(lasting, _)| lasting).collect();
        paired.sort();
        collections.route(&paired).await
    }

    /// Makes sure that the collection is there on the target, with its options and its lanes.
    async fn pair(&self, one: &Surveyed, lasting: &Namespace) -> Result<Pairing> {
        let collections = &self.shared.collections;
        let pairing = collections.pair(lasting, Side::A).await;
        let pairing = tell_first(&self.shared, &self.clusters, pairing).await?;
        if let Pairing::Paired(pair) = &pairing {
            if Some(pair.a.uuid) != one.uuid {
                return Ok(Pairing::Unpaired);
            }
            let single = collections.needs_one_lane(lasting).await?;
            self.shared.exchange.route(lasting.clone(), single);
        }
        Ok(pairing)
    }

    fn not_copied(&self, one: &Surveyed) {
        let reason = one.unsupported.unwrap_or("it is gone or has been replaced");
        tracing::warn!(namespace = %one.namespace, reason, "not copied");
        self.progress.numbers().not_done.push(NotDone {
            namespace: one.namespace.to_string(),
            index: None,
            reason: reason.to_owned(),
        });
    }
}
