//! Rows and filters of a real store, compared with reading every record.

use bson::oid::ObjectId;
use bson::{DateTime, RawBson, RawDocument, RawDocumentBuf, rawdoc};

use super::block::{Block, ROWS_MAX, Row, rows};
use crate::change::{ConflictKind, PipelineId, RecordStatus};
use crate::error::Result;
use crate::store::page::Direction;
use crate::store::{RecordFilter, Store, once_let_go};

const RECORDS: usize = 500;

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// The `_id`s of documents are of all types that rows tell apart, and of others.
fn document_id(number: usize) -> RawBson {
    let number_i32 = i32::try_from(number % 40).unwrap();
    match number % 5 {
        0 => RawBson::Int32(number_i32),
        1 => RawBson::Int64(i64::from(number_i32)),
        2 => RawBson::String(format!("order-{number_i32}")),
        3 => RawBson::ObjectId(ObjectId::from_bytes([number_i32 as u8; 12])),
        _ => RawBson::Document(rawdoc! { "n": number_i32 }),
    }
}

/// Times go up and down, as those of several lanes do.
fn record(number: usize) -> RawDocumentBuf {
    let kinds = ConflictKind::ALL;
    let at = i64::try_from(number * 7919 % RECORDS).unwrap();
    rawdoc! {
        "_id": format!("{number:024x}"),
        "logged_at": DateTime::from_millis(at),
        "pipeline": if number.is_multiple_of(3) { "b-to-a" } else { "a-to-b" },
        "namespace": format!("shop.orders{}", number % 7),
        "document_key": { "_id": document_id(number) },
        "kind": kinds[number % kinds.len()].as_str(),
        "winner": if number.is_multiple_of(2) { "eu" } else { "us" },
        "winner_cluster": if number.is_multiple_of(2) { "a" } else { "b" },
        "status": "logged",
    }
}

fn filters_by_key() -> Vec<RecordFilter> {
    let keys = [
        "7",
        "\"7\"",
        "order-2",
        "\"order-2\"",
        "order-*",
        r#"{"_id": 7}"#,
        r#"{"n": 4}"#,
        r#"{"$numberLong": "6"}"#,
        r#"{"_id": {"$numberInt": "5"}}"#,
        "no such",
        "030303030303030303030303",
        r#"{"$oid": "030303030303030303030303"}"#,
    ];
    let filter = |key| RecordFilter {
        keys: texts(&[key]),
        ..RecordFilter::default()
    };
    keys.map(filter).into()
}

fn filters() -> Vec<RecordFilter> {
    let of = RecordFilter::default;
    let ids = texts(&[&format!("{:024x}", 7), &format!("{:024x}", 3), "none"]);
    let others = [
        RecordFilter {
            namespaces: texts(&["shop.orders3"]),
            ..of()
        },
        RecordFilter {
            namespaces: texts(&["shop.*"]),
            ..of()
        },
        RecordFilter {
            namespaces: texts(&["*5", "shop.orders1"]),
            ..of()
        },
        RecordFilter {
            kinds: vec![ConflictKind::DeadLetter],
            ..of()
        },
        RecordFilter {
            winners: texts(&["a"]),
            ..of()
        },
        RecordFilter {
            statuses: vec![RecordStatus::Overturned],
            ..of()
        },
        RecordFilter {
            statuses: vec![RecordStatus::Logged],
            ..of()
        },
        RecordFilter {
            pipelines: vec![PipelineId::BToA],
            ..of()
        },
        RecordFilter {
            ids: ids.clone(),
            ..of()
        },
        RecordFilter {
            ids,
            winners: texts(&["us"]),
            ..of()
        },
        RecordFilter {
            keys: texts(&["7", "order-2"]),
            winners: texts(&["us"]),
            ..of()
        },
    ];
    filters_by_key().into_iter().chain(others).collect()
}

fn id(record: &RawDocument) -> String {
    record.get_str("_id").unwrap().to_owned()
}

/// Each filter, alone and within a time, in both directions, finds what reading all of them finds.
fn assert_finds_all(store: &Store) {
    let all = store.records(&RecordFilter::default());
    let all: Vec<RawDocumentBuf> = all.map(Result::unwrap).collect();
    let times = [
        (None, None),
        (Some(100), Some(300)),
        (Some(490), None),
        (None, Some(0)),
    ];
    for (filter, (since, until)) in filters().iter().flat_map(|f| times.map(|time| (f, time))) {
        let filter = RecordFilter {
            since: since.map(DateTime::from_millis),
            until: until.map(DateTime::from_millis),
            ..filter.clone()
        };
        let expected = all.iter().filter(|record| filter.matches(record));
        let mut expected: Vec<String> = expected.map(|record| id(record)).collect();
        let found = |direction| -> Vec<String> {
            let found = store.matching(&filter, direction);
            found.map(|record| id(&record.unwrap())).collect()
        };
        assert_eq!(found(Direction::Ascending), expected, "{filter:?}");
        expected.reverse();
        assert_eq!(found(Direction::Descending), expected, "{filter:?}");
    }
}

fn filled(dir: &std::path::Path) -> Store {
    let store = Store::open(dir).unwrap();
    let records: Vec<RawDocumentBuf> = (0..RECORDS).map(record).collect();
    for part in records.chunks(37) {
        store.put_records(part).unwrap();
    }
    store
}

fn rows_of(store: &Store) -> usize {
    store.0.index.len().unwrap()
}

#[test]
fn a_filter_finds_by_the_index_what_it_finds_in_all_records() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    assert!(store.0.index.is_whole());
    assert_finds_all(&store);
    for number in (0..RECORDS).step_by(11) {
        let id = format!("{number:024x}");
        assert!(
            store
                .set_record_status(&id, RecordStatus::Overturned)
                .unwrap()
        );
    }
    let gone: Vec<String> = (0..RECORDS)
        .step_by(3)
        .map(|n| format!("{n:024x}"))
        .collect();
    store.remove_records(&gone).unwrap();
    store.put_records(&[record(0), record(1)]).unwrap();
    assert_finds_all(&store);
    assert_eq!(rows_of(&store), RECORDS - gone.len() + 1);
    store.check_log().unwrap();
}

#[test]
fn a_filter_reads_only_the_records_that_match() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    // What nobody asks for may be unreadable.
    let other = format!("{:024x}", 1);
    let other = store.key_of(&mut store.0.index.writing(), &other);
    let other = other.unwrap().unwrap();
    store.0.records.insert(other, b"no record").unwrap();
    let of = |namespace| RecordFilter {
        namespaces: texts(&[namespace]),
        ..Default::default()
    };
    assert!(
        store
            .records(&of("shop.orders3"))
            .all(|record| record.is_ok())
    );
    assert!(
        store
            .records(&of("shop.orders1"))
            .any(|record| record.is_err())
    );
}

#[test]
fn a_store_without_an_index_is_read_whole_and_gets_one_at_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let open = || once_let_go(|| Store::open(dir.path())).unwrap();
    let store = filled(dir.path());
    store.seal().unwrap();
    drop(store);
    let store = open();
    assert!(store.0.index.is_whole());
    // An older tandem writes its records, and goes on counting.
    let (blocks, _) = store.0.index.trees();
    blocks.clear().unwrap();
    let next = store.0.generation.load(std::sync::atomic::Ordering::SeqCst) + 1;
    crate::store::generation::put(&store.0.db, next).unwrap();
    drop(store);
    let store = open();
    assert!(!store.0.index.is_whole());
    assert_finds_all(&store);
    store.put_records(&[record(RECORDS)]).unwrap();
    assert!(
        store
            .set_record_status(&format!("{:024x}", 5), RecordStatus::Overturned)
            .unwrap()
    );
    store.remove_records(&[format!("{:024x}", 6)]).unwrap();
    store.seal().unwrap();
    drop(store);
    let store = open();
    assert!(!store.0.index.is_whole());
    store.complete_index().unwrap();
    assert!(store.0.index.is_whole());
    store.check_log().unwrap();
    assert_eq!(rows_of(&store), RECORDS);
    assert_finds_all(&store);
    store.seal().unwrap();
    drop(store);
    assert!(open().0.index.is_whole());
}

#[test]
fn rows_that_are_missing_are_made_anew_at_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    store.0.index.trees().0.pop_max().unwrap();
    assert!(rows_of(&store) < RECORDS);
    store.check_log().unwrap();
    assert_eq!(rows_of(&store), RECORDS);
    assert_finds_all(&store);
}

fn row(key: &[u8]) -> Row<'_> {
    Row {
        key,
        facets: 1,
        document: 2,
    }
}

#[test]
fn blocks_of_a_log_that_only_grows_are_full() {
    let mut block = Block::default();
    let key = |number: usize| u64::try_from(number).unwrap().to_be_bytes();
    for number in 0..ROWS_MAX {
        assert!(block.put(row(&key(number * 2))).is_none());
    }
    let (start, rest) = block.put(row(&key(1000))).unwrap();
    assert_eq!(start, key(1000));
    assert_eq!(rows(&rest.encoded()).count(), 1);
    assert_eq!(rows(&block.encoded()).count(), ROWS_MAX);
    let (start, rest) = block.put(row(&key(1))).unwrap();
    let both = [block.encoded(), rest.encoded()].concat();
    let keys: Vec<Vec<u8>> = rows(&both).map(|row| row.unwrap().key.to_vec()).collect();
    assert_eq!(keys.len(), ROWS_MAX + 1);
    assert!(keys.is_sorted() && keys.contains(&start));
}

#[test]
fn a_block_that_is_cut_is_told() {
    let mut block = Block::default();
    let row = row(b"12345678id");
    block.put(row);
    let bytes = block.encoded();
    assert_eq!(rows(&bytes).collect::<Vec<_>>(), [Some(row)]);
    assert!(rows(&bytes[..bytes.len() - 1]).any(|row| row.is_none()));
    assert!(Block::decoded(&bytes[1..]).is_none());
}
