//! Removing records of conflicts by hand, once they have been exported.

use bson::{DateTime, RawDocument};

use super::both_clusters::with_both;
use super::control::{Answer, Request, Response};
use super::own::Own;
use super::reporting::{Source, source, unexpected};
use super::retention::{Round, is_open, remove_before};
use crate::change::rfc3339;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::{Page, RecordFilter, Store};

/// How a removal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruned {
    Removed(u64),
    NothingThere,
    /// Whoever was asked said no.
    Declined,
}

/// What would be removed.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    records: u64,
    bytes: u64,
    open: u64,
    first: Option<DateTime>,
    last: Option<DateTime>,
}

/// Removes the records logged before a time, here and on both clusters, once `ask` has said yes to
/// what it is shown.
///
/// # Errors
/// As the running link, the clusters and the store say.
pub async fn prune(
    config: &Config,
    before: DateTime,
    ask: impl FnOnce(&str) -> Result<bool>,
) -> Result<Pruned> {
    let count = counted(config, before).await?;
    if count.records == 0 {
        return Ok(Pruned::NothingThere);
    }
    if !ask(&count.shown(config))? {
        return Ok(Pruned::Declined);
    }
    let mut removed = 0;
    loop {
        let round = one_round(config, before).await?;
        removed += round.removed;
        if !round.more {
            return Ok(Pruned::Removed(removed));
        }
    }
}

async fn counted(config: &Config, before: DateTime) -> Result<Count> {
    let filter = RecordFilter {
        until: Some(before),
        ..RecordFilter::default()
    };
    let request = Request::Records {
        filter: filter.clone(),
        page: Page::default(),
    };
    let mut count = Count::default();
    match source(&config.link.state_dir, &request).await? {
        Source::Process(Answer::Records(mut records)) => {
            while let Some(record) = records.next().await? {
                count.add(&record);
            }
        }
        Source::Process(Answer::Line(response)) => return Err(unexpected(&response)),
        Source::Store(store) => {
            for record in store.records(&filter) {
                count.add(&record?);
            }
        }
        Source::Nobody => {}
    }
    Ok(count)
}

/// The store is opened anew: while somebody was asked, a link may have started.
async fn one_round(config: &Config, before: DateTime) -> Result<Round> {
    let request = Request::Prune { before };
    match source(&config.link.state_dir, &request).await? {
        Source::Process(Answer::Line(Response::Pruned { removed, more })) => {
            Ok(Round { removed, more })
        }
        Source::Process(Answer::Line(response)) => Err(unexpected(&response)),
        Source::Process(Answer::Records(_)) => {
            Err(Error::bug("the running tandem sent records for an order"))
        }
        Source::Store(store) => without_a_link(config, &store, before).await,
        Source::Nobody => Ok(Round {
            removed: 0,
            more: false,
        }),
    }
}

async fn without_a_link(config: &Config, store: &Store, before: DateTime) -> Result<Round> {
    let removing = async |clusters: &crate::change::Pair<crate::cluster::Cluster>| {
        let own = clusters
            .as_ref()
            .map(|cluster| Own::new(cluster, &config.link.database));
        let round = remove_before(store, &own, before).await?;
        store.flush()?;
        Ok(round)
    };
    with_both(config, removing).await
}

impl Count {
    fn add(&mut self, record: &RawDocument) {
        if is_open(record) {
            self.open += 1;
            return;
        }
        self.records += 1;
        self.bytes += record.as_bytes().len() as u64;
        let at = record.get_datetime("logged_at").ok();
        self.first = self.first.or(at);
        self.last = at;
    }

    /// What will be done, for people.
    fn shown(&self, config: &Config) -> String {
        let time = |at: Option<DateTime>| at.map_or_else(|| "-".to_owned(), rfc3339);
        let names = config.clusters.as_ref().map(|cluster| &cluster.name);
        let mut text = format!(
            "{} records, {} bytes, logged from {} to {}, are removed here, on {} and on {}\n\
             no report shows them again, and what lost in them cannot be restored\n",
            self.records,
            self.bytes,
            time(self.first),
            time(self.last),
            names.a,
            names.b
        );
        if self.open > 0 {
            text += &format!("{} dead letters that nobody has settled stay\n", self.open);
        }
        text
    }
}
