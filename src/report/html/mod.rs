//! The report as one page that needs nothing else: it opens offline, and nothing in it is obeyed.

mod chart;
mod counts;
mod detail;
mod plain;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, RawDocument};
use serde_json::Value;
use sha2::{Digest, Sha256};

use self::chart::Timeline;
use super::summary::Summary;
use super::table::escaped;
use super::{ReportHead, rfc3339};
use crate::change::Pair;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Conflicts told in full, unless a limit says otherwise: more make a page that no phone opens.
pub(super) const LISTED_MAX: u64 = 1000;
/// The same in bytes of the page.
const LISTED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A page being gathered: counts of all records, and the first of them in full.
pub(super) struct Page {
    head: ReportHead,
    summary: Summary,
    timeline: Timeline,
    /// What is told of the records in full, ready to be written.
    listed: String,
    listed_count: u64,
    listed_max: u64,
}

impl Page {
    pub(super) fn new(head: &ReportHead, listed_max: u64) -> Self {
        Self {
            summary: Summary::new(head),
            timeline: Timeline::default(),
            listed: String::new(),
            listed_count: 0,
            listed_max,
            head: head.clone(),
        }
    }

    pub(super) fn push(&mut self, record: &RawDocument) {
        self.summary.add(record);
        self.timeline.add(record);
        if self.listed_count < self.listed_max && self.listed.len() < LISTED_BYTES_MAX {
            detail::write(&mut self.listed, record, &self.head.names);
            self.listed_count += 1;
        }
    }

    pub(super) fn finish(mut self) -> String {
        let mut out = String::with_capacity(self.listed.len() + 64 * 1024);
        self.write_head(&mut out);
        counts::write(&mut out, &self.summary, &self.head);
        let timeline = std::mem::take(&mut self.timeline);
        self.write_charts(&mut out, timeline);
        self.write_list(&mut out);
        let _ = write!(
            out,
            "<footer>tandem {}, link {}. Values are shown for people; each record below them has \
             its documents as canonical extended JSON. This page loads nothing and sends nothing.</footer>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION"),
            safe(&self.head.link)
        );
        out
    }

    fn write_head(&self, out: &mut String) {
        let link = safe(&self.head.link);
        let policy = format!(
            "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        let _ = write!(
            out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n\
             <title>Conflicts of {link}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<header>\n\
             <div><h1>Conflicts of <b>{link}</b></h1>\n<p class=\"sub\">"
        );
        let Pair { a, b } = &self.head.names;
        let _ = write!(out, "<span>{} ⇄ {}</span>", safe(a), safe(b));
        if let Some(at) = self.head.made_at {
            let _ = write!(out, "<span>made {}</span>", time(&rfc3339(at)));
        }
        let since = self.head.complete_since.map(rfc3339);
        let since = since.map_or_else(
            || "no log yet".to_owned(),
            |at| format!("log whole since {}", time(&at)),
        );
        let _ = write!(out, "<span>{since}</span>");
        for filter in &self.head.filters {
            let _ = write!(out, "<span class=\"filter\">{}</span>", safe(filter));
        }
        out.push_str(
            "</p></div>\n<button id=\"theme\" type=\"button\" hidden>Dark</button>\n</header>\n",
        );
    }

    fn write_charts(&self, out: &mut String, timeline: Timeline) {
        if self.summary.total == 0 {
            return;
        }
        out.push_str("<section class=\"charts\">\n");
        timeline.write(out, &self.head.names);
        let namespaces = self.summary.by_namespace.iter();
        let namespaces = namespaces.map(|(name, count)| (name.clone(), *count));
        let kinds = self.summary.by_kind.iter();
        let kinds = kinds.map(|(kind, count)| (kind.replace('_', " "), *count));
        let top = self.summary.top_documents().into_iter();
        let top = top.take(chart::ROWS_MAX).map(|top| {
            let key = match top.document_key {
                Value::String(beginning) => beginning,
                whole => plain::key(&whole.to_string()),
            };
            (format!("{} {key}", top.namespace), top.count)
        });
        for (heading, rows) in [
            ("By namespace", namespaces.collect()),
            ("By kind", kinds.collect()),
            ("Documents with most conflicts", top.collect()),
        ] {
            chart::bars(out, heading, rows, self.summary.total);
        }
        out.push_str("</section>\n");
    }

    fn write_list(&self, out: &mut String) {
        let total = self.summary.total;
        if total == 0 {
            let none = if self.head.filters.is_empty() {
                "No conflict is on record: no write was lost."
            } else {
                "No conflict matches the filters."
            };
            let _ = writeln!(out, "<main><p class=\"none\">{none}</p></main>");
            return;
        }
        let _ = write!(
            out,
            "<main>\n<div class=\"tools\">\n<h2>Each conflict</h2>\n\
             <input id=\"search\" type=\"search\" placeholder=\"Search…\" aria-label=\"Search keys, values and reasons\" hidden>\n\
             <button id=\"open\" type=\"button\" hidden>Open all</button>\n\
             <p id=\"found\" aria-live=\"polite\"></p>\n</div>\n"
        );
        if self.listed_count < total {
            let _ = writeln!(
                out,
                "<p class=\"note\">{} of {} conflicts are told here; counts and charts are about all of them. \
                 <code>--limit</code>, <code>--offset</code> and filters choose others, and \
                 <code>--format ndjson</code> has all.</p>",
                grouped(self.listed_count),
                grouped(total)
            );
        }
        out.push_str(
            "<div class=\"heads\" aria-hidden=\"true\"><span>Logged (UTC)</span><span>Namespace and key</span>\
             <span>Kind</span><span>Winner</span><span>Status</span></div>\n<div id=\"list\">\n",
        );
        out.push_str(&self.listed);
        out.push_str("</div>\n<p class=\"none\" id=\"nothing\" hidden>No conflict here matches the search.</p>\n</main>\n");
    }
}

/// Text of others, for the page: no markup, nothing that hides or turns it.
pub(super) fn safe(text: &str) -> String {
    let text = escaped(text);
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// An RFC 3339 time, broken where a narrow column may break it.
fn time(at: &str) -> String {
    let shown = at.replacen('T', " ", 1);
    format!(
        "<time datetime=\"{}\">{}</time>",
        safe(at),
        safe(shown.trim_end_matches('Z'))
    )
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How a content security policy names a text.
fn hash(text: &str) -> String {
    let digest = Bson::Binary(Binary {
        subtype: BinarySubtype::Generic,
        bytes: Sha256::digest(text.as_bytes()).to_vec(),
    });
    let json = digest.into_canonical_extjson();
    let base64 = json["$binary"]["base64"].as_str().unwrap_or_default();
    format!("sha256-{base64}")
}
