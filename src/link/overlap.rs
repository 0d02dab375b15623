//! Two links between the same clusters must not share a collection.

use bson::{Bson, Document, doc};

use super::own::Own;
use crate::change::{Pair, Side, patterns_may_overlap};
use crate::config::Config;
use crate::error::{Error, Result};

/// Another link on the same pair of clusters must not share a namespace with this one, under its
/// name on either of them.
///
/// # Errors
/// A config error (3).
pub async fn must_not_overlap(
    config: &Config,
    replica_set_ids: &Pair<String>,
    own: &Pair<Own>,
) -> Result<()> {
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
        }
    }
    Ok(())
}

/// A pattern of another link that means a collection of this one on the same cluster.
fn shared(config: &Config, ours: &Pair<String>, other: &Document) -> Option<String> {
    let text = |name: &str| other.get_str(name).unwrap_or_default();
    let theirs = Pair::new(text("set_a"), text("set_b"));
    // Their a may be our b.
    let same_way = theirs == ours.as_ref().map(String::as_str);
    let other_way = theirs == Pair::new(ours.b.as_str(), ours.a.as_str());
    if !same_way && !other_way {
        return None;
    }
    Side::BOTH.into_iter().find_map(|side| {
        let their_side = if same_way { side } else { side.other() };
        let found = patterns_of(other, their_side);
        found.into_iter().find(|theirs| {
            let ours = config.namespaces.patterns(side).iter();
            ours.into_iter()
                .any(|ours| patterns_may_overlap(ours, theirs))
        })
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
