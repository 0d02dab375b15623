//! Each format, letter by letter.

use bson::{RawDocumentBuf, Timestamp, rawdoc};

use super::*;

fn head() -> ReportHead {
    ReportHead {
        link: "eu-us".into(),
        complete_since: Some(DateTime::from_millis(1_700_000_000_000)),
        ..ReportHead::default()
    }
}

fn record(id: &str, namespace: &str) -> RawDocumentBuf {
    let at = |time| Timestamp { time, increment: 1 };
    rawdoc! {
        "_id": id,
        "logged_at": DateTime::from_millis(1_700_000_000_120),
        "pipeline": "b-to-a",
        "namespace": namespace,
        "document_key": { "_id": 7_i64 },
        "kind": "update_origin_differs",
        "policy": "last-write-wins",
        "winner": "eu",
        "winner_cluster": "a",
        "reason": "later",
        "winning": {
            "operation": "update",
            "cluster_time": at(11),
            "wall_time": DateTime::from_millis(2),
            "version": 2_i64,
            "document": bson::RawBson::Null,
        },
        "losing": {
            "operation": "update",
            "cluster_time": at(10),
            "wall_time": DateTime::from_millis(1),
            "version": 1_i64,
            "change": { "updateDescription": { "updatedFields": { "n": 1 } } },
            "document": { "_id": 7_i64, "price": 1.0, "at": DateTime::from_millis(3) },
        },
        "clock_skew_ms": -4_i64,
        "status": "logged",
    }
}

const RECORD_JSON: &str = r#"{"id":"0a","logged_at":"2023-11-14T22:13:20.120Z","pipeline":"b-to-a","namespace":"shop.orders","document_key":{"_id":{"$numberLong":"7"}},"kind":"update_origin_differs","policy":"last-write-wins","winner":"eu","winner_cluster":"a","reason":"later","winning":{"operation":"update","cluster_time":[11,1],"wall_time":"1970-01-01T00:00:00.002Z","version":2,"document":null},"losing":{"operation":"update","cluster_time":[10,1],"wall_time":"1970-01-01T00:00:00.001Z","version":1,"change":{"updateDescription":{"updatedFields":{"n":{"$numberInt":"1"}}}},"document":{"_id":{"$numberLong":"7"},"price":{"$numberDouble":"1.0"},"at":{"$date":{"$numberLong":"3"}}}},"clock_skew_ms":-4,"status":"logged"}"#;

fn rendered(format: Format, detail: Detail, records: &[RawDocumentBuf]) -> (String, Counts) {
    let mut out = Vec::new();
    let records = records.iter().cloned().map(Ok);
    let counts = render(&head(), format, detail, records, &mut out).unwrap();
    (String::from_utf8(out).unwrap(), counts)
}

fn listed(format: Format, records: &[RawDocumentBuf]) -> String {
    rendered(format, Detail::Records, records).0
}

#[test]
fn ndjson_is_one_record_a_line_and_nothing_else() {
    let one = record("0a", "shop.orders");
    let text = listed(Format::Ndjson, &[one.clone(), one]);
    assert_eq!(text, format!("{RECORD_JSON}\n{RECORD_JSON}\n"));
    assert_eq!(listed(Format::Ndjson, &[]), "");
}

#[test]
fn json_is_one_document() {
    let opening =
        r#"{"format":1,"link":"eu-us","complete_since":"2023-11-14T22:13:20.000Z","conflicts":["#;
    let one = record("0a", "shop.orders");
    assert_eq!(
        listed(Format::Json, &[one.clone(), one]),
        format!("{opening}\n{RECORD_JSON},\n{RECORD_JSON}\n]}}\n")
    );
    assert_eq!(listed(Format::Json, &[]), format!("{opening}]}}\n"));
}

#[test]
fn csv_has_a_header_and_fixed_columns() {
    let text = listed(Format::Csv, &[record("0a", "shop.orders")]);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let row = reader.records().next().unwrap().unwrap();
    assert_eq!(header.len(), 31);
    let cell = |name: &str| {
        let column = header.iter().position(|found| found == name).unwrap();
        row[column].to_owned()
    };
    for (name, expected) in [
        ("id", "0a"),
        ("logged_at", "2023-11-14T22:13:20.120Z"),
        ("document_key", r#"{"_id":{"$numberLong":"7"}}"#),
        ("winning_cluster_time", "[11,1]"),
        ("winning_document", ""),
        ("losing_wall_time", "1970-01-01T00:00:00.001Z"),
        ("losing_version", "1"),
        (
            "losing_document",
            r#"{"_id":{"$numberLong":"7"},"price":{"$numberDouble":"1.0"},"at":{"$date":{"$numberLong":"3"}}}"#,
        ),
        ("clock_skew_ms", "-4"),
        ("other_key", ""),
        ("status", "logged"),
    ] {
        assert_eq!(cell(name), expected, "{name}");
    }
    assert_eq!(listed(Format::Csv, &[]).lines().count(), 1);
}

#[test]
fn a_spreadsheet_takes_no_name_for_a_formula() {
    for start in ["=cmd", "+1", "-1", "@x", "\tx", "\rx"] {
        let text = listed(Format::Csv, &[record("0a", start)]);
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let row = reader.records().next().unwrap().unwrap();
        assert_eq!(&row[3], format!("'{start}"));
    }
}

#[test]
fn a_table_shows_no_control_characters() {
    let text = listed(
        Format::Table,
        &[record("0a", "shop.\x1b[31mred\nnext\u{202e}yad")],
    );
    assert!(
        text.contains(r"shop.\u{1b}[31mred\nnext\u{202e}yad"),
        "{text}"
    );
    assert!(!text.contains('\x1b'));
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(listed(Format::Table, &[]), "no conflicts\n");
}

#[test]
fn a_terminal_obeys_no_value_in_any_format() {
    let mut hostile = record("=0a", "shop.\x1b[31m\u{9b}2J\u{7f}");
    let key = rawdoc! { "_id": { "\x1b]0;name\x07": "\u{9b}2J", "r": bson::Regex { pattern: "\u{9b}".try_into().unwrap(), options: "".try_into().unwrap() } } };
    hostile.append(bson::cstr!("other_key"), key);
    for format in Format::ALL {
        let text = listed(format, std::slice::from_ref(&hostile));
        let left = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(left, None, "{format:?}: {text:?}");
        if let Format::Json | Format::Ndjson = format {
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            let text = read.to_string();
            assert!(text.contains('\u{9b}'), "the value itself is kept: {text}");
        }
    }
}

/// A record with `text` wherever a text may stand.
fn full_of(text: &str) -> RawDocumentBuf {
    let inner = bson::doc! { text: { text: [text] } };
    let side = bson::doc! {
        "operation": text, "cluster_time": text, "wall_time": text, "version": text,
        "document": inner.clone(), "change": inner.clone(),
    };
    let mut record = bson::Document::new();
    for name in [
        "_id",
        "logged_at",
        "pipeline",
        "namespace",
        "kind",
        "policy",
        "winner",
        "winner_cluster",
        "reason",
        "clock_skew_ms",
        "index",
        "attempts",
        "status",
        "settled_by",
    ] {
        record.insert(name, text);
    }
    record.extend(bson::doc! {
        "document_key": { "_id": inner.clone() },
        "other_key": { "_id": inner },
        "winning": side.clone(),
        "losing": side,
        "redacted": [{ "path": text, "differs": true }],
        "restored": { "at": text, "user": text, "host": text, "account": text },
    });
    RawDocumentBuf::try_from(&record).unwrap()
}

#[test]
fn no_text_in_any_column_of_any_format_is_a_formula_or_obeyed() {
    for start in ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "\nx"] {
        let text = format!("{start}\x1b[31m\u{9b}2J\u{7f}<hostile>\"'");
        let records = [full_of(&text)];
        for detail in [Detail::Records, Detail::DeadLetters, Detail::Summary] {
            for format in Format::ALL {
                let text = rendered(format, detail, &records).0;
                let obeyed = |c: &char| c.is_control() && !['\n', '\t', '\r'].contains(c);
                assert_eq!(text.chars().find(obeyed), None, "{format:?} {detail:?}");
                if format == Format::Html {
                    assert!(!text.contains("<hostile>"), "{detail:?}");
                }
                if format != Format::Csv {
                    assert_eq!(text.find(['\t', '\r']), None, "{format:?}");
                    continue;
                }
                let mut reader = csv::Reader::from_reader(text.as_bytes());
                let cells = reader.records().map(Result::unwrap).collect::<Vec<_>>();
                for cell in cells.iter().flat_map(|row| row.iter()) {
                    let formula = cell.starts_with(super::csv_rows::FORMULA_STARTS);
                    assert!(!formula, "{start:?}: {cell:?}");
                }
            }
        }
    }
}

#[test]
fn a_long_table_comes_in_pages_and_loses_no_row() {
    let records: Vec<_> = (0..1200)
        .map(|n| record(&format!("id{n:04}"), "s.o"))
        .collect();
    let text = listed(Format::Table, &records);
    assert_eq!(text.lines().count(), 1200 + 3, "a header for each page");
    for n in 0..1200 {
        assert!(text.contains(&format!("id{n:04}")), "{n}");
    }
}

#[test]
fn overturned_records_are_counted_apart() {
    let standing = record("0a", "shop.orders");
    let mut overturned = bson::Document::try_from(standing.clone()).unwrap();
    overturned.insert("status", "overturned");
    let overturned = RawDocumentBuf::try_from(overturned).unwrap();
    let (_, counts) = rendered(Format::Ndjson, Detail::Summary, &[standing, overturned]);
    assert_eq!((counts.total, counts.standing), (2, 1));
}

#[test]
fn a_summary_counts_by_day_namespace_kind_and_winner() {
    let records = [
        record("0a", "shop.orders"),
        record("0b", "shop.items"),
        rawdoc! { "_id": "0c", "logged_at": DateTime::from_millis(0), "namespace": "shop.items",
        "kind": "dead_letter", "winner": bson::RawBson::Null },
    ];
    let (json, _) = rendered(Format::Json, Detail::Summary, &records);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap(),
        serde_json::json!({
            "format": 1,
            "link": "eu-us",
            "complete_since": "2023-11-14T22:13:20.000Z",
            "total": 3,
            "by_day": { "1970-01-01": 1, "2023-11-14": 2 },
            "by_namespace": { "shop.items": 2, "shop.orders": 1 },
            "by_kind": { "dead_letter": 1, "update_origin_differs": 2 },
            "by_winner": { "eu": 2, "none": 1 },
            "by_status": { "logged": 2, "none": 1 },
            "top_documents": [
                { "namespace": "shop.items", "document_key": { "_id": { "$numberLong": "7" } }, "count": 1 },
                { "namespace": "shop.orders", "document_key": { "_id": { "$numberLong": "7" } }, "count": 1 },
            ],
            "top_documents_exact": true,
            "writes": null,
        })
    );
    let (csv, _) = rendered(Format::Csv, Detail::Summary, &records);
    assert!(
        csv.starts_with("by,name,count\ntotal,,3\nday,1970-01-01,1\n"),
        "{csv}"
    );
    let (table, _) = rendered(Format::Table, Detail::Summary, &records);
    let has_row = table
        .lines()
        .any(|line| line.split_whitespace().eq(["namespace", "shop.items", "2"]));
    assert!(has_row, "{table}");
}

#[test]
fn types_order_and_duplicate_names_survive() {
    let mut document = rawdoc! { "z": 1, "a": bson::oid::ObjectId::from_bytes([1; 12]) };
    document.append(bson::cstr!("z"), f64::NAN);
    document.append(
        bson::cstr!("l"),
        bson::rawbson!([1_i64, { "k": "\"q\"" }, []]),
    );
    document.append(
        bson::cstr!("t"),
        Timestamp {
            time: 1,
            increment: 2,
        },
    );
    let mut text = String::new();
    write_canonical(&mut text, &document);
    assert_eq!(
        text,
        r#"{"z":{"$numberInt":"1"},"a":{"$oid":"010101010101010101010101"},"z":{"$numberDouble":"NaN"},"l":[{"$numberLong":"1"},{"k":"\"q\""},[]],"t":{"$timestamp":{"t":1,"i":2}}}"#
    );
}

#[test]
fn text_that_is_not_utf_8_is_shown_and_fails_nothing() {
    let good = rawdoc! { "_id": "0a", "losing": { "document": { "s": "ab?cd" } } };
    let mut bytes = good.into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xFF;
    let bad = RawDocumentBuf::from_bytes(bytes).unwrap();
    assert_eq!(
        listed(Format::Ndjson, &[bad]),
        "{\"id\":\"0a\",\"losing\":{\"document\":{\"s\":\"ab\u{FFFD}cd\"}}}\n"
    );
}

#[test]
fn a_broken_document_is_shown_as_its_bytes() {
    let mut bytes = rawdoc! { "a": { "b": 1 } }.into_bytes();
    // The type of `b` becomes one that BSON does not have.
    bytes[11] = 0x55;
    let broken = RawDocumentBuf::from_bytes(bytes).unwrap();
    let text = listed(Format::Ndjson, &[broken]);
    assert!(
        text.contains("$unreadable") && text.contains("base64"),
        "{text}"
    );
    serde_json::from_str::<serde_json::Value>(&text).unwrap();
}

#[test]
fn a_format_is_named_as_it_is_typed() {
    for format in Format::ALL {
        assert_eq!(format.as_str().parse::<Format>().unwrap(), format);
    }
    assert!("xml".parse::<Format>().is_err());
}
