//! Each rule in the sentence that tells it.

use bson::{RawDocumentBuf, rawdoc};

use super::*;

fn names() -> Pair<String> {
    Pair::new("eu".to_owned(), "us".to_owned())
}

/// A race that us won, `gap` ms later by the servers' clocks.
fn race(gap: i64, skew: Option<i64>, reason: &str, settled_by: &str) -> RawDocumentBuf {
    let write = |ms: i64| {
        rawdoc! {
            "operation": "update",
            "wall_time": DateTime::from_millis(1000 + ms),
            "version": 1000 + ms,
            "document": { "_id": 1 },
        }
    };
    let skew = skew.map_or(bson::RawBson::Null, bson::RawBson::Int64);
    rawdoc! {
        "_id": "0a",
        "logged_at": DateTime::from_millis(5000),
        "pipeline": "a-to-b",
        "kind": "update_origin_differs",
        "policy": "last-write-wins",
        "winner": "us",
        "reason": reason,
        "winning": write(gap),
        "losing": write(0),
        "clock_skew_ms": skew,
        "settled_by": settled_by,
        "status": "logged",
    }
}

fn told(record: &RawDocument) -> Explanation {
    explain(record, &names())
}

#[test]
fn the_rule_that_decided_is_told_with_its_numbers() {
    let later = told(&race(7, None, "later", "b-to-a")).decided;
    assert_eq!(
        later,
        "last-write-wins: by the servers' clocks us wrote 7 ms after eu"
    );
    let tie = told(&race(0, None, "tie", "b-to-a")).decided;
    assert!(tie.contains("ties go to us"), "{tie}");
    let preferred = told(&race(-5, None, "preferred", "b-to-a")).decided;
    assert!(
        preferred.contains("us wins whenever it wrote"),
        "{preferred}"
    );
}

#[test]
fn a_version_field_is_not_taken_for_a_clock() {
    let mut record = race(0, Some(50_000), "later", "b-to-a");
    let winning = rawdoc! { "wall_time": DateTime::from_millis(1), "version": 4_000_i64 };
    record.append(bson::cstr!("x"), 1);
    let mut changed = RawDocumentBuf::new();
    for element in record.iter_elements().map(|element| element.unwrap()) {
        let name = bson::raw::CString::try_from(element.key().as_str()).unwrap();
        match element.key().as_str() {
            "winning" => changed.append(name, winning.clone()),
            _ => changed.append(name, bson::RawBson::from(element.value().unwrap())),
        }
    }
    let story = told(&changed);
    assert!(
        story
            .decided
            .contains("version field of us is 3000 ms later"),
        "{}",
        story.decided
    );
    assert!(
        story.clocks.ends_with("that did not decide"),
        "{}",
        story.clocks
    );
}

#[test]
fn a_skew_that_could_have_changed_the_winner_is_told() {
    // us wrote 7 ms later by its clock, which is ahead by more than that.
    let clocks = told(&race(7, Some(10), "later", "b-to-a")).clocks;
    assert!(
        clocks.contains("equal clocks would have decided otherwise"),
        "{clocks}"
    );
    assert!(clocks.contains("eu wrote 3 ms later than us"), "{clocks}");
    let clocks = told(&race(7, Some(-10), "later", "b-to-a")).clocks;
    assert!(clocks.contains("us still wrote 17 ms later"), "{clocks}");
    let clocks = told(&race(7, None, "later", "b-to-a")).clocks;
    assert!(clocks.contains("had not been measured"), "{clocks}");
}

#[test]
fn since_when_both_sides_agree_is_told_only_where_it_is_known() {
    let known = told(&race(1, None, "later", "b-to-a"));
    assert_eq!(
        known.agreed_since.as_deref(),
        Some("1970-01-01T00:00:05.000Z")
    );
    for settled_by in ["a-to-b", ""] {
        let unknown = told(&race(1, None, "later", settled_by));
        assert_eq!(unknown.agreed_since, None);
        assert!(
            unknown.agreed.contains("not on record"),
            "{}",
            unknown.agreed
        );
    }
}

#[test]
fn a_record_of_nothing_but_its_id_is_explained_without_a_panic() {
    let story = told(&rawdoc! { "_id": "0a" });
    assert_eq!(story.written, "not on record");
    assert_eq!(story.became, "unknown");
}

#[test]
fn lengths_are_told_in_the_unit_that_people_think_in() {
    for (ms, expected) in [
        (0, "0 ms"),
        (9_999, "9999 ms"),
        (12_300, "12.3 s"),
        (5_400_000, "90 min"),
        (9_000_000, "2.5 h"),
        (864_000_000, "10.0 days"),
    ] {
        assert_eq!(length(ms), expected);
    }
}
