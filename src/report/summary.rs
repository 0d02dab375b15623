//! How many conflicts there were, by day, namespace, kind and winner.

use std::collections::BTreeMap;

use bson::{DateTime, RawDocument};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::{Format, ReportHead, csv_rows, table};
use crate::change::rfc3339;

/// The winner of a record that has none, such as a dead letter.
const NOBODY: &str = "none";
const DAY_CHARS: usize = "2026-01-31".len();

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    format: u32,
    link: String,
    complete_since: Option<String>,
    pub total: u64,
    /// Days in UTC.
    pub by_day: BTreeMap<String, u64>,
    pub by_namespace: BTreeMap<String, u64>,
    pub by_kind: BTreeMap<String, u64>,
    pub by_winner: BTreeMap<String, u64>,
}

impl Summary {
    pub fn new(head: &ReportHead) -> Self {
        Self {
            format: 1,
            link: head.link.clone(),
            complete_since: head.complete_since.map(rfc3339),
            ..Self::default()
        }
    }

    pub fn add(&mut self, record: &RawDocument) {
        let text = |name: &str| record.get_str(name).unwrap_or(NOBODY).to_owned();
        let logged_at = record.get_datetime("logged_at");
        let day = logged_at.map_or_else(|_| NOBODY.to_owned(), day);
        self.total += 1;
        for (counts, name) in [
            (&mut self.by_day, day),
            (&mut self.by_namespace, text("namespace")),
            (&mut self.by_kind, text("kind")),
            (&mut self.by_winner, text("winner")),
        ] {
            *counts.entry(name).or_default() += 1;
        }
    }

    pub(super) fn render(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Json | Format::Ndjson => {
                let mut line = serde_json::to_vec(self).expect("counts make JSON");
                line.push(b'\n');
                line
            }
            Format::Csv => {
                let mut out =
                    csv_rows::line(["by", "name", "count"].map(str::to_owned).into_iter());
                for row in self.rows() {
                    out.extend(csv_rows::line(row.into_iter()));
                }
                out
            }
            Format::Table if self.total == 0 => b"no conflicts\n".to_vec(),
            Format::Table => {
                let mut table = Table::new();
                table
                    .load_preset(presets::NOTHING)
                    .set_header(["by", "name", "count"]);
                for row in self.rows() {
                    table.add_row(row.map(|cell| table::escaped(&cell)));
                }
                format!("{}\n", table.trim_fmt()).into_bytes()
            }
        }
    }

    fn rows(&self) -> Vec<[String; 3]> {
        let mut rows = vec![["total".into(), String::new(), self.total.to_string()]];
        for (by, counts) in [
            ("day", &self.by_day),
            ("namespace", &self.by_namespace),
            ("kind", &self.by_kind),
            ("winner", &self.by_winner),
        ] {
            for (name, count) in counts {
                rows.push([by.into(), csv_rows::safe_text(name), count.to_string()]);
            }
        }
        rows
    }
}

fn day(time: DateTime) -> String {
    let text = rfc3339(time);
    text.get(..DAY_CHARS).unwrap_or(&text).to_owned()
}
