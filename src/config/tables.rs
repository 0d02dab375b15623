//! Lists of tables, such as `[[filters]]`: each is read on its own, with its problems under its key.

use super::problems::{Problems, nearest};

/// One table that is being read.
pub struct Reading<'a> {
    /// As `filters[0]`.
    pub path: String,
    problems: &'a mut Problems,
}

impl Reading<'_> {
    pub fn wrong(&mut self, key: &str, what: impl Into<String>) {
        self.problems.add(format!("{}.{key}", self.path), what);
    }

    fn refuse_unknown(&mut self, table: &toml::Table, known: &[&str]) {
        for key in table.keys().filter(|key| !known.contains(&key.as_str())) {
            let meant = nearest(key, known.iter().copied());
            let meant = meant.map(|known| format!("; did you mean {known}?"));
            self.wrong(key, format!("unknown key{}", meant.unwrap_or_default()));
        }
    }
}

/// Hands each table of the list `name` to `read`; what is no table and what has unknown keys is a
/// problem.
pub fn each_table(
    name: &str,
    typed: &toml::Value,
    known: &[&str],
    problems: &mut Problems,
    mut read: impl FnMut(&mut Reading<'_>, &toml::Table),
) {
    let Some(tables) = typed.as_array() else {
        problems.add(name, format!("must be tables of their own: [[{name}]]"));
        return;
    };
    for (index, table) in tables.iter().enumerate() {
        let path = format!("{name}[{index}]");
        let Some(table) = table.as_table() else {
            problems.add(path, format!("must be a table: [[{name}]]"));
            continue;
        };
        let mut reading = Reading { path, problems };
        reading.refuse_unknown(table, known);
        read(&mut reading, table);
    }
}
