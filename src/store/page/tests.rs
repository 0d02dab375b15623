//! Pages of a real store.

use bson::{DateTime, rawdoc};

use super::*;
use crate::error::ExitCode;

/// A store whose directory goes away with the test.
struct Here(Store, tempfile::TempDir);

fn store() -> Here {
    let dir = tempfile::tempdir().unwrap();
    Here(Store::open(&dir.path().join("state")).unwrap(), dir)
}

fn record(id: &str, at: i64, namespace: &str) -> RawDocumentBuf {
    rawdoc! {
        "_id": id,
        "logged_at": DateTime::from_millis(at),
        "namespace": namespace,
        "kind": "insert_exists",
        "status": "logged",
    }
}

fn page_ids(store: &Store, page: Page) -> Vec<String> {
    let id = |record: Result<RawDocumentBuf>| record.unwrap().get_str("_id").unwrap().to_owned();
    store.page(&RecordFilter::default(), page).map(id).collect()
}

#[test]
fn records_come_in_pages_in_any_order() {
    let Here(store, _dir) = store();
    let records = [
        record("0c", 1, "shop.orders"),
        record("0a", 2, "shop.items"),
        record("0b", 3, "shop.orders"),
        record("0d", 4, "bank.a"),
    ];
    store.put_records(&records).unwrap();
    let sorted = |sort, direction, offset, limit| {
        page_ids(
            &store,
            Page {
                sort,
                direction,
                offset,
                limit,
            },
        )
    };
    let (up, down) = (Direction::Ascending, Direction::Descending);
    assert_eq!(
        sorted(SortBy::LoggedAt, up, 0, None),
        ["0c", "0a", "0b", "0d"]
    );
    assert_eq!(sorted(SortBy::LoggedAt, down, 1, Some(2)), ["0b", "0a"]);
    assert_eq!(
        sorted(SortBy::Namespace, up, 0, None),
        ["0d", "0a", "0c", "0b"]
    );
    assert_eq!(sorted(SortBy::Namespace, up, 1, Some(2)), ["0a", "0c"]);
    assert_eq!(sorted(SortBy::Namespace, down, 0, Some(1)), ["0c"]);
    assert_eq!(sorted(SortBy::Size, up, 0, Some(1)), ["0d"]);
    assert!(sorted(SortBy::Kind, up, 9, Some(1)).is_empty());
}

#[test]
fn more_than_can_be_sorted_is_refused_and_a_limit_helps() {
    let Here(store, _dir) = store();
    let records: Vec<_> = (0..5).map(|n| record(&format!("0{n}"), n, "s.o")).collect();
    store.put_records(&records).unwrap();
    let page = |limit| Page {
        sort: SortBy::Kind,
        limit,
        ..Page::default()
    };
    let refused = store.sorted_within(&RecordFilter::default(), page(None), 4);
    assert_eq!(refused.err().unwrap().exit, ExitCode::Usage);
    let taken = store.sorted_within(&RecordFilter::default(), page(Some(3)), 4);
    assert_eq!(taken.unwrap().count(), 3);
}

#[test]
fn bytes_of_the_log_are_counted_as_records_come_and_go() {
    let Here(store, _dir) = store();
    let records: Vec<_> = (0..5).map(|n| record(&format!("0{n}"), n, "s.o")).collect();
    let bytes: usize = records.iter().map(|record| record.as_bytes().len()).sum();
    store.put_records(&records).unwrap();
    store.put_records(&records).unwrap();
    assert_eq!(store.records_bytes(), bytes as u64);
    store
        .remove_records(&["00".to_owned(), "09".to_owned()])
        .unwrap();
    assert_eq!(store.records_bytes(), (bytes - bytes / 5) as u64);
    store.check_log().unwrap();
    assert_eq!(store.records_bytes(), (bytes - bytes / 5) as u64);
}
