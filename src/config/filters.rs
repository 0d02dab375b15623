//! `[[filters]]`: which documents, fields and operations of some collections are replicated.

use bson::{Bson, RawDocumentBuf, doc};
use serde_json::json;

use super::Mode;
use super::meaning::check_pattern;
use super::problems::{Problems, nearest};
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
const MOVING: [&str; 2] = ["$$NOW", "$$CLUSTER_TIME"];

/// The filters that `typed` means. They are of use only where `problems` stays empty.
pub fn filters(typed: Option<&toml::Value>, mode: Mode, problems: &mut Problems) -> Filters {
    let Some(typed) = typed else {
        return Filters::default();
    };
    let Some(tables) = typed.as_array() else {
        problems.add("filters", "must be tables of their own: [[filters]]");
        return Filters::default();
    };
    let mut filters = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let path = format!("filters[{index}]");
        let Some(table) = table.as_table() else {
            problems.add(path, "must be a table: [[filters]]");
            continue;
        };
        let mut reading = Reading { path, problems };
        filters.extend(reading.filter(table, mode));
    }
    Filters::new(filters)
}

struct Reading<'a> {
    path: String,
    problems: &'a mut Problems,
}

impl Reading<'_> {
    fn wrong(&mut self, key: &str, what: impl Into<String>) {
        self.problems.add(format!("{}.{key}", self.path), what);
    }

    fn filter(&mut self, table: &toml::Table, mode: Mode) -> Option<Filter> {
        for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            let known = nearest(key, KEYS).map(|known| format!("; did you mean {known}?"));
            self.wrong(key, format!("unknown key{}", known.unwrap_or_default()));
        }
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
        Some(Filter {
            pattern,
            selection: Selection {
                filter: table.get("filter").and_then(|typed| self.query(typed)),
                projection: table
                    .get("exclude_fields")
                    .and_then(|typed| self.fields(typed)),
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

    fn query(&mut self, typed: &toml::Value) -> Option<RawDocumentBuf> {
        let found = typed.as_table().map(|_| Bson::try_from(json_of(typed)));
        let Some(Ok(Bson::Document(query))) = found else {
            self.wrong("filter", "must be a query such as { region = \"EU\" }");
            return None;
        };
        if let Some(name) = forbidden(&Bson::Document(query.clone())) {
            self.wrong("filter", format!("{name} cannot decide what is replicated"));
            return None;
        }
        RawDocumentBuf::try_from(&query).ok()
    }

    fn fields(&mut self, typed: &toml::Value) -> Option<RawDocumentBuf> {
        let names = texts(typed).filter(|names| !names.is_empty());
        let Some(names) = names else {
            self.wrong(
                "exclude_fields",
                "must be a list of fields such as [\"card\", \"a.b\"]",
            );
            return None;
        };
        let mut projection = doc! {};
        for name in &names {
            let broken = name
                .split('.')
                .any(|part| part.is_empty() || part.starts_with('$'));
            let within = |other: &&String| name.starts_with(&format!("{other}."));
            if broken || name == "_id" || name.starts_with("_id.") {
                self.wrong("exclude_fields", format!("{name:?} cannot be left out"));
            } else if let Some(outer) = names.iter().find(within) {
                self.wrong("exclude_fields", format!("{name:?} is a part of {outer:?}"));
            } else {
                projection.insert(name.as_str(), 0);
            }
        }
        RawDocumentBuf::try_from(&projection).ok()
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
        Bson::String(text) => MOVING.contains(&text.as_str()).then(|| text.clone()),
        _ => None,
    }
}
