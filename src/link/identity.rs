//! Which clusters these are, and whether the link may work between them.

use bson::{Bson, Document, doc};

use super::own::Own;
use crate::change::{Pair, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::LinkIdentity;

/// What a cluster says of itself.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    pub set_name: String,
    pub replica_set_id: String,
    pub version: String,
}

/// The oldest server that refuses a write into another collection of the same name. One that was
/// told to be compatible with an older one refuses every write that asks it to.
const VERSION_MAJOR_MIN: u32 = 6;

/// From this version on several plain writes may share one cluster time.
const VERSION_MAJOR_GROUPED_WRITES: u32 = 8;

impl ServerFacts {
    /// # Errors
    /// A cluster error (4) where it is no replica set or too old.
    pub async fn read(cluster: &Cluster) -> Result<Self> {
        let name = &cluster.name;
        let hello = ask(cluster, doc! { "hello": 1 }).await?;
        let Ok(set_name) = hello.get_str("setName") else {
            let kind = match hello.get_str("msg") {
                Ok("isdbgrid") => "a mongos",
                _ => "a standalone server",
            };
            return Err(
                Error::cluster(format!("{name} is {kind}, not a replica set"))
                    .hint("tandem reads the history that only replica sets keep"),
            );
        };
        let build = ask(cluster, doc! { "buildInfo": 1 }).await?;
        let version = build.get_str("version").unwrap_or("0").to_owned();
        let facts = Self {
            set_name: set_name.to_owned(),
            replica_set_id: replica_set_id(cluster).await?,
            version,
        };
        if facts.major() < VERSION_MAJOR_MIN {
            return Err(Error::cluster(format!(
                "{name} runs version {}; 6.0 or later is needed",
                facts.version
            )));
        }
        let compatible = feature_compatibility_version(cluster).await?;
        if major_of(&compatible) < VERSION_MAJOR_MIN {
            let what = format!(
                "{name} has featureCompatibilityVersion {compatible}; 6.0 or later is needed"
            );
            return Err(Error::cluster(what).hint("setFeatureCompatibilityVersion on the cluster"));
        }
        Ok(facts)
    }

    fn major(&self) -> u32 {
        major_of(&self.version)
    }

    /// Whether a plain write is the only one of its cluster time.
    pub fn single_writes_are_whole(&self) -> bool {
        self.major() < VERSION_MAJOR_GROUPED_WRITES
    }
}

async fn replica_set_id(cluster: &Cluster) -> Result<String> {
    let reply = ask(cluster, doc! { "replSetGetConfig": 1 }).await?;
    reply
        .get_document("config")
        .and_then(|config| config.get_document("settings"))
        .and_then(|settings| settings.get_object_id("replicaSetId"))
        .map(|id| id.to_hex())
        .map_err(|_| Error::cluster(format!("{} has no replica set id", cluster.name)))
}

fn major_of(version: &str) -> u32 {
    let major = version.split('.').next();
    major.and_then(|part| part.parse().ok()).unwrap_or(0)
}

async fn feature_compatibility_version(cluster: &Cluster) -> Result<String> {
    let command = doc! { "getParameter": 1, "featureCompatibilityVersion": 1 };
    let reply = ask(cluster, command).await?;
    let version = reply.get_document("featureCompatibilityVersion");
    let version = version.and_then(|version| version.get_str("version"));
    Ok(version.unwrap_or("unknown").to_owned())
}

async fn ask(cluster: &Cluster, command: Document) -> Result<Document> {
    let doing = format!("look at {}", cluster.name);
    cluster.command("admin", command, &doing).await
}

/// Two URIs must lead to two clusters.
///
/// # Errors
/// A cluster error (4).
pub fn must_differ(config: &Config, facts: &Pair<ServerFacts>) -> Result<()> {
    if facts.a.replica_set_id == facts.b.replica_set_id {
        return Err(Error::cluster(format!(
            "{} and {} are the same cluster (replica set {})",
            config.clusters.a.name, config.clusters.b.name, facts.a.set_name
        ))
        .hint("correct one of the two connection strings"));
    }
    Ok(())
}

/// What the local store should say.
pub fn identity_of(config: &Config, facts: &Pair<ServerFacts>) -> LinkIdentity {
    LinkIdentity {
        link: config.link.name.clone(),
        mode: config.link.mode.as_str().to_owned(),
        tie: config.conflicts.tie,
        database: config.link.database.clone(),
        replica_set_ids: facts.as_ref().map(|facts| facts.replica_set_id.clone()),
        include: config.namespaces.include().to_vec(),
        exclude: config.namespaces.exclude().to_vec(),
        filters: config.filters.iter().map(|one| one.typed.clone()).collect(),
        renames: config.namespaces.renames().shown(),
    }
}

/// Compares what a link was started with to what the config says now.
///
/// # Errors
/// Another cluster is a cluster error (4), any other change that a live link cannot take a config
/// error (3).
pub fn must_match(config: &Config, before: &LinkIdentity, now: &LinkIdentity) -> Result<()> {
    if before.link != now.link {
        return Err(Error::config(format!(
            "link.name: this state directory belongs to link {}",
            before.link
        ))
        .hint("use another link.state_dir for another link"));
    }
    for side in Side::BOTH {
        if before.replica_set_ids[side] != now.replica_set_ids[side] {
            let name = &config.clusters[side].name;
            return Err(
                Error::cluster(format!("{name} is not the cluster of last time"))
                    .hint("correct its connection string, or `tandem reset` and start anew"),
            );
        }
    }
    if before.mode != now.mode {
        return Err(refused("link.mode", &before.mode));
    }
    if before.tie != now.tie {
        return Err(refused("conflicts.tie", before.tie.as_str()));
    }
    if before.database != now.database {
        return Err(refused("link.database", &before.database));
    }
    if before.renames != now.renames {
        return Err(refused("renames", &shown(&before.renames)));
    }
    Ok(())
}

/// What reads or writes a collection without the link asks under the names that the link uses.
///
/// # Errors
/// A config error (3) where the configuration has other renames than the link; as the clusters say.
pub async fn must_know_names(config: &Config, clusters: &Pair<Cluster>) -> Result<()> {
    let renames = config.namespaces.renames().shown();
    for side in Side::BOTH {
        let own = Own::new(&clusters[side], &config.link.database);
        let ready = doc! { "_id": &config.link.name, "ready": true };
        for link in own.find("links", ready).await? {
            let known = link.get_array("renames").into_iter().flatten();
            let known: Vec<&str> = known.filter_map(Bson::as_str).collect();
            if known != renames {
                return Err(refused("renames", &shown(&known)));
            }
        }
    }
    Ok(())
}

fn refused(key: &str, old: &str) -> Error {
    Error::config(format!(
        "{key}: cannot be changed on an existing link (it was {old})"
    ))
    .hint("`tandem reset --clusters` forgets the link")
}

fn shown(renames: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = renames.iter().map(AsRef::as_ref).collect();
    match shown.is_empty() {
        true => "none".to_owned(),
        false => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = "[link]\nname = \"l\"\n[clusters.a]\nname = \"eu\"\nuri = \"mongodb://x\"\n[clusters.b]\nname = \"us\"\nuri = \"mongodb://y\"\n[namespaces]\ninclude = [\"shop.*\"]\n";
        let environment = crate::config::Environment::default();
        Config::parse(
            text,
            "test",
            std::path::Path::new(""),
            &environment,
            &Default::default(),
        )
        .unwrap()
    }

    fn identity() -> LinkIdentity {
        let facts = |id: &str| ServerFacts {
            set_name: "rs".into(),
            replica_set_id: id.into(),
            version: "6.0.5".into(),
        };
        identity_of(&config(), &Pair::new(facts("1"), facts("2")))
    }

    #[test]
    fn what_a_live_link_cannot_take_is_refused_by_name() {
        let changed = |change: fn(&mut LinkIdentity)| {
            let mut before = identity();
            change(&mut before);
            must_match(&config(), &before, &identity())
        };
        assert!(changed(|_| {}).is_ok());
        assert!(changed(|before| before.include.push("more.*".into())).is_ok());
        assert!(changed(|before| before.include = vec!["x.*".into()]).is_ok());
        for (change, key, exit) in [
            (
                (|before| before.mode = "one-way".into()) as fn(&mut LinkIdentity),
                "link.mode",
                3,
            ),
            (|before| before.tie = Side::B, "conflicts.tie", 3),
            (
                |before| before.renames.push("shop.* -> s.*".into()),
                "renames",
                3,
            ),
            (|before| before.replica_set_ids.a = "9".into(), "eu", 4),
        ] {
            let error = changed(change).unwrap_err();
            assert!(error.message.contains(key), "{error}");
            assert_eq!(error.exit as i32, exit);
        }
    }
}
