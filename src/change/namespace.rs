//! Names of collections, and which of them a link replicates.

use std::fmt;
use std::sync::Arc;

use super::key::stable_hash;
use super::pattern::{Pattern, fixed_part};

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
}

impl fmt::Display for Namespace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.full)
    }
}

/// Databases that belong to a server itself.
const SERVER_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// Include and exclude patterns over `database.collection`; exclude wins.
#[derive(Debug, Clone)]
pub struct NamespaceFilter {
    include: Vec<String>,
    exclude: Vec<String>,
    own_database: String,
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
        }
    }

    pub fn includes(&self, namespace: &Namespace) -> bool {
        let named = |patterns: &[Pattern]| {
            patterns
                .iter()
                .any(|pattern| pattern.matches(namespace.as_str()))
        };
        !SERVER_DATABASES.contains(&namespace.database())
            && namespace.database() != self.own_database
            && !namespace.collection().starts_with("system.")
            && named(&self.included)
            && !named(&self.excluded)
    }

    /// Whether a collection of the database may be included. Where not, nobody has to look into it.
    pub fn may_include_from(&self, database: &str) -> bool {
        let reaches = |pattern: &String| {
            let fixed = fixed_part(pattern);
            match fixed.split_once('.') {
                Some((named, _)) => named == database,
                None => format!("{database}.").starts_with(&fixed),
            }
        };
        !SERVER_DATABASES.contains(&database)
            && database != self.own_database
            && self.include.iter().any(reaches)
    }

    pub fn include(&self) -> &[String] {
        &self.include
    }

    pub fn exclude(&self) -> &[String] {
        &self.exclude
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
        assert!(filter.includes(&ns("shop.orders")));
        assert!(!filter.includes(&ns("shop.tmp_1")));
        assert!(!filter.includes(&ns("other.orders")));
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
            assert!(!filter.includes(&ns(name)), "{name}");
        }
    }

    #[test]
    fn only_databases_that_a_pattern_reaches_are_looked_into() {
        let reached = |include: &[&str], database| filter(include, &[]).may_include_from(database);
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
