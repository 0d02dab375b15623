//! The page as a browser reads it, without one: nothing in it is markup but tandem's own.

use bson::{DateTime, Document, RawDocumentBuf, rawdoc};

use super::*;
use crate::report::Writes;

/// What a browser, a spreadsheet or a reader could be led astray by.
const HOSTILE: &str = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"' =cmd|'/c calc'!A1 \u{202e}\u{1b}[31m&amp;";

fn head() -> ReportHead {
    ReportHead {
        link: "eu-us".into(),
        names: Pair::new("eu".to_owned(), "us".to_owned()),
        made_at: Some(DateTime::from_millis(1_700_000_000_000)),
        ..ReportHead::default()
    }
}

fn record(n: i64, text: &str) -> RawDocumentBuf {
    let write = |ms: i64| {
        let mut document = rawdoc! { "_id": n, "nested": { "x": ms } };
        document.append(bson::raw::CString::try_from(text).unwrap(), text);
        rawdoc! {
            "operation": text,
            "wall_time": DateTime::from_millis(ms),
            "version": ms,
            "document": document,
        }
    };
    rawdoc! {
        "_id": format!("{n:024x}"),
        "logged_at": DateTime::from_millis(1_700_000_000_000 + n * 3_600_000),
        "pipeline": "a-to-b",
        "namespace": format!("shop.{text}"),
        "document_key": { "_id": text },
        "kind": "update_origin_differs",
        "policy": "last-write-wins",
        "winner": "us",
        "winner_cluster": "b",
        "reason": "later",
        "winning": write(2),
        "losing": write(1),
        "clock_skew_ms": 3_i64,
        "settled_by": "b-to-a",
        "status": "logged",
    }
}

fn page(records: i64, listed_max: u64, text: &str) -> String {
    let mut page = Page::new(&head(), listed_max);
    for n in 0..records {
        page.push(&record(n, text));
    }
    page.finish()
}

/// The tags of a page with their attributes' names.
fn tags(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in page.split('<').skip(1) {
        let tag = part.split('>').next().unwrap_or_default();
        found.push(tag.split([' ', '\n']).next().unwrap_or_default().to_owned());
    }
    found
}

#[test]
fn hostile_names_and_values_are_text_and_nothing_else() {
    let hostile = page(3, 10, HOSTILE);
    let (_, body) = hostile.split_once("</style>").unwrap();
    let (body, _) = body.rsplit_once("<script>").unwrap();
    let innocent = page(3, 10, "orders");
    let (_, plain) = innocent.split_once("</style>").unwrap();
    let (plain, _) = plain.rsplit_once("<script>").unwrap();
    assert_eq!(tags(body), tags(plain), "no tag but the page's own");
    for bad in ["<img", "<script", "\u{202e}", "\u{1b}"] {
        assert!(!body.contains(bad), "{bad:?}");
    }
    assert!(body.contains("&lt;script&gt;"), "it is shown");
}

#[test]
fn the_page_allows_only_its_own_style_and_script_and_loads_nothing() {
    let page = page(2, 10, "orders");
    for (text, name) in [(STYLE, "style-src"), (SCRIPT, "script-src")] {
        assert!(page.contains(&format!("{name} '{}'", hash(text))), "{name}");
    }
    assert!(page.contains("default-src 'none'"));
    for bad in [
        "http://",
        "https://",
        "src=",
        "url(",
        "@import",
        " style=",
        " on",
        "javascript:",
        "data:",
    ] {
        let found = page
            .find(bad)
            .map(|at| &page[at..(at + 60).min(page.len())]);
        let harmless =
            found.is_some_and(|text| text.starts_with(" on ") || text.starts_with(" only"));
        assert!(found.is_none() || harmless, "{bad:?}: {found:?}");
    }
    assert_eq!(
        hash(""),
        "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
    );
}

#[test]
fn many_conflicts_are_counted_all_and_told_up_to_a_bound() {
    let text = page(300, 20, "orders");
    assert_eq!(text.matches("<details class=\"one\"").count(), 20);
    assert!(
        text.contains("20 of 300 conflicts are told here"),
        "it says so"
    );
    assert!(text.contains("<b>300</b><span>records</span>"));
    let large = "x".repeat(1000);
    assert!(page(3000, u64::MAX, &large).len() < LISTED_BYTES_MAX + 1024 * 1024);
}

#[test]
fn no_conflict_makes_a_page_that_says_so() {
    let text = page(0, 20, "");
    assert!(text.contains("no write was lost"));
    assert!(!text.contains("<figure"));
    let mut head = head();
    head.filters = vec!["namespace shop.nothing".into()];
    head.writes = Some(Writes::new(2000, 30));
    let text = Page::new(&head, 20).finish();
    assert!(text.contains("No conflict matches the filters"));
    assert!(text.contains("<b>1.50 %</b>") && text.contains("of 2,000 read, whatever the filters"));
}

#[test]
fn time_has_no_more_bars_than_can_be_seen() {
    for hours in [1, 90, 91, 2000, 24 * 365 * 30] {
        let mut page = Page::new(&head(), 0);
        for n in 0..hours.min(3000) {
            page.push(&record(n * (hours / hours.min(3000)), "orders"));
        }
        let text = page.finish();
        let bars = text.matches("<rect class=\"hit\"").count();
        assert!((1..=90).contains(&bars), "{hours} hours: {bars}");
    }
    let mut timeline = Timeline::default();
    for n in 0..20_000 {
        timeline.add(&record(n, "orders"));
    }
    assert!(timeline.counted_times() <= 5000);
}

#[test]
fn numbers_are_grouped() {
    assert_eq!(
        [0, 999, 1000, 1_234_567].map(grouped),
        ["0", "999", "1,000", "1,234,567"]
    );
}

#[test]
fn a_short_time_is_told_in_seconds_and_never_goes_on_after_its_end() {
    let mut page = Page::new(&head(), 10);
    for second in 0..3 {
        let mut record = Document::try_from(record(0, "orders").as_ref()).unwrap();
        let at = DateTime::from_millis(1_700_000_000_000 + second * 1000);
        record.insert("logged_at", at);
        page.push(&RawDocumentBuf::try_from(&record).unwrap());
    }
    let text = page.finish();
    assert!(text.contains("conflicts by second, 2023-11-14 UTC"));
    assert!(
        text.contains("<span>22:13:22</span></div></div>"),
        "the last bar is at the end"
    );
}

#[test]
fn one_of_anything_is_called_one() {
    let text = page(1, 10, "orders");
    assert!(text.contains("<b>1</b><span>record</span>"));
    let mut page = Page::new(&head(), 10);
    for n in 0..300 {
        let namespace = if n < 9 {
            format!("of{n}")
        } else {
            "orders".to_owned()
        };
        page.push(&record(n, &namespace));
    }
    let text = page.finish();
    assert!(text.contains("<em>2 others</em>"));
    assert!(text.contains("&lt;1 %"), "a few of many are not none");
}

#[test]
fn values_and_keys_are_shown_as_people_write_them() {
    let text = page(1, 10, "orders");
    let (shown, _) = text.split_once("class=\"raw\"").unwrap();
    assert!(shown.contains("<b>shop.orders</b> <code>orders</code>"));
    assert!(
        !shown.contains("$number"),
        "no type where it does not matter"
    );
    assert!(
        text.contains("&quot;$numberLong&quot;"),
        "the record has them"
    );
}
