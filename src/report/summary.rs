//! How many conflicts there were, by day, namespace, kind and winner.

use std::collections::BTreeMap;

use bson::{DateTime, RawDocument};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::extjson::without_controls;
use super::top::{Top, TopDocument};
use super::{Format, ReportHead, csv_rows, table};
use crate::change::rfc3339;

/// The winner of a record that has none, such as a dead letter.
const NOBODY: &str = "none";
const DAY_CHARS: usize = "2026-01-31".len();

/// How many of all writes were lost, over the life of the state directory, whatever the filters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Writes {
    /// Events read from both clusters.
    pub read_total: u64,
    /// Losing writes.
    pub lost_total: u64,
    /// The part of them that was lost; none where nothing was read.
    pub lost_share: Option<f64>,
}

impl Writes {
    pub fn new(read_total: u64, lost_total: u64) -> Self {
        let share = lost_total as f64 / read_total as f64;
        Self {
            read_total,
            lost_total,
            lost_share: (read_total > 0).then_some(share),
        }
    }

    /// For people.
    pub(super) fn share_text(self) -> String {
        match self.lost_share {
            Some(share) => format!("{:.4} %", share * 100.0),
            None => String::new(),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize)]
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
    pub by_status: BTreeMap<String, u64>,
    top_documents: Vec<TopDocument>,
    /// Not where more documents were in conflict than are counted apart; see CONFLICTS.md.
    top_documents_exact: bool,
    pub writes: Option<Writes>,
    #[serde(skip)]
    top: Top,
}

impl Summary {
    pub fn new(head: &ReportHead) -> Self {
        Self {
            format: 1,
            link: head.link.clone(),
            complete_since: head.complete_since.map(rfc3339),
            writes: head.writes,
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
            (&mut self.by_status, text("status")),
        ] {
            *counts.entry(name).or_default() += 1;
        }
        self.top.add(record);
    }

    pub(super) fn top_documents(&self) -> Vec<TopDocument> {
        self.top.most()
    }

    pub(super) fn render(&mut self, format: Format) -> Vec<u8> {
        self.top_documents = self.top.most();
        self.top_documents_exact = self.top.is_exact();
        match format {
            Format::Json | Format::Ndjson | Format::Html => {
                let counts = serde_json::to_string(self).expect("counts make JSON");
                (without_controls(counts) + "\n").into_bytes()
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
            ("status", &self.by_status),
        ] {
            for (name, count) in counts {
                rows.push([by.into(), csv_rows::safe_text(name), count.to_string()]);
            }
        }
        for top in &self.top_documents {
            let name = format!("{} {}", top.namespace, top.document_key);
            rows.push([
                "document".into(),
                csv_rows::safe_text(&name),
                top.count.to_string(),
            ]);
        }
        if let Some(writes) = self.writes {
            for (name, count) in [("read", writes.read_total), ("lost", writes.lost_total)] {
                rows.push(["writes".into(), name.into(), count.to_string()]);
            }
            rows.push(["writes".into(), "lost share".into(), writes.share_text()]);
        }
        rows
    }
}

fn day(time: DateTime) -> String {
    let text = rfc3339(time);
    text.get(..DAY_CHARS).unwrap_or(&text).to_owned()
}
