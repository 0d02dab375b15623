//! The conflict report: raw records in, one of five formats out, one record at a time in memory.

mod csv_rows;
mod explain;
mod extjson;
mod fields;
mod html;
pub mod show;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod top;

use std::io::Write;
use std::str::FromStr;

use bson::{DateTime, RawDocument, RawDocumentBuf};

use crate::change::{Pair, RecordStatus, rfc3339};
use crate::error::{Class, Error, ExitCode, Result};

pub use extjson::{record_json, write_canonical};
pub use summary::{Summary, Writes};
pub use table::escaped;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    /// One document with all records.
    Json,
    /// One record a line and nothing else.
    Ndjson,
    /// Fixed columns with a header.
    Csv,
    /// One page that needs nothing else; it tells all records in counts, and some in full.
    Html,
}

impl Format {
    pub const ALL: [Format; 5] = [
        Format::Table,
        Format::Json,
        Format::Ndjson,
        Format::Csv,
        Format::Html,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Format::Table => "table",
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
            Format::Html => "html",
        }
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|format| format.as_str() == name);
        found.ok_or_else(|| {
            Error::usage(format!("{name} is not a format")).hint("table, json, ndjson, csv or html")
        })
    }
}

/// What stands above the records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReportHead {
    pub link: String,
    /// From when on the conflict log holds every record; none where there is no log yet.
    pub complete_since: Option<DateTime>,
    /// What people call the clusters.
    pub names: Pair<String>,
    /// Of a summary, where it is known.
    pub writes: Option<Writes>,
    /// Records that were passed over.
    pub offset: u64,
    /// Records listed at most; what else comes only tells that there are more. A page counts it too.
    pub limit: Option<u64>,
    /// The filters as people typed them.
    pub filters: Vec<String>,
    /// When the report is made; a page shows it.
    pub made_at: Option<DateTime>,
}

/// How many records matched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: u64,
    /// Those that were not overturned.
    pub standing: u64,
}

impl Counts {
    fn add(&mut self, record: &RawDocument) {
        self.total += 1;
        let status = record.get_str("status").unwrap_or_default();
        if status != RecordStatus::Overturned.as_str() {
            self.standing += 1;
        }
    }
}

/// Whether a report lists its records or counts them, and what it calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    Records,
    /// Records, with what matters about an event that could not be applied.
    DeadLetters,
    Summary,
}

impl Detail {
    fn plural(self) -> &'static str {
        match self {
            Detail::Records | Detail::Summary => "conflicts",
            Detail::DeadLetters => "dead_letters",
        }
    }
}

/// A report being written: push every record, then finish.
pub struct Report<W: Write> {
    out: W,
    body: Body,
    detail: Detail,
    counts: Counts,
    offset: u64,
    limit: Option<u64>,
    more: bool,
}

enum Body {
    Json,
    Ndjson,
    Csv,
    Table(Box<table::Page>),
    Summary(Box<Summary>, Format),
    Html(Box<html::Page>),
}

impl<W: Write> Report<W> {
    /// # Errors
    /// Exit 1 where `out` cannot be written, here and below.
    pub fn start(head: &ReportHead, format: Format, detail: Detail, mut out: W) -> Result<Self> {
        let listed_max = match detail {
            Detail::Summary => 0,
            Detail::Records | Detail::DeadLetters => head.limit.unwrap_or(html::LISTED_MAX),
        };
        let body = match (detail, format) {
            (_, Format::Html) => Body::Html(Box::new(html::Page::new(head, listed_max))),
            (Detail::Summary, format) => Body::Summary(Box::new(Summary::new(head)), format),
            (Detail::Records | Detail::DeadLetters, Format::Json) => {
                let name = detail.plural();
                let link = serde_json::Value::from(head.link.as_str());
                let since = serde_json::Value::from(head.complete_since.map(rfc3339));
                let opening = format!(
                    "{{\"format\":1,\"link\":{link},\"complete_since\":{since},\"{name}\":["
                );
                write(&mut out, opening.as_bytes())?;
                Body::Json
            }
            (Detail::Records | Detail::DeadLetters, Format::Ndjson) => Body::Ndjson,
            (Detail::Records | Detail::DeadLetters, Format::Csv) => {
                write(&mut out, &csv_rows::header())?;
                Body::Csv
            }
            (Detail::Records, Format::Table) => Body::Table(Box::new(table::Page::of_conflicts())),
            (Detail::DeadLetters, Format::Table) => {
                Body::Table(Box::new(table::Page::of_dead_letters()))
            }
        };
        Ok(Self {
            out,
            body,
            detail,
            counts: Counts::default(),
            offset: head.offset,
            limit: head.limit,
            more: false,
        })
    }

    pub fn push(&mut self, record: &RawDocument) -> Result<()> {
        let pages = !matches!(self.body, Body::Html(_));
        if pages && self.limit.is_some_and(|limit| self.counts.total >= limit) {
            self.more = true;
            return Ok(());
        }
        let out = &mut self.out;
        match &mut self.body {
            Body::Json => {
                let separator: &[u8] = if self.counts.total == 0 {
                    b"\n"
                } else {
                    b",\n"
                };
                write(out, separator)?;
                write(out, record_json(record).as_bytes())?;
            }
            Body::Ndjson => {
                write(out, record_json(record).as_bytes())?;
                write(out, b"\n")?;
            }
            Body::Csv => write(out, &csv_rows::row(record))?,
            Body::Table(page) => {
                if let Some(full) = page.push(record) {
                    write(out, full.as_bytes())?;
                }
            }
            Body::Summary(summary, _) => summary.add(record),
            Body::Html(page) => page.push(record),
        }
        self.counts.add(record);
        Ok(())
    }

    pub fn finish(mut self) -> Result<Counts> {
        let out = &mut self.out;
        let next = self.more.then_some(self.offset + self.counts.total);
        match self.body {
            Body::Json => {
                let closing = if self.counts.total == 0 { "]" } else { "\n]" };
                let next = serde_json::Value::from(next);
                let next = self.limit.map(|_| format!(",\"next_offset\":{next}"));
                let closing = format!("{closing}{}}}\n", next.unwrap_or_default());
                write(out, closing.as_bytes())?;
            }
            Body::Ndjson | Body::Csv => {}
            Body::Table(_) if self.counts.total == 0 => {
                let none = format!("no {}\n", self.detail.plural().replace('_', " "));
                write(out, none.as_bytes())?;
            }
            Body::Table(page) => {
                write(out, page.rest().as_bytes())?;
                if let Some(next) = next {
                    write(out, format!("more: --offset {next}\n").as_bytes())?;
                }
            }
            Body::Html(page) => write(out, page.finish().as_bytes())?,
            Body::Summary(mut summary, format) => write(out, &summary.render(format))?,
        }
        out.flush().map_err(unwritable)?;
        Ok(self.counts)
    }
}

/// Writes a whole report; the first record that cannot be read ends it.
pub fn render(
    head: &ReportHead,
    format: Format,
    detail: Detail,
    records: impl IntoIterator<Item = Result<RawDocumentBuf>>,
    out: impl Write,
) -> Result<Counts> {
    let mut report = Report::start(head, format, detail, out)?;
    for record in records {
        report.push(&record?)?;
    }
    report.finish()
}

fn write(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(unwritable)
}

fn unwritable(cause: std::io::Error) -> Error {
    Error::new(
        ExitCode::Unexpected,
        Class::Operator,
        "cannot write the report",
    )
    .caused_by(cause)
}
