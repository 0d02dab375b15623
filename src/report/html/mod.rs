//! The report as one page that needs nothing else: it opens offline, and nothing in it is obeyed.

mod chart;
mod detail;
#[cfg(test)]
mod tests;

use std::fmt::Write;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, RawDocument};
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
        self.write_counts(&mut out);
        let timeline = std::mem::take(&mut self.timeline);
        self.write_charts(&mut out, timeline);
        self.write_list(&mut out);
        let _ = write!(
            out,
            "<footer>tandem {}, link {}. Documents are canonical extended JSON. \
             This page loads nothing and sends nothing.</footer>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
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

    fn write_counts(&self, out: &mut String) {
        let of = |status: &str| self.summary.by_status.get(status).copied().unwrap_or(0);
        let letters = self
            .summary
            .by_kind
            .get("dead_letter")
            .copied()
            .unwrap_or(0);
        let mut card = |class: &str, number: String, name: &str, why: &str| {
            let _ = writeln!(
                out,
                "<div class=\"card {class}\"><b>{number}</b><span>{name}</span><small>{why}</small></div>"
            );
        };
        card(
            "",
            grouped(self.summary.total),
            "records",
            "one for each losing write",
        );
        card(
            "lost",
            grouped(of("logged")),
            "still lost",
            "kept on record only",
        );
        card(
            "good",
            grouped(of("overturned")),
            "overturned",
            "a later write held it",
        );
        card(
            "good",
            grouped(of("restored")),
            "restored",
            "somebody brought it back",
        );
        if letters > 0 {
            card(
                "bad",
                grouped(letters),
                "dead letters",
                "could not be applied",
            );
        }
        if let Some(writes) = self.summary.writes {
            let read = format!("of {} writes read", grouped(writes.read_total));
            let share = match writes.share_text() {
                text if text.is_empty() => "-".to_owned(),
                text => text,
            };
            card("", share, "lost of all writes", &read);
        }
        let end = out.len();
        let start = out.find("<div class=\"card ").unwrap_or(end);
        out.insert_str(start, "<section class=\"cards\">\n");
        out.push_str("</section>\n");
    }

    fn write_charts(&self, out: &mut String, timeline: Timeline) {
        if self.summary.total == 0 {
            return;
        }
        out.push_str("<section class=\"charts\">\n");
        timeline.write(out, &self.head.names);
        for (heading, counts) in [
            ("By namespace", &self.summary.by_namespace),
            ("By kind", &self.summary.by_kind),
        ] {
            let rows = counts.iter().map(|(name, count)| (name.clone(), *count));
            chart::bars(out, heading, rows.collect(), self.summary.total);
        }
        let top = self.summary.top_documents().into_iter();
        let top = top.map(|top| (format!("{} {}", top.namespace, top.document_key), top.count));
        chart::bars(
            out,
            "Documents with most conflicts",
            top.collect(),
            self.summary.total,
        );
        out.push_str("</section>\n");
    }

    fn write_list(&self, out: &mut String) {
        let total = self.summary.total;
        if total == 0 {
            out.push_str(
                "<main><p class=\"none\">No conflict matches. Nothing was lost.</p></main>\n",
            );
            return;
        }
        let _ = write!(
            out,
            "<main>\n<div class=\"tools\">\n<h2>Each conflict</h2>\n\
             <input id=\"search\" type=\"search\" placeholder=\"Search keys, values, reasons…\" aria-label=\"Search\" hidden>\n\
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
