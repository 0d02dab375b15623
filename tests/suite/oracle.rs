//! The oracle must notice what it is there for: hand-made histories with one fault each.

use bson::{Document, doc};
use serde_json::{Value, json};

use crate::support::oracle::{History, Side, Time, Write};

const NAMESPACE: &str = "shop.orders";

fn write(id: &str) -> Write {
    let side = if id.starts_with('a') {
        Side::A
    } else {
        Side::B
    };
    Write {
        id: id.to_owned(),
        side,
        place: (NAMESPACE.to_owned(), 1),
        time: ((1, 0), (2, 0)),
        removed: None,
    }
}

fn delete(id: &str, time: (Time, Time), removed: &[&str]) -> Write {
    Write {
        time,
        removed: Some(removed.iter().map(|id| id.to_string()).collect()),
        ..write(id)
    }
}

fn history(writes: impl IntoIterator<Item = Write>) -> History {
    History {
        writes: writes.into_iter().collect(),
        ..History::default()
    }
}

fn document(seen: &[&str]) -> (String, Document) {
    (NAMESPACE.to_owned(), doc! { "_id": 1, "seen": seen })
}

fn record(side: Side, change: Value, time: Time, status: &str) -> Value {
    json!({
        "pipeline": side.pipeline(),
        "namespace": NAMESPACE,
        "document_key": { "_id": { "$numberInt": "1" } },
        "kind": "update_origin_differs",
        "losing": {
            "operation": change.get("operationType").cloned().unwrap_or(json!("update")),
            "cluster_time": [time.0, time.1],
            "change": change,
        },
        "status": status,
    })
}

fn push(at: u32, id: &str) -> Value {
    let part = format!("u{at}");
    json!({ "rawUpdateDescription": { "diff": {
        "u": { "name": "w1" },
        "sseen": { "a": true, part: id },
    } } })
}

fn lost(id: &str, status: &str) -> Value {
    record(write(id).side, push(1, id), (1, 5), status)
}

fn lost_delete(side: Side, time: Time, status: &str) -> Value {
    record(side, json!({ "operationType": "delete" }), time, status)
}

#[test]
fn a_winner_in_the_document_and_a_loser_on_record_are_accounted_for() {
    let history = history([write("a-1"), write("a-2"), write("b-1")]);
    let documents = [document(&["a-1", "b-1"])];
    let none: Vec<String> = Vec::new();
    assert_eq!(history.check(&documents, &[lost("a-2", "logged")]), none);
}

#[test]
fn a_loser_is_read_from_every_form_of_change() {
    let history = history([write("a-1"), write("b-1")]);
    for change in [
        push(3, "a-1"),
        json!({ "fullDocument": { "seen": ["b-1", "a-1"] } }),
        json!({ "rawUpdateDescription": { "diff": { "u": { "seen": ["b-1", "a-1"] } } } }),
    ] {
        let records = [record(Side::A, change, (1, 5), "logged")];
        assert_eq!(history.check(&[document(&["b-1"])], &records), [""; 0]);
    }
}

#[test]
fn a_lost_write_is_noticed() {
    let found = history([write("a-1"), write("b-1")]).check(&[document(&["b-1"])], &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("lost, no record"), "{found:?}");
}

#[test]
fn a_second_record_of_one_write_is_noticed() {
    let records = [lost("a-1", "logged"), lost("a-1", "logged")];
    let found = history([write("a-1"), write("b-1")]).check(&[document(&["b-1"])], &records);
    assert!(found[0].contains("2 records"), "{found:?}");
}

#[test]
fn a_loser_that_comes_back_is_noticed_unless_it_is_overturned() {
    let history = history([write("a-1"), write("b-1")]);
    let documents = [document(&["b-1", "a-1"])];
    let found = history.check(&documents, &[lost("a-1", "logged")]);
    assert!(found[0].contains("and in the document"), "{found:?}");
    assert_eq!(
        history.check(&documents, &[lost("a-1", "overturned")]),
        [""; 0]
    );
}

#[test]
fn an_overturned_loser_that_is_not_back_is_noticed() {
    let records = [lost("a-1", "overturned")];
    let found = history([write("a-1"), write("b-1")]).check(&[document(&["b-1"])], &records);
    assert!(found[0].contains("its record is overturned"), "{found:?}");
}

#[test]
fn a_standing_delete_accounts_for_what_it_removed() {
    let history = history([write("a-1"), delete("b-2", ((3, 0), (4, 0)), &["a-1"])]);
    assert_eq!(history.check(&[], &[]), [""; 0]);
}

#[test]
fn a_delete_that_lost_accounts_for_nothing() {
    let history = history([
        write("a-1"),
        write("a-2"),
        delete("b-3", ((3, 0), (4, 0)), &["a-1"]),
    ]);
    let records = [lost_delete(Side::B, (3, 7), "logged")];
    let kept = [document(&["a-1", "a-2"])];
    assert_eq!(history.check(&kept, &records), [""; 0]);
    let found = history.check(&[document(&["a-2"])], &records);
    assert!(found[0].contains("a-1"), "{found:?}");
}

#[test]
fn what_a_standing_delete_removed_must_stay_away() {
    let history = history([write("a-1"), delete("b-2", ((3, 0), (4, 0)), &["a-1"])]);
    let found = history.check(&[document(&["a-1"])], &[]);
    assert!(found[0].contains("deleted, and back"), "{found:?}");
}

#[test]
fn of_two_deletes_the_cluster_time_tells_which_one_lost() {
    let history = history([
        write("a-1"),
        delete("b-2", ((3, 0), (4, 0)), &["a-1"]),
        write("a-3"),
        delete("b-4", ((6, 0), (7, 0)), &["a-3"]),
    ]);
    let records = [lost_delete(Side::B, (6, 1), "logged")];
    assert_eq!(history.check(&[document(&["a-3"])], &records), [""; 0]);
    assert!(!history.check(&[document(&["a-1"])], &records).is_empty());
    let nobodys = [lost_delete(Side::B, (9, 1), "logged")];
    assert!(!history.check(&[], &nobodys).is_empty());
}

#[test]
fn what_no_application_wrote_is_noticed() {
    let history = history([write("a-1")]);
    let field = [(
        NAMESPACE.to_owned(),
        doc! { "_id": 1, "seen": ["a-1"], "_tandem": 1 },
    )];
    assert!(history.check(&field, &[])[0].contains("_tandem"));
    let id = [document(&["a-1", "a-9"])];
    assert!(history.check(&id, &[])[0].contains("a-9"));
    let twice = [document(&["a-1", "a-1"])];
    assert!(history.check(&twice, &[])[0].contains("twice"));
    let record = [lost("a-7", "logged")];
    assert!(history.check(&[document(&["a-1"])], &record)[0].contains("a-7"));
}
