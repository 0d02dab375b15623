//! Nothing that a pattern names is left anywhere in a record, and everything else is.

use bson::{DateTime, RawBson};

use super::*;

/// What must be nowhere.
const SECRET: &str = "4111-1111";

fn of(patterns: &[&str]) -> Redaction {
    let patterns: Vec<String> = patterns.iter().map(|text| text.to_string()).collect();
    Redaction::new(&patterns)
}

fn record(
    winning: RawDocumentBuf,
    losing: RawDocumentBuf,
    change: RawDocumentBuf,
) -> RawDocumentBuf {
    rawdoc! {
        "_id": "0a",
        "logged_at": DateTime::from_millis(1),
        "kind": "update_origin_differs",
        "document_key": { "_id": 1 },
        "winning": { "operation": "update", "document": winning },
        "losing": { "operation": "update", "change": change, "document": losing },
        "status": "logged",
    }
}

fn holds(record: &RawDocument, text: &str) -> bool {
    record
        .as_bytes()
        .windows(text.len())
        .any(|bytes| bytes == text.as_bytes())
}

fn at(record: &RawDocument, path: &[&str]) -> RawBson {
    let (last, above) = path.split_last().unwrap();
    let inner = above
        .iter()
        .fold(record, |inner, name| inner.get_document(*name).unwrap());
    RawBson::from(inner.get(*last).unwrap().unwrap())
}

#[test]
fn a_field_is_replaced_by_its_type_in_every_part_of_a_record() {
    let document = |card: RawBson| rawdoc! { "_id": 1, "card": card, "n": 2 };
    let change = rawdoc! {
        "operationType": "update",
        "updateDescription": {
            "updatedFields": { "card": SECRET, "n": 2 },
            "removedFields": ["old"],
        },
        "fullDocument": document(SECRET.into()),
    };
    let whole = record(document(7_i64.into()), document(SECRET.into()), change);
    let redacted = of(&["card"]).record(&whole);
    assert!(holds(&whole, SECRET) && !holds(&redacted, SECRET));
    let marker = |kind: &str| RawBson::Document(rawdoc! { "__redacted": kind });
    assert_eq!(
        at(&redacted, &["losing", "document", "card"]),
        marker("string")
    );
    assert_eq!(
        at(&redacted, &["winning", "document", "card"]),
        marker("long")
    );
    assert_eq!(
        at(&redacted, &["losing", "document", "n"]),
        RawBson::Int32(2)
    );
    let updated = ["losing", "change", "updateDescription", "updatedFields"];
    assert_eq!(
        at(&redacted, &[&updated[..], &["card"]].concat()),
        marker("string")
    );
    assert_eq!(
        at(&redacted, &[&updated[..], &["n"]].concat()),
        RawBson::Int32(2)
    );
    let named = redacted.get_array("redacted").unwrap();
    let first = named.get_document(0).unwrap();
    assert_eq!(first, &*rawdoc! { "path": "card", "differs": true });
}

#[test]
fn patterns_reach_sub_documents_arrays_and_dotted_names_of_updates() {
    for (patterns, document) in [
        (["card"], rawdoc! { "card": { "number": SECRET } }),
        (["card.number"], rawdoc! { "card": { "number": SECRET } }),
        (["card.number"], rawdoc! { "card.number": SECRET }),
        (["card"], rawdoc! { "card.0.number": SECRET }),
        (["*.ssn"], rawdoc! { "ssn": SECRET }),
        (["*.ssn"], rawdoc! { "a": { "b": { "ssn": SECRET } } }),
        (
            ["*.ssn"],
            rawdoc! { "people": [{ "ssn": SECRET }, { "x": [{ "ssn": [SECRET] }] }] },
        ),
        (["people.ssn"], rawdoc! { "people": [{ "ssn": SECRET }] }),
        (["people.ssn"], rawdoc! { "people.12.ssn": SECRET }),
        (["secret_*"], rawdoc! { "secret_code": SECRET }),
    ] {
        let change = rawdoc! { "updateDescription": { "updatedFields": document.clone() } };
        let whole = record(document.clone(), document.clone(), change);
        let redacted = of(&patterns).record(&whole);
        assert!(!holds(&redacted, SECRET), "{patterns:?} {document:?}");
        assert!(
            !redacted_of_loser(&redacted).is_empty(),
            "{patterns:?} {document:?}"
        );
        assert!(redacted_of_loser(&whole).is_empty());
    }
}

#[test]
fn patterns_reach_every_part_of_the_servers_own_form_of_an_update() {
    let patterns = of(&["card", "*.ssn"]);
    for diff in [
        rawdoc! { "u": { "card": SECRET } },
        rawdoc! { "i": { "card": { "number": SECRET } } },
        rawdoc! { "scard": { "u": { "number": SECRET } } },
        rawdoc! { "scard": { "a": true, "u0": SECRET } },
        rawdoc! { "speople": { "a": true, "s0": { "u": { "ssn": SECRET } } } },
        rawdoc! { "speople": { "a": true, "u3": { "ssn": SECRET }, "u4": [{ "ssn": SECRET }] } },
        rawdoc! { "sdeep": { "sdeeper": { "i": { "ssn": [SECRET] } } } },
    ] {
        let change = rawdoc! { "rawUpdateDescription": { "diff": diff.clone() } };
        let redacted = patterns.record(&record(rawdoc! {}, rawdoc! {}, change));
        assert!(!holds(&redacted, SECRET), "{diff:?}");
        assert!(redacted.get("redacted").unwrap().is_some(), "{diff:?}");
    }
    let other = rawdoc! { "d": { "card": false }, "u": { "n": 1 }, "slist": { "a": true, "l": 2, "u1": 5 } };
    let change = rawdoc! { "rawUpdateDescription": { "diff": other } };
    let whole = record(rawdoc! {}, rawdoc! {}, change);
    assert_eq!(patterns.record(&whole), whole);
}

#[test]
fn what_no_pattern_names_stays_byte_for_byte() {
    let document = rawdoc! { "_id": { "ssn": 1 }, "cards": SECRET, "a": [1, { "b": 1.5 }] };
    let change = rawdoc! { "documentKey": { "_id": { "ssn": 1 } } };
    let whole = record(document.clone(), document, change);
    assert_eq!(of(&["card", "*.ssn"]).record(&whole), whole);
    assert_eq!(of(&[]).record(&whole), whole);
}

#[test]
fn a_definition_is_redacted_at_any_depth_but_for_the_directions_of_an_index() {
    let mut ddl = bson::Document::try_from(record(rawdoc! {}, rawdoc! {}, rawdoc! {})).unwrap();
    ddl.insert("kind", "ddl");
    let description = bson::doc! {
        "indexes": [{ "key": { "card": 1 }, "partialFilterExpression": { "card": { "$gt": SECRET } } }],
        "validator": { "$or": [{ "card": SECRET }] },
    };
    let change = bson::doc! { "operationDescription": description };
    ddl.insert("losing", bson::doc! { "change": change });
    let redacted = of(&["card"]).record(&RawDocumentBuf::try_from(&ddl).unwrap());
    assert!(!holds(&redacted, SECRET));
    let read = bson::Document::try_from(redacted).unwrap().to_string();
    assert!(read.contains(r#""key": { "card": 1 }"#), "{read}");
}

#[test]
fn equal_values_are_told_from_different_ones_without_being_kept() {
    let differs = |one: &str, other: &str| {
        let of_card = |text: &str| rawdoc! { "_id": 1, "card": text };
        let whole = record(of_card(one), of_card(other), rawdoc! {});
        let redacted = of(&["card"]).record(&whole);
        let named = redacted.get_array("redacted").unwrap();
        named.get_document(0).unwrap().get_bool("differs").unwrap()
    };
    assert!(differs("1", "2"));
    assert!(!differs("1", "1"));
}

#[test]
fn a_broken_value_under_a_pattern_is_taken_out_as_a_whole() {
    let document = rawdoc! { "a": { "card": SECRET } };
    let mut bytes = record(document.clone(), document, rawdoc! {}).into_bytes();
    let at = bytes.windows(5).position(|name| name == b"card\0").unwrap();
    // The type of `card` becomes one that BSON does not have.
    bytes[at - 1] = 0x55;
    let broken = RawDocumentBuf::from_bytes(bytes).unwrap();
    let redacted = of(&["a.card"]).record(&broken);
    let winning = redacted.get_document("winning").unwrap();
    assert!(!holds(winning, SECRET));
}
