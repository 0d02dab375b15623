//! Records by their ids, in a store that was opened anew, has lost a part, or is an older tandem's.

use std::path::Path;

use bson::{DateTime, RawDocumentBuf, rawdoc};

use super::{FORMER_KEYS, TIME_BYTES, digest};
use crate::change::RecordStatus;
use crate::error::ExitCode;
use crate::store::log::record_key;
use crate::store::{RecordFilter, Store, generation, once_let_go};

const RECORDS: usize = 300;

fn record(number: usize, logged_at_ms: i64) -> RawDocumentBuf {
    rawdoc! {
        "_id": id(number),
        "logged_at": DateTime::from_millis(logged_at_ms),
        "namespace": "shop.orders",
        "status": "logged",
    }
}

fn id(number: usize) -> String {
    format!("{:024x}", number * 7919 % RECORDS)
}

fn records(later_ms: i64) -> Vec<RawDocumentBuf> {
    let record = |number| record(number, later_ms + i64::try_from(number).unwrap() / 3);
    (0..RECORDS).map(record).collect()
}

fn open(dir: &Path) -> Store {
    once_let_go(|| Store::open(dir)).unwrap()
}

fn filled(dir: &Path) -> Store {
    let store = open(dir);
    assert_eq!(store.put_records(&records(0)).unwrap(), RECORDS);
    store
}

fn count(store: &Store) -> usize {
    store.records(&RecordFilter::default()).count()
}

fn count_since(store: &Store, since_ms: i64) -> usize {
    let filter = RecordFilter {
        since: Some(DateTime::from_millis(since_ms)),
        ..RecordFilter::default()
    };
    store.records(&filter).count()
}

/// As an older tandem leaves its log behind.
fn put_former_keys(store: &Store) {
    let keys = store.0.db.open_tree(FORMER_KEYS).unwrap();
    for (number, record) in records(0).iter().enumerate() {
        let key = record_key(record).unwrap();
        keys.insert(id(number), key).unwrap();
    }
}

fn has_former_keys(store: &Store) -> bool {
    store.former_ids().unwrap().is_some()
}

#[test]
fn a_record_that_comes_again_at_another_time_is_known_by_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    assert_eq!(store.put_records(&records(1000)).unwrap(), 0);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.put_records(&records(-1000)).unwrap(), 0);
    generation::forget_index(&store.0.db).unwrap();
    drop(store);
    let store = open(dir.path());
    assert!(!store.0.index.is_whole());
    assert_eq!(store.put_records(&records(1000)).unwrap(), 0);
    store.complete_index().unwrap();
    assert_eq!(store.put_records(&records(-1000)).unwrap(), 0);
    assert_eq!(count(&store), RECORDS);
    for (number, record) in records(0).into_iter().enumerate() {
        assert_eq!(store.record(&id(number)).unwrap(), Some(record));
    }
}

#[test]
fn a_record_is_changed_and_removed_by_its_id_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(dir.path()));
    let store = open(dir.path());
    let (changed, removed) = (id(7), id(8));
    let is_there = store.set_record_status(&changed, RecordStatus::Overturned);
    assert!(is_there.unwrap());
    store
        .remove_records(std::slice::from_ref(&removed))
        .unwrap();
    assert_eq!(store.record(&removed).unwrap(), None);
    let is_there = store.set_record_status(&removed, RecordStatus::Overturned);
    assert!(!is_there.unwrap());
    assert_eq!(store.put_records(&records(1000)).unwrap(), 1);
    assert_eq!(count_since(&store, 1000), 1);
    store
        .remove_records(std::slice::from_ref(&removed))
        .unwrap();
    drop(store);
    let store = open(dir.path());
    let found = store.record(&changed).unwrap().unwrap();
    assert_eq!(found.get_str("status").unwrap(), "overturned");
    assert_eq!(store.record(&removed).unwrap(), None);
    assert_eq!(store.put_records(&records(1000)).unwrap(), 1);
    assert_eq!(count(&store), RECORDS);
    store.check_log().unwrap();
}

#[test]
fn a_record_whose_row_is_lost_gets_it_again_and_stays_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    store.0.index.trees().0.pop_max().unwrap();
    let rows = || store.0.index.len().unwrap();
    assert!(rows() < RECORDS);
    store.0.index.writing().ids = None;
    assert_eq!(store.put_records(&records(0)).unwrap(), 0);
    assert_eq!((rows(), count(&store)), (RECORDS, RECORDS));
    store.0.index.trees().0.pop_max().unwrap();
    store.0.index.writing().ids = None;
    assert!(store.record(&id(0)).unwrap().is_some());
    store.check_log().unwrap();
    assert_eq!(store.put_records(&records(1000)).unwrap(), 0);
    assert_eq!((rows(), count(&store)), (RECORDS, RECORDS));
}

#[test]
fn the_log_of_an_older_tandem_is_checked_by_its_keys_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    put_former_keys(&store);
    let (_, lost) = store.0.records.pop_min().unwrap().unwrap();
    let lost = RawDocumentBuf::from_bytes(lost.to_vec()).unwrap();
    // As many records as keys: their number does not tell.
    let other = rawdoc! { "_id": "other", "logged_at": DateTime::from_millis(5) };
    store.put_records(&[other]).unwrap();
    // Nor does an index that is not there yet.
    generation::forget_index(&store.0.db).unwrap();
    drop(store);
    let store = open(dir.path());
    store.complete_index().unwrap();
    let error = store.check_log().unwrap_err();
    assert_eq!(error.exit, ExitCode::Store);
    assert!(error.to_string().contains("1 records"), "{error}");
    assert!(has_former_keys(&store));
    assert_eq!(store.put_records(&[lost]).unwrap(), 1);
    store.remove_records(&[id(9)]).unwrap();
    store.check_log().unwrap();
    assert!(!has_former_keys(&store));
    drop(store);
    let store = open(dir.path());
    assert!(!has_former_keys(&store));
    assert_eq!(store.put_records(&records(1000)).unwrap(), 1);
    assert_eq!(count(&store), RECORDS + 1);
}

#[test]
fn a_link_that_is_cleared_leaves_nothing_to_be_missed() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    put_former_keys(&store);
    store.clear_link().unwrap();
    assert!(!has_former_keys(&store));
    store.check_log().unwrap();
    assert_eq!(store.put_records(&records(1000)).unwrap(), RECORDS);
    assert_eq!(count_since(&store, 1000), RECORDS);
    drop(store);
    let store = open(dir.path());
    assert!(store.0.index.is_whole());
    store.check_log().unwrap();
}

#[test]
fn a_record_is_found_beside_others_whose_ids_have_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let own = id(7);
    for time in [0, u8::MAX] {
        let mut state = store.0.index.writing();
        let ids = store.ids(&mut state).unwrap();
        ids.0.insert((digest(own.as_bytes()), [time; TIME_BYTES]));
    }
    assert_eq!(store.record(&own).unwrap(), Some(record(7, 2)));
    assert_eq!(store.put_records(&records(1000)).unwrap(), 0);
    store.remove_records(&[own]).unwrap();
    assert_eq!(count(&store), RECORDS - 1);
}
