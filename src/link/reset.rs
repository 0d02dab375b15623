//! Forgetting a link: on this host, and what tandem's own database on both clusters holds of it.

use std::fmt::Write as _;

use bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};

use super::both_clusters::with_both;
use super::control::Request;
use super::reporting::{Source, source};
use crate::change::{Pair, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::{RecordFilter, Store};

/// How much is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What this host keeps; a later start builds it anew from the clusters.
    Host,
    /// That, and what lies on both clusters.
    HostAndClusters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Forgotten,
    /// Whoever was asked said no.
    Declined,
}

/// Deletes of one statement.
const IDS_MAX: usize = 1000;

/// Forgets the link, once `ask` has said yes to what it is shown.
///
/// The clusters come first and this host last: whatever stops on its way can be done again.
///
/// # Errors
/// Exit 7 where a process uses the state directory, 8 where one on another host holds the link; as
/// the clusters and the store say.
pub async fn reset(
    config: &Config,
    scope: Scope,
    ask: impl FnOnce(&str) -> Result<bool>,
) -> Result<Outcome> {
    let state_dir = &config.link.state_dir;
    let store = match source(state_dir, &Request::Status).await? {
        Source::Process(_) => {
            return Err(Error::store(format!(
                "tandem runs on {}: a link is forgotten only while it stands still",
                state_dir.display()
            ))
            .hint("stop it first"));
        }
        Source::Store(store) => Some(store),
        Source::Nobody => None,
    };
    let mut shown = shown_of_host(config, store.as_ref())?;
    match scope {
        Scope::Host => {
            shown += "what lies on the clusters stays, and the next start goes on from there\n";
            if !ask(&shown)? {
                return Ok(Outcome::Declined);
            }
        }
        Scope::HostAndClusters => {
            let records = ids_of(store.as_ref())?;
            let own = store.as_ref().map(Store::store_id);
            let asked = with_both(config, async |clusters| {
                for side in Side::BOTH {
                    refuse_a_held_link(config, &clusters[side], own).await?;
                }
                let found = Pair::new(
                    Found::on(config, &clusters.a, &records).await?,
                    Found::on(config, &clusters.b, &records).await?,
                );
                for side in Side::BOTH {
                    found[side].show(&mut shown, config, side);
                }
                if !ask(&shown)? {
                    return Ok(Outcome::Declined);
                }
                for side in Side::BOTH {
                    found[side].remove(config, &clusters[side]).await?;
                }
                Ok(Outcome::Forgotten)
            });
            if asked.await? == Outcome::Declined {
                return Ok(Outcome::Declined);
            }
        }
    }
    if let Some(store) = store {
        store.clear_link()?;
    }
    Ok(Outcome::Forgotten)
}

/// Another host may run the link. A lease of this host's store is a dead process's.
pub(super) async fn refuse_a_held_link(
    config: &Config,
    cluster: &Cluster,
    own: Option<&str>,
) -> Result<()> {
    let (database, link) = (&config.link.database, &config.link.name);
    let doing = format!("read {database}.links on {}", cluster.name);
    let held = doc! {
        "_id": link,
        "holder.store_id": { "$ne": own.unwrap_or_default() },
        "$expr": { "$gt": ["$lease_until", "$$NOW"] },
    };
    let command = doc! { "find": "links", "filter": held, "singleBatch": true };
    let reply = cluster.command(database, command, &doing).await?;
    let batch = reply
        .get_document("cursor")
        .and_then(|cursor| cursor.get_array("firstBatch"));
    if batch.is_ok_and(|found| !found.is_empty()) {
        return Err(Error::fenced(format!(
            "another process holds link {link} on {}",
            cluster.name
        ))
        .hint("stop it, or wait until its lease runs out"));
    }
    Ok(())
}

fn shown_of_host(config: &Config, store: Option<&Store>) -> Result<String> {
    let dir = config.link.state_dir.display();
    let link = &config.link.name;
    let Some(store) = store else {
        return Ok(format!("link {link}: nothing is kept in {dir}\n"));
    };
    let records = ids_of(Some(store))?.len();
    let checkpoints = store.checkpoints()?.len();
    Ok(format!(
        "link {link}: {checkpoints} checkpoints and {records} records in {dir} are removed\n"
    ))
}

fn ids_of(store: Option<&Store>) -> Result<Vec<String>> {
    let Some(store) = store else {
        return Ok(Vec::new());
    };
    let mut ids = Vec::new();
    for record in store.records(&RecordFilter::default()) {
        ids.extend(record?.get_str("_id").map(str::to_owned));
    }
    Ok(ids)
}

/// What one cluster holds of the link.
enum Found {
    /// No other link's state is in the database.
    Alone,
    /// What is known to be this link's: collection and filters.
    Beside {
        others: Vec<String>,
        parts: Vec<(&'static str, RawDocumentBuf)>,
    },
}

impl Found {
    async fn on(config: &Config, cluster: &Cluster, records: &[String]) -> Result<Self> {
        let link = config.link.name.as_str();
        let mut others = Vec::new();
        for (collection, field) in [
            ("links", "_id"),
            ("checkpoints", "link"),
            ("sessions", "link"),
            ("collections", "link"),
        ] {
            for name in distinct(config, cluster, collection, field).await? {
                if name != link && !others.contains(&name) {
                    others.push(name);
                }
            }
        }
        if others.is_empty() {
            return Ok(Found::Alone);
        }
        Ok(Found::Beside {
            others,
            parts: parts(link, records),
        })
    }

    fn show(&self, shown: &mut String, config: &Config, side: Side) {
        let (database, cluster) = (&config.link.database, &config.clusters[side].name);
        let _ = match self {
            Found::Alone => writeln!(
                shown,
                "the whole database {database} on {cluster} is dropped"
            ),
            Found::Beside { others, .. } => writeln!(
                shown,
                "the link's documents in {database} on {cluster} are removed; others stay: {}",
                others.join(", ")
            ),
        };
    }

    async fn remove(&self, config: &Config, cluster: &Cluster) -> Result<()> {
        let database = config.link.database.as_str();
        let concern = || rawdoc! { "w": "majority" };
        match self {
            Found::Alone => {
                let doing = format!("drop {database} on {}", cluster.name);
                let drop = rawdoc! { "dropDatabase": 1, "writeConcern": concern() };
                cluster.write(database, drop, &doing).await?;
            }
            Found::Beside { parts, .. } => {
                for (collection, filter) in parts {
                    let doing = format!("delete from {database}.{collection} on {}", cluster.name);
                    let delete = rawdoc! {
                        "delete": *collection,
                        "deletes": [{ "q": filter.clone(), "limit": 0 }],
                        "writeConcern": concern(),
                    };
                    cluster.write(database, delete, &doing).await?;
                }
            }
        }
        Ok(())
    }
}

/// Everything of a link that can be told from other links'. Records carry no link, so those that
/// this host has on record are taken. The link's own document goes last: until then a start sees
/// that something is missing.
fn parts(link: &str, records: &[String]) -> Vec<(&'static str, RawDocumentBuf)> {
    let mut parts = vec![
        ("checkpoints", rawdoc! { "link": link }),
        ("sessions", rawdoc! { "link": link }),
        ("keys", rawdoc! { "_id.link": link }),
        ("markers", rawdoc! { "_id": format!("{link}/reader") }),
        ("collections", rawdoc! { "link": link }),
        ("ddl", rawdoc! { "link": link }),
    ];
    for ids in records.chunks(IDS_MAX) {
        let mut list = bson::RawArrayBuf::new();
        for id in ids {
            list.push(id.as_str());
        }
        parts.push((
            "conflict_chunks",
            rawdoc! { "_id.record": { "$in": list.clone() } },
        ));
        parts.push(("conflicts", rawdoc! { "_id": { "$in": list } }));
    }
    parts.push(("links", rawdoc! { "_id": link }));
    parts
}

async fn distinct(
    config: &Config,
    cluster: &Cluster,
    collection: &str,
    field: &str,
) -> Result<Vec<String>> {
    let database = &config.link.database;
    let doing = format!("read {database}.{collection} on {}", cluster.name);
    let command: Document = doc! { "distinct": collection, "key": field };
    let reply = cluster.command(database, command, &doing).await?;
    let values = reply.get_array("values").map_or(&[][..], |values| values);
    let names = values.iter().filter_map(Bson::as_str);
    Ok(names.map(str::to_owned).collect())
}
