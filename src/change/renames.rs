//! Collections that b calls otherwise than a does.
//!
//! A link knows a collection by its name on a. What stands here tells what b calls it, and back:
//! a one-to-one relation between the names that are included.

use super::pattern::{
    expression_of, fixed_database, fixed_part, pattern_covers, patterns_may_overlap,
};
use super::{DocumentKey, Namespace, Side};

use std::collections::BTreeSet;

/// A name, or all names that begin with what stands before the `*`, on each cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    pub a: String,
    pub b: String,
}

/// All of a link. No name belongs to two of them, neither on a nor on b.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renames(Vec<Rename>);

impl Rename {
    /// As it is shown, and as a link remembers it.
    pub fn shown(&self) -> String {
        format!("{} -> {}", self.a, self.b)
    }

    /// Whether it is about the collection that a calls `name`.
    pub fn is_about(&self, name: &Namespace) -> bool {
        is_of(name, &self.a)
    }

    /// Whether every name that `pattern` matches is one of those on a.
    fn moves_all_of(&self, pattern: &str) -> bool {
        match self.a.strip_suffix('*') {
            Some(beginning) => fixed_part(pattern).starts_with(beginning),
            None => pattern == self.a,
        }
    }

    /// A pattern on b for one whose names all are of this rename.
    fn applied_to(&self, pattern: &str) -> String {
        let beginnings = (self.a.strip_suffix('*'), self.b.strip_suffix('*'));
        match (beginnings, expression_of(pattern)) {
            ((Some(a), Some(b)), None) if pattern.starts_with(a) => {
                format!("{b}{}", &pattern[a.len()..])
            }
            _ => self.b.clone(),
        }
    }
}

impl Renames {
    pub fn new(renames: Vec<Rename>) -> Self {
        Self(renames)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rename> {
        self.0.iter()
    }

    /// As a link remembers them: their order does not matter.
    pub fn shown(&self) -> Vec<String> {
        let mut shown: Vec<String> = self.0.iter().map(Rename::shown).collect();
        shown.sort();
        shown
    }

    /// What `side` calls the collection that a calls `name`.
    pub fn on(&self, side: Side, name: &Namespace) -> Namespace {
        let renamed = |rename: &Rename| replaced(name, &rename.a, &rename.b);
        match side {
            Side::A => name.clone(),
            Side::B => self.0.iter().find_map(renamed).unwrap_or(name.clone()),
        }
    }

    /// The key of a document of that collection, for `side`.
    pub fn key_on(&self, side: Side, key: &DocumentKey) -> DocumentKey {
        key.within(&self.on(side, key.namespace()))
    }

    /// What a calls the collection that `side` calls `name`; none where a calls none so, since its
    /// collection of that name has another one on b.
    pub fn on_a(&self, side: Side, name: &Namespace) -> Option<Namespace> {
        if side == Side::A {
            return Some(name.clone());
        }
        let back = |rename: &Rename| replaced(name, &rename.b, &rename.a);
        if let Some(found) = self.0.iter().find_map(back) {
            return Some(found);
        }
        let moved = self.0.iter().any(|rename| is_of(name, &rename.a));
        (!moved).then(|| name.clone())
    }

    /// What the other cluster calls the collection that `side` calls `name`.
    pub fn on_other(&self, side: Side, name: &Namespace) -> Option<Namespace> {
        let on_a = self.on_a(side, name)?;
        Some(self.on(side.other(), &on_a))
    }

    /// Databases of the other cluster that collections of a database of `side` may be in.
    pub fn databases_of(&self, side: Side, database: &str) -> BTreeSet<String> {
        let database_of = |pattern: &str| fixed_database(pattern).unwrap_or_default();
        let pairs = self.0.iter().map(|rename| match side {
            Side::A => (database_of(&rename.a), database_of(&rename.b)),
            Side::B => (database_of(&rename.b), database_of(&rename.a)),
        });
        let there = pairs.filter(|(here, _)| here == database);
        let there = there.map(|(_, there)| there);
        there.chain([database.to_owned()]).collect()
    }

    /// Patterns that match, on `side`, what `pattern` matches on a; they may match more.
    pub fn patterns_on(&self, side: Side, pattern: &str) -> Vec<String> {
        if side == Side::A {
            return vec![pattern.to_owned()];
        }
        if let Some(whole) = self.0.iter().find(|rename| rename.moves_all_of(pattern)) {
            return vec![whole.applied_to(pattern)];
        }
        let met = |rename: &&Rename| patterns_may_overlap(&rename.a, pattern);
        let renamed = self.0.iter().filter(met).map(|rename| rename.b.clone());
        std::iter::once(pattern.to_owned()).chain(renamed).collect()
    }

    /// The first rename whose names on b another collection may have, one that is included and not
    /// renamed itself, with the pattern that includes it.
    pub fn collision<'a>(
        &'a self,
        include: &'a [String],
        exclude: &[String],
    ) -> Option<(&'a Rename, &'a str)> {
        let is_left_out = |name: &str, pattern: &str| {
            let excluded = |by: &String| pattern_covers(by, name) || pattern_covers(by, pattern);
            let moved = |by: &Rename| by.moves_all_of(name) || by.moves_all_of(pattern);
            exclude.iter().any(excluded) || self.0.iter().any(moved)
        };
        self.0.iter().find_map(|rename| {
            let collides = |pattern: &&String| {
                patterns_may_overlap(&rename.b, pattern) && !is_left_out(&rename.b, pattern)
            };
            let pattern = include.iter().find(collides)?;
            Some((rename, pattern.as_str()))
        })
    }
}

fn is_of(name: &Namespace, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.as_str().starts_with(beginning),
        None => name.as_str() == pattern,
    }
}

/// None where the name is not of the pattern, or the other one would be none.
fn replaced(name: &Namespace, from: &str, to: &str) -> Option<Namespace> {
    match (from.strip_suffix('*'), to.strip_suffix('*')) {
        (Some(from), Some(to)) => {
            let rest = name.as_str().strip_prefix(from)?;
            Namespace::parse(&format!("{to}{rest}"))
        }
        _ if name.as_str() == from => Namespace::parse(to),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
