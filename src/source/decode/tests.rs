//! What each event of a stream means.

use super::*;
use bson::{DateTime, rawdoc};

fn decoder() -> Decoder {
    let filter = NamespaceFilter::new(&["shop.*".into()], &[], "__tandem");
    Decoder::new(
        Side::A,
        Side::A,
        filter,
        Filters::default(),
        Some("changed".into()),
        HashSet::from([Uuid::from_bytes([7; 16])]),
    )
}

fn event(
    database: &str,
    collection: &str,
    operation: &str,
    more: RawDocumentBuf,
) -> RawDocumentBuf {
    let mut event = rawdoc! {
        "_id": { "_data": "8265" },
        "operationType": operation,
        "clusterTime": Timestamp { time: 5, increment: 1 },
        "wallTime": DateTime::from_millis(9),
        "ns": { "db": database, "coll": collection },
        "documentKey": { "_id": "k" },
    };
    for (name, value) in more.iter().flatten() {
        event.append(name, value);
    }
    event
}

#[test]
fn a_write_on_a_tag_session_is_our_own() {
    let id = bson::Binary::from(Uuid::from_bytes([7; 16]));
    let raw = event(
        "shop",
        "o",
        "delete",
        rawdoc! { "lsid": { "id": id }, "txnNumber": 1_i64 },
    );
    let decoded = decoder().decode(&raw).unwrap();
    assert!(matches!(decoded.observed, Observed::Own(_)));
    assert!(!decoded.single_write);
}

#[test]
fn the_version_comes_from_the_event_alone() {
    let version = |raw: RawDocumentBuf| match decoder().decode(&raw).unwrap().observed {
        Observed::Local(event) => event.version.wall_time_ms,
        other => panic!("{other:?}"),
    };
    let full = rawdoc! { "fullDocument": { "_id": "k", "changed": DateTime::from_millis(77) } };
    assert_eq!(version(event("shop", "o", "insert", full)), 77);
    let update = rawdoc! { "rawUpdateDescription": { "diff": { "i": { "changed": 78_i64 } } } };
    assert_eq!(version(event("shop", "o", "update", update)), 78);
    let text = rawdoc! { "fullDocument": { "_id": "k", "changed": "yesterday" } };
    assert_eq!(version(event("shop", "o", "replace", text)), 9);
    assert_eq!(
        version(event("shop", "o", "delete", RawDocumentBuf::new())),
        9
    );
}

#[test]
fn state_of_our_own_just_passes() {
    let moved = rawdoc! { "rawUpdateDescription": { "diff": { "u": { "sequence": 2_i64 } } } };
    let own = event("__tandem", "checkpoints", "update", moved);
    let decoded = decoder().decode(&own).unwrap();
    assert!(matches!(decoded.observed, Observed::Passing));
}

#[test]
fn an_unknown_type_is_an_error_and_not_a_guess() {
    assert!(
        decoder()
            .decode(&event("shop", "o", "teleport", RawDocumentBuf::new()))
            .is_err()
    );
}

#[test]
fn a_dropped_database_concerns_all_of_its_collections() {
    let raw = rawdoc! {
        "_id": { "_data": "8265" }, "operationType": "dropDatabase",
        "clusterTime": Timestamp { time: 5, increment: 1 }, "ns": { "db": "shop" },
    };
    assert!(
        matches!(decoder().decode(&raw).unwrap().observed, Observed::Ddl(ddl) if ddl.operation == "dropDatabase")
    );
}

#[test]
fn no_event_makes_the_decoder_panic() {
    use crate::change::hostile::{any_bytes, any_damage, any_document, broken, for_any};
    use proptest::prelude::*;
    let operations = [
        "insert", "update", "replace", "delete", "drop", "rename", "x",
    ];
    let parts = (
        proptest::sample::select(operations.to_vec()),
        proptest::sample::select(&["shop", "__tandem", "other"][..]),
        prop_oneof![any_bytes(), any_document()],
        any_damage(),
    );
    for_any(parts, |(operation, database, content, (changes, cut))| {
        let more = rawdoc! {
            "fullDocument": content.clone(),
            "documentKey": content.clone(),
            "rawUpdateDescription": { "diff": content.clone() },
            "to": content.clone(),
            "lsid": content,
        };
        let whole = event(database, "checkpoints", operation, more);
        for raw in [broken(whole.clone(), &changes, cut), whole] {
            if let Ok(decoded) = decoder().decode(&raw)
                && let Observed::Local(event) = decoded.observed
            {
                prop_assert_eq!(event.raw.as_bytes(), raw.as_bytes());
                prop_assert!(
                    event
                        .difference()
                        .is_none_or(|part| !part.as_bytes().is_empty())
                );
            }
        }
        Ok(())
    });
}
