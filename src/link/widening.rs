//! More namespaces than before: what is new is brought together before it is replicated.

use bson::doc;

use super::history::History;
use super::identity::identity_of;
use super::merge::Job;
use super::start::Connected;
use crate::change::{Side, pattern_covers, pattern_of};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::{LinkIdentity, Store};

/// Patterns that name more than the link has replicated so far, or what it filters in another way.
/// Fewer namespaces are accepted as they are.
fn widened(before: &LinkIdentity, now: &LinkIdentity) -> Vec<String> {
    let added = now.include.iter();
    let covered = |pattern: &String| {
        before
            .include
            .iter()
            .any(|old| pattern_covers(old, pattern))
    };
    let added = added.filter(|pattern| !covered(pattern));
    let excluded = |pattern: &String| now.exclude.iter().any(|new| pattern_covers(new, pattern));
    let no_longer_excluded = before.exclude.iter();
    let no_longer_excluded = no_longer_excluded.filter(|pattern| !excluded(pattern));
    let new = added.chain(no_longer_excluded).cloned();
    new.chain(filtered_otherwise(&before.filters, &now.filters))
        .collect()
}

/// Patterns of filters that are not the same any more, or not in the same order: the first one that
/// matches a collection counts.
fn filtered_otherwise(before: &[String], now: &[String]) -> Vec<String> {
    let common = |one: &[String], other: &[String]| -> Vec<String> {
        let common = one.iter().filter(|typed| other.contains(typed));
        common.cloned().collect()
    };
    let same_order = common(before, now) == common(now, before);
    let all = before.iter().chain(now);
    let differing = all.filter(|typed| {
        let is_common = before.contains(typed) && now.contains(typed);
        !is_common || !same_order
    });
    differing
        .map(|typed| pattern_of(typed).to_owned())
        .collect()
}

/// The resync that newly included namespaces need; none where there are none, or where one that is
/// asked for, or left over, is about everything anyway.
///
/// # Errors
/// A config error (3) while an initial copy or a resync of one side has not come to its end; a
/// usage error (2) where a resync of something else is asked for.
pub(super) fn needed(
    before: Option<&LinkIdentity>,
    now: &LinkIdentity,
    history: &History,
    asked: Option<&Job>,
) -> Result<Option<Job>> {
    let mut new = before.map_or_else(Vec::new, |before| widened(before, now));
    new.sort();
    new.dedup();
    if new.is_empty() || asked.is_some_and(Job::is_about_everything) {
        return Ok(None);
    }
    let names = new.join(", ");
    if asked.is_some() {
        return Err(Error::usage(format!(
            "namespaces: {names}: newly included, and brought together first"
        ))
        .hint("`tandem run` does that; then resync"));
    }
    if history.is_copying() {
        return Err(Error::config(format!(
            "namespaces: {names}: cannot be added before the initial copy has come to its end"
        ))
        .hint("take them out, let `tandem run` finish the copy, and add them then"));
    }
    let job = match history.merge() {
        None => Job {
            namespaces: new,
            from: None,
        },
        Some(left) if left.is_about_everything() => return Ok(None),
        Some(left) if left.from.is_none() => Job {
            namespaces: [left.namespaces, new].concat(),
            from: None,
        },
        Some(_) => {
            return Err(Error::config(format!(
                "namespaces: {names}: cannot be added before the resync has come to its end"
            ))
            .hint("take them out, let `tandem run` finish the resync, and add them then"));
        }
    };
    tracing::warn!(
        namespaces = names,
        "newly included: both sides are brought together first"
    );
    Ok(Some(job))
}

/// From here on this is what the link replicates; b first, and this host last, so that whatever
/// was broken off is noticed again.
///
/// # Errors
/// As the clusters and the store say.
pub(super) async fn remember(
    config: &Config,
    connected: &Connected,
    store: &Store,
    history: &History,
) -> Result<()> {
    let identity = identity_of(config, &connected.servers);
    if history.identity(config).as_ref() != Some(&identity) {
        for side in [Side::B, Side::A] {
            let set = doc! {
                "include": &identity.include,
                "exclude": &identity.exclude,
                "filters": &identity.filters,
                "renames": &identity.renames,
                "include_b": config.namespaces.patterns(Side::B),
            };
            let statement = doc! { "q": { "_id": &config.link.name }, "u": { "$set": set } };
            connected.own[side].update("links", vec![statement]).await?;
        }
    }
    store.set_identity(&identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Pair;

    fn identity(include: &[&str], exclude: &[&str]) -> LinkIdentity {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        LinkIdentity {
            link: "l".to_owned(),
            mode: "two-way".to_owned(),
            tie: Side::A,
            database: "__tandem".to_owned(),
            replica_set_ids: Pair::new("1".to_owned(), "2".to_owned()),
            include: owned(include),
            exclude: owned(exclude),
            filters: Vec::new(),
            renames: Vec::new(),
        }
    }

    #[test]
    fn more_to_include_or_less_to_exclude_is_new_and_the_opposite_is_not() {
        let before = identity(&["shop.*"], &["shop.tmp"]);
        for (now, new) in [
            (identity(&["shop.*"], &["shop.tmp"]), vec![]),
            (
                identity(&["shop.*", "bank.*"], &["shop.tmp"]),
                vec!["bank.*"],
            ),
            (identity(&["shop.*"], &[]), vec!["shop.tmp"]),
            (identity(&["shop.*"], &["shop.tmp", "shop.log"]), vec![]),
            (identity(&["shop.orders"], &["shop.tmp"]), vec![]),
            (identity(&["/^shop/"], &["shop.tmp"]), vec!["/^shop/"]),
            (identity(&["shop*"], &["shop.tmp"]), vec!["shop*"]),
            (identity(&["shop.*"], &["shop.t*"]), vec![]),
        ] {
            assert_eq!(widened(&before, &now), new, "{now:?}");
        }
    }

    #[test]
    fn another_filter_or_another_order_of_them_is_new() {
        let filters = |typed: &[&str]| typed.iter().map(|t| format!("{t}\n…")).collect::<Vec<_>>();
        for (before, now, new) in [
            (vec!["a.*", "b.*"], vec!["a.*", "b.*"], vec![]),
            (vec!["a.*"], vec!["a.*", "b.*"], vec!["b.*"]),
            (vec!["a.*", "b.*"], vec!["b.*"], vec!["a.*"]),
            (
                vec!["a.*", "a.b"],
                vec!["a.b", "a.*"],
                vec!["a.*", "a.b", "a.b", "a.*"],
            ),
        ] {
            let found = filtered_otherwise(&filters(&before), &filters(&now));
            assert_eq!(found, new, "{before:?} {now:?}");
        }
    }
}
