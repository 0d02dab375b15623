//! What is to be merged, as it is typed and as the clusters remember it.

use std::collections::BTreeMap;

use bson::{Bson, Document, doc};
use serde::{Deserialize, Serialize};

use super::anew::unpaired;
use crate::change::{Mode, Namespace, Side, pattern_matches};
use crate::cluster::Cluster;
use crate::config::{Config, suggestion};
use crate::error::{Error, Result};
use crate::link::check::collections::{Shape, shapes};
use crate::link::initial_sync::progress::forget_ranges;
use crate::link::lease::Lease;
use crate::link::own::Own;

/// Namespaces of both sides that are to be made the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Patterns as in the configuration; everything included where there is none.
    pub namespaces: Vec<String>,
    /// The side whose documents stay whatever the policy says; what it lacks is removed.
    pub from: Option<Side>,
}

/// A pattern of `--namespace` that names none of the included collections.
pub fn no_such_namespace<'a>(pattern: &str, included: impl IntoIterator<Item = &'a str>) -> Error {
    let near = suggestion(pattern, included);
    let message = format!("--namespace {pattern}: no included collection has this name{near}");
    Error::usage(message).hint("namespaces.include says what the link replicates")
}

impl Job {
    pub fn is_about_everything(&self) -> bool {
        self.namespaces.is_empty()
    }

    pub fn includes(&self, namespace: &Namespace) -> bool {
        let matches = |pattern: &String| pattern_matches(pattern, namespace.as_str());
        self.is_about_everything() || self.namespaces.iter().any(matches)
    }

    /// # Errors
    /// A usage error (2) where nothing goes from b in one-way mode, and where a pattern names no
    /// included collection of either side, nor one that is no longer replicated; as the clusters say.
    pub async fn check(
        &self,
        config: &Config,
        clusters: &crate::change::Pair<Cluster>,
    ) -> Result<()> {
        must_have_source(config, self.from)?;
        let found = [
            shapes(config, &clusters.a).await?,
            shapes(config, &clusters.b).await?,
        ];
        let own = clusters.as_ref();
        let own = own.map(|cluster| Own::new(cluster, &config.link.database));
        let unpaired = unpaired(&own, &config.link.name).await?;
        let there = found.iter().flat_map(BTreeMap::<_, Shape>::keys);
        let names: Vec<&Namespace> = there.chain(&unpaired).collect();
        for pattern in &self.namespaces {
            let named = |name: &&&Namespace| pattern_matches(pattern, name.as_str());
            if !names.iter().any(|name| named(&name)) {
                return Err(no_such_namespace(
                    pattern,
                    names.iter().map(|name| name.as_str()),
                ));
            }
        }
        Ok(())
    }

    /// As a running link puts it on record, so that a killed one goes on.
    pub fn to_document(&self) -> Document {
        let from = self.from.map_or(Bson::Null, |side| side.as_str().into());
        doc! { "namespaces": &self.namespaces, "from": from }
    }

    pub fn of_document(found: &Document) -> Option<Self> {
        let namespaces = found.get_array("namespaces").ok()?.iter();
        let from = match found.get_str("from") {
            Ok("a") => Some(Side::A),
            Ok("b") => Some(Side::B),
            Ok(_) | Err(_) => None,
        };
        Some(Self {
            namespaces: namespaces
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            from,
        })
    }

    /// On b, which is the last to be told of anything. How far an earlier sync has come says nothing
    /// about this one.
    ///
    /// # Errors
    /// Fenced (8) where another process has taken the lease; as the cluster says.
    pub async fn put_on_record(&self, own: &Own, link: &str, lease: &Lease) -> Result<()> {
        forget_ranges(own, doc! { "link": link }).await?;
        let set = doc! { "$set": { "resync": self.to_document() } };
        lease.change_link(Side::B, set).await
    }

    /// Everything of it is settled: from here on events meet what it has compared. The next job takes
    /// the place of this one, with what is said of it.
    ///
    /// # Errors
    /// As [`Job::put_on_record`].
    pub async fn put_settled(&self, lease: &Lease) -> Result<()> {
        let mut settled = self.to_document();
        settled.insert("settled", true);
        lease
            .change_link(Side::B, doc! { "$set": { "resync": settled } })
            .await
    }

    /// Whether everything of the job on record is settled.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn is_settled(own: &Own, link: &str) -> Result<bool> {
        let settled = doc! { "_id": link, "resync.settled": true };
        own.holds("links", settled).await
    }
}

/// # Errors
/// A usage error (2).
pub fn must_have_source(config: &Config, from: Option<Side>) -> Result<()> {
    match (config.link.mode, from) {
        (Mode::OneWay { from: source }, Some(side)) if side != source => {
            let target = source.other().as_str();
            let source = source.as_str();
            Err(Error::usage(format!(
                "--from {target}: nothing goes from {target} to {source} in one-way mode"
            )))
        }
        (Mode::OneWay { .. } | Mode::TwoWay, _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_comes_back_from_its_document() {
        for from in [None, Some(Side::A), Some(Side::B)] {
            let job = Job {
                namespaces: vec!["shop.*".to_owned()],
                from,
            };
            assert_eq!(Job::of_document(&job.to_document()), Some(job));
        }
    }
}
