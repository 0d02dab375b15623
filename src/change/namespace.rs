//! Names of collections, and which of them a link replicates.

use std::fmt;
use std::sync::Arc;

use super::key::stable_hash;
use super::pattern::{Pattern, fixed_part};
use super::{Pair, Renames, Side};

/// The server's own limit on a database with a collection.
pub const NAMESPACE_BYTES_MAX: usize = 255;

/// A database and a collection. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace {
    full: Arc<str>,
    dot: usize,
}

impl Namespace {
    pub fn new(database: &str, collection: &str) -> Self {
        Self {
            full: format!("{database}.{collection}").into(),
            dot: database.len(),
        }
    }

    /// Reads `database.collection`; a collection's name may hold further dots.
    pub fn parse(full: &str) -> Option<Self> {
        let dot = full.find('.')?;
        (dot > 0 && dot + 1 < full.len()).then(|| Self {
            full: full.into(),
            dot,
        })
    }

    pub fn database(&self) -> &str {
        &self.full[..self.dot]
    }

    pub fn collection(&self) -> &str {
        &self.full[self.dot + 1..]
    }

    /// The lane of a collection whose documents must stay together.
    pub fn lane(&self, lanes: usize) -> usize {
        (stable_hash(self.full.as_bytes(), &[]) % lanes.max(1) as u64) as usize
    }

    pub fn as_str(&self) -> &str {
        &self.full
    }

    /// No server takes it.
    pub fn is_too_long(&self) -> bool {
        self.full.len() > NAMESPACE_BYTES_MAX
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.full)
    }
}

/// Databases that belong to a server itself.
const SERVER_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// Include and exclude patterns over `database.collection` on a; exclude wins. What is included is
/// the same collections on b, whatever they are called there.
#[derive(Debug, Clone)]
pub struct NamespaceFilter {
    include: Vec<String>,
    exclude: Vec<String>,
    own_database: String,
    renames: Renames,
    /// What `include` comes to on each cluster.
    patterns: Pair<Vec<String>>,
    included: Vec<Pattern>,
    excluded: Vec<Pattern>,
}

impl NamespaceFilter {
    /// `own_database` is where tandem keeps its state; it is never replicated.
    /// Nothing is what a broken pattern says: whoever reads a configuration refuses it.
    pub fn new(include: &[String], exclude: &[String], own_database: &str) -> Self {
        let parsed = |typed: &[String]| -> Vec<Pattern> {
            let patterns = typed.iter().map(|typed| Pattern::parse(typed));
            patterns.filter_map(Result::ok).collect()
        };
        Self {
            included: parsed(include),
            excluded: parsed(exclude),
            include: include.to_vec(),
            exclude: exclude.to_vec(),
            own_database: own_database.to_owned(),
            renames: Renames::default(),
            patterns: Pair::new(include.to_vec(), include.to_vec()),
        }
    }

    /// With collections that b calls otherwise.
    pub fn renamed(mut self, renames: Renames) -> Self {
        let include = self.include.iter();
        let on_b = include.flat_map(|pattern| renames.patterns_on(Side::B, pattern));
        self.patterns.b = on_b.collect();
        self.renames = renames;
        self
    }

    /// Whether a collection that `side` calls so is included.
    pub fn includes(&self, side: Side, name: &Namespace) -> bool {
        let on_a = self.renames.on_a(side, name);
        on_a.is_some_and(|name| {
            let on_b = self.renames.on(Side::B, &name);
            let leads_back = || self.renames.on_a(Side::B, &on_b).as_ref() == Some(&name);
            self.is_named(&name) && self.may_be_replicated(&on_b) && leads_back()
        })
    }

    /// Whether a collection of that name on a is asked for, though its name on b, which no server
    /// takes from an application, keeps it from being included.
    pub fn has_no_name_on_b(&self, name: &Namespace) -> bool {
        self.is_named(name) && !self.includes(Side::A, name)
    }

    fn is_named(&self, name: &Namespace) -> bool {
        let named = |patterns: &[Pattern]| {
            patterns
                .iter()
                .any(|pattern| pattern.matches(name.as_str()))
        };
        self.may_be_replicated(name) && named(&self.included) && !named(&self.excluded)
    }

    fn may_be_replicated(&self, name: &Namespace) -> bool {
        !SERVER_DATABASES.contains(&name.database())
            && name.database() != self.own_database
            && !name.collection().starts_with("system.")
    }

    /// Whether a collection of the database on `side` may be included. Where not, nobody has to look
    /// into it.
    pub fn may_include_from(&self, side: Side, database: &str) -> bool {
        let reaches = |pattern: &String| {
            let fixed = fixed_part(pattern);
            match fixed.split_once('.') {
                Some((named, _)) => named == database,
                None => format!("{database}.").starts_with(&fixed),
            }
        };
        !SERVER_DATABASES.contains(&database)
            && database != self.own_database
            && self.patterns[side].iter().any(reaches)
    }

    pub fn include(&self) -> &[String] {
        &self.include
    }

    pub fn exclude(&self) -> &[String] {
        &self.exclude
    }

    /// Patterns that match everything included on `side`; they may match more.
    pub fn patterns(&self, side: Side) -> &[String] {
        &self.patterns[side]
    }

    pub fn renames(&self) -> &Renames {
        &self.renames
    }

    pub fn own_database(&self) -> &str {
        &self.own_database
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> NamespaceFilter {
        let owned = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        NamespaceFilter::new(&owned(include), &owned(exclude), "__tandem")
    }

    fn ns(full: &str) -> Namespace {
        Namespace::parse(full).unwrap()
    }

    #[test]
    fn exclude_wins_over_include() {
        let filter = filter(&["shop.*"], &["shop.tmp_*"]);
        assert!(filter.includes(Side::A, &ns("shop.orders")));
        assert!(!filter.includes(Side::A, &ns("shop.tmp_1")));
        assert!(!filter.includes(Side::A, &ns("other.orders")));
    }

    #[test]
    fn what_belongs_to_a_server_or_to_tandem_is_never_included() {
        let filter = filter(&["*"], &[]);
        for name in [
            "admin.users",
            "local.oplog.rs",
            "config.system.sessions",
            "__tandem.keys",
            "shop.system.views",
        ] {
            assert!(!filter.includes(Side::A, &ns(name)), "{name}");
        }
    }

    #[test]
    fn only_databases_that_a_pattern_reaches_are_looked_into() {
        let reached =
            |include: &[&str], database| filter(include, &[]).may_include_from(Side::A, database);
        assert!(reached(&["shop.*"], "shop"));
        assert!(reached(&["shop.orders"], "shop"));
        assert!(reached(&["sh*p.orders"], "shop"));
        assert!(reached(&["*"], "anything"));
        assert!(!reached(&["shop.*"], "shop2"));
        assert!(!reached(&["shop2*"], "shop"));
        assert!(!reached(&["*"], "admin"));
        assert!(!reached(&["*"], "__tandem"));
        assert!(reached(&[r"/^shop\.o/"], "shop"));
        assert!(!reached(&[r"/^shop\.o/"], "bank"));
        assert!(reached(&[r"/\.o/"], "bank"));
    }

    #[test]
    fn a_collection_may_have_dots_in_its_name() {
        let name = ns("shop.orders.archive");
        assert_eq!(
            (name.database(), name.collection()),
            ("shop", "orders.archive")
        );
        assert!(Namespace::parse("shop").is_none());
    }
}
