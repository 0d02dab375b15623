//! Two links between the same clusters must not share a collection, and three must not close a ring.

use bson::{Bson, Document, doc};

use super::own::Own;
use crate::change::{Pair, Side, patterns_may_overlap};
use crate::config::Config;
use crate::error::{Error, Result};

/// A link between one of our clusters and a third one, over collections of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    pub link: String,
    /// Which of our clusters.
    pub side: Side,
    pub pattern: String,
    /// What that link calls the third cluster.
    pub name: String,
    replica_set_id: String,
}

/// Another link on the same pair of clusters must not share a namespace with this one, under its
/// name on either of them, and two links to a third cluster must not close a ring with this one.
/// Gives the links to third clusters that may stay: their writes count as an application's here.
///
/// # Errors
/// A config error (3).
pub async fn must_not_overlap(
    config: &Config,
    replica_set_ids: &Pair<String>,
    own: &Pair<Own>,
) -> Result<Vec<Neighbour>> {
    let mut neighbours = Vec::new();
    for side in Side::BOTH {
        let ready = doc! { "_id": { "$ne": &config.link.name }, "ready": true };
        for other in own[side].find("links", ready).await? {
            if let Some(pattern) = shared(config, replica_set_ids, &other) {
                let name = other.get_str("_id").unwrap_or_default();
                return Err(Error::config(format!(
                    "link.name: link {name} already replicates {pattern} between these clusters"
                ))
                .hint(
                    "`namespaces.include` of two links must name nothing twice, whatever `exclude` \
                     says; a renamed link? `tandem reset --clusters` with the old name first",
                ));
            }
            neighbours.extend(neighbour(config, replica_set_ids, side, &other));
        }
    }
    match ring(&neighbours) {
        None => Ok(neighbours),
        Some((one, other)) => Err(Error::config(format!(
            "namespaces.include: with the links {} and {} to {}, which replicate {}, this one \
             closes a ring: what is written would go round",
            one.link, other.link, one.name, one.pattern
        ))
        .hint(
            "leave one of the three out: a write must have a single way from one cluster to \
             another; a link that is no longer used? `tandem reset --clusters` with its \
             configuration first",
        )),
    }
}

/// Says which links may stay, and that they are there.
pub fn tell_of_neighbours(config: &Config, neighbours: &[Neighbour]) {
    for other in neighbours {
        tracing::warn!(
            link = %other.link,
            cluster = %config.clusters[other.side].name,
            pattern = %other.pattern,
            to = %other.name,
            "another link has the same collections of this cluster: what it writes counts as an application's"
        );
    }
}

/// A pattern of another link that means a collection of this one on the same cluster.
fn shared(config: &Config, ours: &Pair<String>, other: &Document) -> Option<String> {
    let theirs = sets_of(other);
    // Their a may be our b.
    let same_way = theirs == ours.as_ref().map(String::as_str);
    let other_way = theirs == Pair::new(ours.b.as_str(), ours.a.as_str());
    if !same_way && !other_way {
        return None;
    }
    Side::BOTH.into_iter().find_map(|side| {
        let their_side = if same_way { side } else { side.other() };
        pattern_shared(config, side, other, their_side)
    })
}

/// The other link as a neighbour on the cluster of `side`, where it leads to a third one.
fn neighbour(
    config: &Config,
    ours: &Pair<String>,
    side: Side,
    other: &Document,
) -> Option<Neighbour> {
    let theirs = sets_of(other);
    let their_side = Side::BOTH
        .into_iter()
        .find(|one| theirs[*one] == ours[side])?;
    let third = theirs[their_side.other()];
    if third == ours[side.other()] {
        return None;
    }
    let name = match their_side {
        Side::A => "name_b",
        Side::B => "name_a",
    };
    Some(Neighbour {
        link: other.get_str("_id").unwrap_or_default().to_owned(),
        side,
        pattern: pattern_shared(config, side, other, their_side)?,
        name: other.get_str(name).unwrap_or("a third cluster").to_owned(),
        replica_set_id: third.to_owned(),
    })
}

/// Links from both of our clusters to the same third one.
fn ring(neighbours: &[Neighbour]) -> Option<(&Neighbour, &Neighbour)> {
    let of = |side: Side| neighbours.iter().filter(move |one| one.side == side);
    of(Side::A).find_map(|one| {
        let same = of(Side::B).find(|other| other.replica_set_id == one.replica_set_id);
        same.map(|other| (one, other))
    })
}

fn sets_of(link: &Document) -> Pair<&str> {
    let text = |name: &str| link.get_str(name).unwrap_or_default();
    Pair::new(text("set_a"), text("set_b"))
}

fn pattern_shared(
    config: &Config,
    side: Side,
    other: &Document,
    their_side: Side,
) -> Option<String> {
    let found = patterns_of(other, their_side);
    found.into_iter().find(|theirs| {
        let ours = config.namespaces.patterns(side).iter();
        ours.into_iter()
            .any(|ours| patterns_may_overlap(ours, theirs))
    })
}

fn patterns_of(link: &Document, side: Side) -> Vec<String> {
    let list = |name: &str| link.get_array(name).ok();
    let found = match side {
        Side::A => list("include"),
        Side::B => list("include_b").or(list("include")),
    };
    let patterns = found.into_iter().flatten().filter_map(Bson::as_str);
    patterns.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = "[link]\nname = \"l\"\n[clusters.a]\nname = \"eu\"\nuri = \"mongodb://x\"\n[clusters.b]\nname = \"us\"\nuri = \"mongodb://y\"\n[namespaces]\ninclude = [\"shop.*\"]\n";
        let environment = crate::config::Environment::default();
        let directory = std::path::Path::new("");
        Config::parse(text, "test", directory, &environment, &Default::default()).unwrap()
    }

    fn link(name: &str, set_a: &str, set_b: &str, include: &str) -> Document {
        doc! {
            "_id": name, "set_a": set_a, "set_b": set_b,
            "name_a": set_a, "name_b": set_b, "include": [include],
        }
    }

    fn neighbours(on_a: &Document, on_b: Option<&Document>) -> Vec<Neighbour> {
        let ours = Pair::new("1".to_owned(), "2".to_owned());
        let on_a = neighbour(&config(), &ours, Side::A, on_a);
        let on_b = on_b.and_then(|one| neighbour(&config(), &ours, Side::B, one));
        on_a.into_iter().chain(on_b).collect()
    }

    #[test]
    fn two_links_to_one_third_cluster_close_a_ring_and_others_do_not() {
        let to_third = link("x", "1", "3", "shop.*");
        let beside = |other: &Document| neighbours(&to_third, Some(other));
        let closed = beside(&link("y", "3", "2", "shop.orders"));
        let (one, other) = ring(&closed).expect("a ring");
        assert_eq!((one.link.as_str(), other.link.as_str()), ("x", "y"));
        assert_eq!((one.name.as_str(), other.name.as_str()), ("3", "3"));

        let chain = neighbours(&to_third, None);
        assert_eq!((chain.len(), ring(&chain)), (1, None));
        let to_two = beside(&link("y", "4", "2", "shop.*"));
        assert_eq!((to_two.len(), ring(&to_two)), (2, None));
        let elsewhere = beside(&link("y", "3", "2", "bank.*"));
        assert_eq!((elsewhere.len(), ring(&elsewhere)), (1, None));
    }

    #[test]
    fn a_link_between_the_same_clusters_is_no_neighbour() {
        let same = link("x", "2", "1", "shop.*");
        assert_eq!(neighbours(&same, Some(&same)), []);
        let ours = Pair::new("1".to_owned(), "2".to_owned());
        assert_eq!(shared(&config(), &ours, &same).as_deref(), Some("shop.*"));
    }
}
