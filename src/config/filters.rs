//! `[[filters]]`: which documents, fields and operations of some collections are replicated.

use bson::{Bson, Document, RawDocumentBuf, doc};
use serde_json::json;

use super::Mode;
use super::meaning::check_pattern;
use super::problems::Problems;
use super::tables::{Reading, each_table};
use crate::change::{Deletes, Filter, Filters, Pattern, Selection};

const KEYS: [&str; 4] = ["namespace", "filter", "exclude_fields", "ignore"];

/// They read something else than the document, or are not allowed in a read by key.
const FORBIDDEN: [&str; 8] = [
    "$where",
    "$function",
    "$accumulator",
    "$text",
    "$near",
    "$nearSphere",
    "$rand",
    "$sampleRate",
];

/// Variables that change without the document.
const MOVING: [&str; 3] = ["$$NOW", "$$CLUSTER_TIME", "$$USER_ROLES"];

/// The filters that `typed` means. They are of use only where `problems` stays empty.
pub fn filters(typed: Option<&toml::Value>, mode: Mode, problems: &mut Problems) -> Filters {
    let Some(typed) = typed else {
        return Filters::default();
    };
    let mut filters = Vec::new();
    each_table("filters", typed, &KEYS, problems, |reading, table| {
        filters.extend(reading.filter(table, mode));
    });
    Filters::new(filters)
}

impl Reading<'_> {
    fn filter(&mut self, table: &toml::Table, mode: Mode) -> Option<Filter> {
        if mode == Mode::TwoWay {
            self.refuse_two_way(table);
        }
        let typed = table.get("namespace").and_then(toml::Value::as_str);
        let Some(namespace) = typed else {
            self.wrong("namespace", "must be a pattern such as \"shop.orders\"");
            return None;
        };
        let pattern = check_pattern(namespace).and_then(|()| Pattern::parse(namespace));
        let pattern = match pattern {
            Ok(pattern) => pattern,
            Err(what) => {
                self.wrong("namespace", what);
                return None;
            }
        };
        let query = table.get("filter").and_then(|typed| self.query(typed));
        let fields = table.get("exclude_fields");
        let fields = fields.map_or_else(Vec::new, |typed| self.fields(typed));
        if let Some(query) = &query {
            self.refuse_blind(query, &fields);
        }
        let mut projection = doc! {};
        projection.extend(fields.iter().map(|name| (name.clone(), Bson::Int32(0))));
        Some(Filter {
            pattern,
            selection: Selection {
                filter: query.and_then(|query| RawDocumentBuf::try_from(&query).ok()),
                projection: match projection.is_empty() {
                    true => None,
                    false => RawDocumentBuf::try_from(&projection).ok(),
                },
            },
            deletes: table
                .get("ignore")
                .map_or(Deletes::Replicated, |typed| self.ignore(typed)),
            typed: format!("{namespace}\n{table}"),
        })
    }

    fn refuse_two_way(&mut self, table: &toml::Table) {
        for (key, why) in [
            (
                "filter",
                "one-way only: what the other side writes outside of the filter would never come \
                 back, and the two sides would never agree",
            ),
            (
                "exclude_fields",
                "one-way only: the other side's documents would come back without the fields and \
                 take them away",
            ),
            (
                "ignore",
                "one-way only: the next write on the other side would bring a deleted document back",
            ),
        ] {
            if table.contains_key(key) {
                self.wrong(key, why);
            }
        }
    }

    /// The target has no such fields, so it could not tell what is in the filter.
    fn refuse_blind(&mut self, query: &Document, fields: &[String]) {
        let Some(read) = fields_read(query) else {
            if !fields.is_empty() {
                let what = "an expression or a schema may read what exclude_fields leaves out: \
                            write it with fields and operators";
                self.wrong("filter", what);
            }
            return;
        };
        for field in fields {
            let touched = |path: &&String| is_within(path, field) || is_within(field, path);
            if let Some(path) = read.iter().find(touched) {
                let what = format!("{path:?} is left out by exclude_fields ({field:?})");
                self.wrong("filter", what);
            }
        }
    }

    fn query(&mut self, typed: &toml::Value) -> Option<Document> {
        let query = match typed.as_table().map(|_| Bson::try_from(json_of(typed))) {
            Some(Ok(Bson::Document(query))) => query,
            Some(Err(error)) => {
                self.wrong("filter", format!("cannot be read: {error}"));
                return None;
            }
            Some(Ok(_)) | None => {
                self.wrong("filter", "must be a query such as { region = \"EU\" }");
                return None;
            }
        };
        if let Some(name) = forbidden(&Bson::Document(query.clone())) {
            self.wrong("filter", format!("{name} cannot decide what is replicated"));
            return None;
        }
        Some(query)
    }

    fn fields(&mut self, typed: &toml::Value) -> Vec<String> {
        let names = texts(typed).filter(|names| !names.is_empty());
        let Some(names) = names else {
            self.wrong(
                "exclude_fields",
                "must be a list of fields such as [\"card\", \"a.b\"]",
            );
            return Vec::new();
        };
        for name in &names {
            let broken = name
                .split('.')
                .any(|part| part.is_empty() || part.starts_with('$'));
            let within = |other: &&String| *other != name && is_within(name, other);
            if broken || name == "_id" || name.starts_with("_id.") {
                self.wrong("exclude_fields", format!("{name:?} cannot be left out"));
            } else if let Some(outer) = names.iter().find(within) {
                self.wrong("exclude_fields", format!("{name:?} is a part of {outer:?}"));
            }
        }
        names
    }

    fn ignore(&mut self, typed: &toml::Value) -> Deletes {
        match texts(typed).as_deref() {
            Some([one]) if *one == "delete" => Deletes::Ignored,
            Some([]) => Deletes::Replicated,
            Some(_) | None => {
                self.wrong("ignore", "must be [\"delete\"]");
                Deletes::Replicated
            }
        }
    }
}

fn texts(typed: &toml::Value) -> Option<Vec<String>> {
    let items = typed.as_array()?.iter();
    items.map(|item| item.as_str().map(str::to_owned)).collect()
}

/// Whether a path is another one, or leads into it.
fn is_within(path: &str, outer: &str) -> bool {
    let rest = path.strip_prefix(outer);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The fields that a query reads, without places in arrays; none where only the server knows.
fn fields_read(query: &Document) -> Option<Vec<String>> {
    let mut read = Vec::new();
    for (name, value) in query {
        match (name.as_str(), value) {
            ("$comment", _) => {}
            ("$and" | "$or" | "$nor", Bson::Array(parts)) => {
                for part in parts {
                    read.extend(fields_read(part.as_document()?)?);
                }
            }
            (operator, _) if operator.starts_with('$') => return None,
            (path, _) => {
                let is_place = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
                let parts: Vec<&str> = path.split('.').filter(|part| !is_place(part)).collect();
                read.push(parts.join("."));
            }
        }
    }
    Some(read)
}

/// Extended JSON may stand in a query: `{ _id = { "$oid" = "…" } }`.
fn json_of(typed: &toml::Value) -> serde_json::Value {
    match typed {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(number) => json!(number),
        toml::Value::Float(number) => json!(number),
        toml::Value::Boolean(value) => json!(value),
        toml::Value::Datetime(time) => json!({ "$date": time.to_string() }),
        toml::Value::Array(items) => items.iter().map(json_of).collect(),
        toml::Value::Table(table) => {
            let fields = table
                .iter()
                .map(|(name, value)| (name.clone(), json_of(value)));
            serde_json::Value::Object(fields.collect())
        }
    }
}

/// The first name in a query that must not be there.
fn forbidden(value: &Bson) -> Option<String> {
    match value {
        Bson::Document(fields) => fields.iter().find_map(|(name, value)| {
            let is_bad = FORBIDDEN.contains(&name.as_str());
            is_bad.then(|| name.clone()).or_else(|| forbidden(value))
        }),
        Bson::Array(items) => items.iter().find_map(forbidden),
        Bson::String(text) => {
            let variable = text.split('.').next().unwrap_or_default();
            MOVING.contains(&variable).then(|| text.clone())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, Environment, Flags};
    use crate::error::Result;

    fn filtered(more: &str) -> Result<Config> {
        let text = format!(
            "[clusters.a]\nuri = \"mongodb://one/\"\n[clusters.b]\nuri = \"mongodb://two/\"\n\
             [namespaces]\ninclude = [\"shop.*\"]\n[link]\nmode = \"one-way\"\n\
             [[filters]]\nnamespace = \"shop.orders\"\n{more}"
        );
        let (environment, flags) = (Environment::default(), Flags::default());
        Config::parse(&text, "tandem.toml", Path::new(""), &environment, &flags)
    }

    #[test]
    fn a_filter_that_could_not_hold_is_refused_with_the_reason() {
        for (more, expected) in [
            (
                "fliter = {}",
                "filters[0].fliter: unknown key; did you mean filter?",
            ),
            ("filter = \"EU\"", "filters[0].filter: must be a query"),
            (
                "filter = { v = { \"$gt\" = { \"$oid\" = \"x\" } } }",
                "filters[0].filter: cannot be read",
            ),
            (
                "filter = { \"$or\" = [{ \"$where\" = \"1\" }] }",
                "$where cannot decide what is replicated",
            ),
            (
                "filter = { \"$expr\" = { \"$lt\" = [\"$at\", \"$$NOW\"] } }",
                "$$NOW cannot decide what is replicated",
            ),
            ("exclude_fields = [\"_id\"]", "\"_id\" cannot be left out"),
            (
                "exclude_fields = [\"a\", \"a.b\"]",
                "\"a.b\" is a part of \"a\"",
            ),
            (
                "ignore = [\"insert\"]",
                "filters[0].ignore: must be [\"delete\"]",
            ),
            (
                "filter = { a = 1 }\nexclude_fields = [\"a\"]",
                "\"a\" is left out by exclude_fields",
            ),
            (
                "filter = { \"$and\" = [{ \"a.0.b\" = 1 }] }\nexclude_fields = [\"a.b.c\"]",
                "\"a.b\" is left out by exclude_fields",
            ),
            (
                "filter = { \"$expr\" = true }\nexclude_fields = [\"a\"]",
                "an expression or a schema may read",
            ),
        ] {
            let shown = filtered(more).expect_err(more).to_string();
            assert!(shown.contains(expected), "{more:?} gives {shown}");
            assert!(shown.contains("has 1 problem:"), "{more:?} gives {shown}");
        }
        for more in [
            "filter = { \"a.b\" = 1, ab = 2 }\nexclude_fields = [\"a.c\", \"abc\"]",
            "filter = { \"$expr\" = true }\nignore = [\"delete\"]",
        ] {
            filtered(more).expect(more);
        }
    }
}
