//! Names of collections, and which of them a link replicates.

use std::fmt;
use std::sync::Arc;

use super::key::stable_hash;

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

/// Include and exclude patterns over `database.collection`; `*` stands for any text, exclude wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceFilter {
    include: Vec<String>,
    exclude: Vec<String>,
    own_database: String,
}

impl NamespaceFilter {
    /// `own_database` is where tandem keeps its state; it is never replicated.
    pub fn new(include: &[String], exclude: &[String], own_database: &str) -> Self {
        Self {
            include: include.to_vec(),
            exclude: exclude.to_vec(),
            own_database: own_database.to_owned(),
        }
    }

    pub fn includes(&self, namespace: &Namespace) -> bool {
        let named = |patterns: &[String]| {
            patterns
                .iter()
                .any(|pattern| matches(pattern, namespace.as_str()))
        };
        !SERVER_DATABASES.contains(&namespace.database())
            && namespace.database() != self.own_database
            && !namespace.collection().starts_with("system.")
            && named(&self.include)
            && !named(&self.exclude)
    }

    /// Whether a collection of the database may be included. Where not, nobody has to look into it.
    pub fn may_include_from(&self, database: &str) -> bool {
        let reaches = |pattern: &String| {
            let fixed = pattern.split('*').next().unwrap_or_default();
            match fixed.split_once('.') {
                Some((named, _)) => named == database,
                None => format!("{database}.").starts_with(fixed),
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

/// Whether `text` is what `pattern` says, where `*` stands for any run of characters.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
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
    fn wildcards_stand_for_any_text() {
        for (pattern, text, expected) in [
            ("shop.*", "shop.orders", true),
            ("shop.*", "shop2.orders", false),
            ("*.orders", "shop.orders", true),
            ("shop.tmp_*", "shop.tmp_1", true),
            ("shop.tmp_*", "shop.temp", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("shop.orders", "shop.orders", true),
            ("shop.orders", "shop.orders2", false),
            ("*", "shop.orders", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
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
