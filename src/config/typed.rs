//! The configuration as typed: flags over environment over file over defaults, key by key.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::environment::Environment;
use super::keys::{KEYS, Key, Value};
use super::problems::{Problems, nearest};
use crate::fault::Fault;

/// What options on the command line say over file and environment.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// Relative to the current directory, unlike `link.state_dir`.
    pub state_dir: Option<PathBuf>,
}

/// Tables of their own, apart from the keys.
const FILTERS: &str = "filters";
const RENAMES: &str = "renames";
const TABLES: [&str; 2] = [FILTERS, RENAMES];

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Default,
    File,
    Environment,
}

/// One value for every key, each fitting its kind.
#[derive(Clone)]
pub struct Settings {
    values: BTreeMap<&'static str, (Origin, Value)>,
    /// Keys that are not empty in the file, whether or not the environment outranks it.
    in_file: Vec<&'static str>,
    /// What only a file can give, by its name.
    tables: BTreeMap<&'static str, toml::Value>,
}

impl Settings {
    /// Merges file and environment; what does not fit becomes a problem and keeps its default.
    pub fn gather(table: &toml::Table, environment: &Environment, problems: &mut Problems) -> Self {
        let mut settings = Self {
            values: KEYS
                .iter()
                .map(|key| (key.path, (Origin::Default, key.default_value())))
                .collect(),
            in_file: Vec::new(),
            tables: TABLES
                .into_iter()
                .filter_map(|name| Some((name, table.get(name)?.clone())))
                .collect(),
        };
        settings.take_table("", table, problems);
        settings.take_environment(environment, problems);
        settings
    }

    fn take_table(&mut self, path: &str, table: &toml::Table, problems: &mut Problems) {
        for (name, typed) in table {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            let is_table = KEYS
                .iter()
                .any(|key| key.path.starts_with(&format!("{path}.")));
            if TABLES.contains(&path.as_str()) {
                continue;
            }
            match (key_at(&path), typed) {
                (Some(key), _) => {
                    if typed.as_str() != Some("") {
                        self.in_file.push(key.path);
                    }
                    self.put(key, Origin::File, key.path, key.kind.read(typed), problems);
                }
                (None, toml::Value::Table(inner)) if is_table => {
                    self.take_table(&path, inner, problems);
                }
                (None, _) if is_table => problems.add(path, "must be a table"),
                (None, _) => {
                    let known = nearest(&path, KEYS.iter().map(|key| key.path));
                    problems.add(path, unknown("key", known));
                }
            }
        }
    }

    fn take_environment(&mut self, environment: &Environment, problems: &mut Problems) {
        let lent: Vec<String> = [
            "clusters.a.uri_env",
            "clusters.b.uri_env",
            "alerts.webhook_env",
        ]
        .into_iter()
        .flat_map(|path| {
            let key = key_at(path).expect("the key is in the table");
            let outranking = environment.get(&key.variable()).map(str::to_owned);
            outranking.into_iter().chain([self.text(path).to_owned()])
        })
        .collect();
        let variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
        for (name, text) in environment.of_tandem() {
            if let Some(at) = variables.iter().position(|variable| variable == name) {
                let key = &KEYS[at];
                let read = key.kind.read_text(text);
                self.put(key, Origin::Environment, name, read, problems);
            } else if !lent.iter().any(|lent| lent == name) && !Fault::is_switched_by(name) {
                let known = nearest(name, variables.iter().map(String::as_str));
                problems.add(name, unknown("environment variable", known));
            }
        }
    }

    fn put(
        &mut self,
        key: &Key,
        origin: Origin,
        named: &str,
        read: Result<Value, String>,
        problems: &mut Problems,
    ) {
        match read {
            Ok(value) => {
                self.values.insert(key.path, (origin, value));
            }
            Err(what) => problems.add(named, what),
        }
    }

    /// Keys whose values are others in `newer`, in the order of the file.
    pub fn differing(&self, newer: &Settings) -> Vec<&'static str> {
        let keys = KEYS.iter().map(|key| key.path);
        let keys = keys.filter(|path| self.values[path].1 != newer.values[path].1);
        let of_both = |name: &str| (self.tables.get(name), newer.tables.get(name));
        let tables = TABLES.into_iter().filter(|name| {
            let (before, now) = of_both(name);
            before != now
        });
        keys.chain(tables).collect()
    }

    /// Takes the values of `newer` for some keys.
    pub fn take(&mut self, newer: &Settings, keys: &[&'static str]) {
        for key in keys.iter().copied() {
            self.values.insert(key, newer.values[key].clone());
        }
    }

    pub fn filters(&self) -> Option<&toml::Value> {
        self.tables.get(FILTERS)
    }

    pub fn renames(&self) -> Option<&toml::Value> {
        self.tables.get(RENAMES)
    }

    /// Whether file and environment both give this key.
    pub fn is_given_twice(&self, path: &str) -> bool {
        self.values[path].0 == Origin::Environment && self.in_file.contains(&path)
    }

    pub fn text(&self, path: &str) -> &str {
        match &self.values[path].1 {
            Value::Text(text) => text,
            other => unreachable!("{path} is a text, not {other:?}"),
        }
    }

    /// None where the text is empty.
    pub fn text_given(&self, path: &str) -> Option<&str> {
        Some(self.text(path)).filter(|text| !text.is_empty())
    }

    pub fn texts(&self, path: &str) -> &[String] {
        match &self.values[path].1 {
            Value::Texts(texts) => texts,
            other => unreachable!("{path} is a list, not {other:?}"),
        }
    }

    pub fn boolean(&self, path: &str) -> bool {
        match &self.values[path].1 {
            Value::Boolean(value) => *value,
            other => unreachable!("{path} is true or false, not {other:?}"),
        }
    }

    /// Never negative: no key allows it.
    pub fn integer(&self, path: &str) -> u64 {
        match &self.values[path].1 {
            Value::Integer(value) => value.unsigned_abs(),
            other => unreachable!("{path} is a number, not {other:?}"),
        }
    }

    pub fn size(&self, path: &str) -> usize {
        usize::try_from(self.integer(path)).unwrap_or(usize::MAX)
    }

    pub fn length(&self, path: &str) -> Duration {
        self.length_given(path).unwrap_or_default()
    }

    pub fn length_given(&self, path: &str) -> Option<Duration> {
        match &self.values[path].1 {
            Value::Length(length) => *length,
            other => unreachable!("{path} is a length of time, not {other:?}"),
        }
    }
}

fn key_at(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

fn unknown(what: &str, known: Option<&str>) -> String {
    match known {
        Some(known) => format!("unknown {what}; did you mean {known}?"),
        None => format!("unknown {what}"),
    }
}
