//! `[[renames]]`: collections that b calls otherwise than a does.

use super::meaning::{check_database, check_pattern};
use super::problems::Problems;
use super::tables::{Reading, each_table};
use crate::change::{
    NAMESPACE_BYTES_MAX, NamespaceFilter, Rename, Renames, expression_of, patterns_may_overlap,
};

const KEYS: [&str; 2] = ["a", "b"];

/// What is included, with the renames that `typed` means. It is of use only where `problems` stays
/// empty.
pub fn renamed(
    typed: Option<&toml::Value>,
    namespaces: NamespaceFilter,
    problems: &mut Problems,
) -> NamespaceFilter {
    let Some(typed) = typed else {
        return namespaces;
    };
    let mut read: Vec<(String, Rename)> = Vec::new();
    each_table("renames", typed, &KEYS, problems, |reading, table| {
        let Some(rename) = reading.rename(table) else {
            return;
        };
        reading.check(&rename, &namespaces);
        for (other, earlier) in &read {
            reading.must_differ(&rename, other, earlier);
        }
        read.push((reading.path.clone(), rename));
    });
    let renames = Renames::new(read.iter().map(|(_, rename)| rename.clone()).collect());
    if let Some((rename, pattern)) = renames.collision(namespaces.include(), namespaces.exclude()) {
        let found = read.iter().find(|(_, one)| one == rename);
        let key = found.map_or("renames", |(path, _)| path);
        let what = format!(
            "{:?} may be the name of another collection too, which {pattern:?} includes and b calls \
             as a does: add it to namespaces.exclude",
            rename.b
        );
        problems.add(format!("{key}.b"), what);
    }
    namespaces.renamed(renames)
}

impl Reading<'_> {
    /// None where a name is missing or broken.
    fn rename(&mut self, table: &toml::Table) -> Option<Rename> {
        let [a, b] = KEYS.map(|key| self.name(key, table));
        let rename = Rename { a: a?, b: b? };
        if rename.a.ends_with('*') != rename.b.ends_with('*') {
            self.wrong("b", "must end in * like a, or neither may");
            return None;
        }
        Some(rename)
    }

    fn name(&mut self, key: &str, table: &toml::Table) -> Option<String> {
        let Some(name) = table.get(key).and_then(toml::Value::as_str) else {
            self.wrong(key, "must be a name such as \"shop.orders\" or \"shop.*\"");
            return None;
        };
        match check_name(name) {
            Ok(()) => Some(name.to_owned()),
            Err(what) => {
                self.wrong(key, what);
                None
            }
        }
    }

    fn check(&mut self, rename: &Rename, namespaces: &NamespaceFilter) {
        for (key, name) in [("a", &rename.a), ("b", &rename.b)] {
            let (database, collection) = name.split_once('.').unwrap_or_default();
            if database == namespaces.own_database() {
                self.wrong(
                    key,
                    format!("{name:?} is of a database that is never replicated"),
                );
            } else if collection.starts_with("system.") {
                self.wrong(key, format!("{name:?} is never replicated"));
            }
        }
        if rename.a == rename.b {
            self.wrong("b", "is the same name as on a");
        }
        let met = |pattern: &String| patterns_may_overlap(&rename.a, pattern);
        if !namespaces.include().iter().any(met) {
            let what = format!("{:?} is nothing that namespaces.include names", rename.a);
            self.wrong("a", what);
        }
    }

    fn must_differ(&mut self, rename: &Rename, other: &str, earlier: &Rename) {
        for (key, one, before) in [("a", &rename.a, &earlier.a), ("b", &rename.b, &earlier.b)] {
            if patterns_may_overlap(one, before) {
                let what = format!("{one:?} and {before:?} ({other}.{key}) may be one collection");
                self.wrong(key, what);
            }
        }
    }
}

/// # Errors
/// A sentence that begins with the name.
fn check_name(name: &str) -> Result<(), String> {
    let fixed = name.strip_suffix('*').unwrap_or(name);
    if expression_of(name).is_some() || fixed.contains('*') {
        return Err(format!(
            "{name:?} may have one * at its end, and nothing else"
        ));
    }
    let Some((database, collection)) = fixed.split_once('.') else {
        return Err(format!(
            "{name:?} must name a database: database.collection, or database.*"
        ));
    };
    check_pattern(name)?;
    check_database(database)?;
    if collection.contains(['$', '\0']) {
        return Err(format!("{name:?} is not a name that a collection can have"));
    }
    if fixed.len() > NAMESPACE_BYTES_MAX {
        return Err(format!(
            "{name:?} is longer than the {NAMESPACE_BYTES_MAX} bytes that servers take"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Environment, Flags};
    use crate::change::{Namespace, Side};
    use crate::error::Result;

    fn with(include: &str, more: &str) -> Result<Config> {
        let text = format!(
            "[clusters.a]\nuri = \"mongodb://one/\"\n[clusters.b]\nuri = \"mongodb://two/\"\n\
             [namespaces]\ninclude = [{include}]\n{more}"
        );
        Config::parse(
            &text,
            "tandem.toml",
            Path::new(""),
            &Environment::default(),
            &Flags::default(),
        )
    }

    fn rename(a: &str, b: &str) -> String {
        format!("[[renames]]\na = {a:?}\nb = {b:?}\n")
    }

    #[test]
    fn what_is_included_is_known_by_its_name_on_either_side() {
        let config = with("\"shop.*\"", &rename("shop.*", "shop_eu.*")).unwrap();
        let includes = |side, name| {
            let name = Namespace::parse(name).unwrap();
            config.namespaces.includes(side, &name)
        };
        assert!(includes(Side::A, "shop.orders") && includes(Side::B, "shop_eu.orders"));
        assert!(!includes(Side::A, "shop_eu.orders") && !includes(Side::B, "shop.orders"));
        let shown = config.namespaces.renames().shown();
        assert_eq!(shown, ["shop.* -> shop_eu.*"]);
    }

    #[test]
    fn a_name_on_b_that_no_application_can_use_is_left_out() {
        let config = with("\"shop.*\"", &rename("shop.*", "shop_eu.sys*")).unwrap();
        let on_a = Namespace::parse("shop.tem.views").unwrap();
        assert!(!config.namespaces.includes(Side::A, &on_a));
        assert!(config.namespaces.has_no_name_on_b(&on_a));
    }

    fn refused(include: &str, more: &str, expected: &str) {
        let shown = with(include, more).expect_err(more).to_string();
        assert!(shown.contains(expected), "{more:?} gives {shown}");
    }

    #[test]
    fn names_that_cannot_be_are_refused_with_their_key() {
        let long = format!("shop.{}", "x".repeat(300));
        for (a, b, expected) in [
            ("shop.*", "eu.orders", "renames[0].b: must end in *"),
            ("s*p.*", "eu.*", "may have one * at its end"),
            ("/shop/", "eu.x", "may have one * at its end"),
            (
                "shop*",
                "eu*",
                "renames[0].a: \"shop*\" must name a database",
            ),
            ("shop.*", "shop.*", "renames[0].b: is the same name"),
            (
                "shop.*",
                "admin.*",
                "must not be admin, which belongs to the server",
            ),
            (
                "shop.*",
                "__tandem.*",
                "a database that is never replicated",
            ),
            ("shop.x", "eu.system.x", "is never replicated"),
            ("shop.*", "e u.*", "is not a name that a database can have"),
            ("shop.x", &long, "longer than the 255 bytes"),
            ("bank.*", "eu.*", "nothing that namespaces.include names"),
        ] {
            refused("\"shop.*\"", &rename(a, b), expected);
        }
        for (more, expected) in [
            ("[renames]\na = 1\n", "renames: must be tables"),
            (
                "[[renames]]\na = \"shop.*\"\nc = 1\n",
                "renames[0].c: unknown key",
            ),
            (
                "[[renames]]\na = \"shop.*\"\n",
                "renames[0].b: must be a name",
            ),
        ] {
            refused("\"shop.*\"", more, expected);
        }
    }

    #[test]
    fn renames_that_are_not_one_to_one_are_refused_with_both_keys() {
        for (include, more, expected) in [
            (
                "\"shop.*\"",
                rename("shop.*", "eu.*") + &rename("shop.x", "us.x"),
                "renames[1].a: \"shop.x\" and \"shop.*\" (renames[0].a) may be one",
            ),
            (
                "\"shop.*\", \"bank.*\"",
                rename("shop.*", "eu.*") + &rename("bank.*", "eu.b*"),
                "renames[1].b: \"eu.b*\" and \"eu.*\" (renames[0].b) may be one",
            ),
            (
                "\"*\"",
                rename("shop.*", "eu.*"),
                "renames[0].b: \"eu.*\" may be the name of another collection too",
            ),
        ] {
            refused(include, &more, expected);
        }
        let both = rename("one.*", "two.*") + &rename("two.*", "one.*");
        with("\"*\"", &both).expect("names may change places");
    }
}
