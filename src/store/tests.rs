//! The store as its users see it, on a real directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use bson::{RawDocumentBuf, Timestamp, rawdoc};

use super::*;
use crate::change::{AppliedThrough, ConflictKind, Position, RecordStatus};
use crate::error::ExitCode;

/// A directory that goes away with the test.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("tandem-store-{}", Uuid::new())))
    }

    fn open(&self) -> Store {
        once_let_go(|| Store::open(&self.0)).unwrap()
    }

    fn refusal(&self) -> Error {
        let refused = once_let_go(|| Store::open(&self.0)).err();
        refused.expect("the store is refused")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn record(id: &str, logged_at_ms: i64) -> RawDocumentBuf {
    rawdoc! {
        "_id": id,
        "logged_at": DateTime::from_millis(logged_at_ms),
        "namespace": "shop.orders",
        "kind": "insert_exists",
        "status": "logged",
        "losing": { "document": { "_id": 1, "big": "x".repeat(200) } },
    }
}

fn ids(store: &Store, filter: &RecordFilter) -> Vec<String> {
    let id = |record: Result<RawDocumentBuf>| record.unwrap().get_str("_id").unwrap().to_owned();
    store.records(filter).map(id).collect()
}

fn checkpoint(lane: usize, lanes: usize, epoch: i64, seq: i64) -> StoredCheckpoint {
    let time = Timestamp {
        time: 100,
        increment: seq as u32,
    };
    StoredCheckpoint {
        pipeline: PipelineId::AToB,
        lane,
        lanes,
        epoch,
        seq,
        applied: AppliedThrough(Position::of_event(time, format!("82{epoch}{seq}"))),
        written_until: Some(time),
    }
}

#[test]
fn everything_is_there_after_reopening() {
    let dir = Dir::new();
    let identity = LinkIdentity {
        link: "eu-us".into(),
        mode: "two-way".into(),
        tie: Side::A,
        database: "__tandem".into(),
        replica_set_ids: Pair::new("1".into(), "2".into()),
        include: vec!["shop.*".into()],
        exclude: vec![],
        filters: vec![],
        renames: vec![],
    };
    let totals = Totals {
        conflicts: u64::MAX,
        ..Totals::default()
    };
    let session = Uuid::new();
    let store = dir.open();
    let store_id = store.store_id().to_owned();
    store.set_identity(&identity).unwrap();
    store
        .save_checkpoint(&checkpoint(0, 1, 1, 7), &Pair::default())
        .unwrap();
    store.add_tag_sessions(Side::B, &[session]).unwrap();
    store.save_totals(PipelineId::BToA, &totals).unwrap();
    store.save_status(&serde_json::json!({ "n": 1 })).unwrap();
    let since = DateTime::from_millis(5);
    store.set_complete_since(since).unwrap();
    store.put_records(&[record("0a", 1)]).unwrap();
    drop(store);

    let store = dir.open();
    assert_eq!(store.store_id(), store_id);
    assert_eq!(store.identity().unwrap(), Some(identity));
    assert_eq!(store.checkpoints().unwrap(), [checkpoint(0, 1, 1, 7)]);
    assert_eq!(store.tag_sessions(Side::A).unwrap(), []);
    assert_eq!(store.tag_sessions(Side::B).unwrap(), [session]);
    assert_eq!(store.totals(PipelineId::BToA).unwrap(), totals);
    assert_eq!(store.totals(PipelineId::AToB).unwrap(), Totals::default());
    assert_eq!(store.status().unwrap(), Some(serde_json::json!({ "n": 1 })));
    assert_eq!(store.complete_since().unwrap(), Some(since));
    assert_eq!(store.record("0a").unwrap(), Some(record("0a", 1)));
}

#[test]
fn a_store_that_is_open_is_locked_for_others() {
    let dir = Dir::new();
    let store = dir.open();
    let error = dir.refusal();
    assert_eq!(error.exit, ExitCode::Store);
    assert!(is_locked(&error), "{error}");
    assert!(error.hint.unwrap().contains("another tandem"));
    drop(store);
    dir.open();
}

#[test]
fn a_report_creates_no_store() {
    let dir = Dir::new();
    assert!(Store::open_existing(&dir.0).unwrap().is_none());
    assert!(!dir.0.exists());
    drop(dir.open());
    let found = once_let_go(|| Store::open_existing(&dir.0));
    assert!(found.unwrap().is_some());
}

#[test]
fn only_its_user_can_read_the_store() {
    let dir = Dir::new();
    drop(dir.open());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.0), 0o700);
    assert_eq!(mode(&dir.0.join("store")), 0o700);
    assert_eq!(mode(&dir.0.join("store.format")), 0o600);
    assert_eq!(mode(&dir.0.join("store/db")), 0o600);
}

#[test]
fn the_first_record_of_an_id_wins() {
    let dir = Dir::new();
    let store = dir.open();
    assert_eq!(
        store
            .put_records(&[record("0a", 1), record("0b", 2)])
            .unwrap(),
        2
    );
    assert_eq!(
        store
            .put_records(&[record("0a", 9), record("0c", 3)])
            .unwrap(),
        1
    );
    assert_eq!(store.record("0a").unwrap(), Some(record("0a", 1)));
    assert_eq!(ids(&store, &RecordFilter::default()), ["0a", "0b", "0c"]);
}

#[test]
fn records_come_in_the_order_of_time_and_id() {
    let dir = Dir::new();
    let store = dir.open();
    store
        .put_records(&[
            record("0c", 300),
            record("0b", 256),
            record("0a", 256),
            record("0d", -5),
        ])
        .unwrap();
    assert_eq!(
        ids(&store, &RecordFilter::default()),
        ["0d", "0a", "0b", "0c"]
    );
}

#[test]
fn a_filter_takes_a_range_of_time_and_the_rest_by_record() {
    let dir = Dir::new();
    let store = dir.open();
    for at in 0..10 {
        store.put_records(&[record(&format!("0{at}"), at)]).unwrap();
    }
    let mut filter = RecordFilter {
        since: Some(DateTime::from_millis(3)),
        until: Some(DateTime::from_millis(6)),
        ..RecordFilter::default()
    };
    assert_eq!(ids(&store, &filter), ["03", "04", "05"]);
    filter.ids = vec!["04".into()];
    assert_eq!(ids(&store, &filter), ["04"]);
    filter.kinds = vec![ConflictKind::Ddl];
    assert_eq!(ids(&store, &filter), [""; 0]);
    filter.since = Some(DateTime::from_millis(9));
    assert_eq!(ids(&store, &filter), [""; 0]);
}

#[test]
fn a_status_changes_nothing_else_of_a_record() {
    let dir = Dir::new();
    let store = dir.open();
    store.put_records(&[record("0a", 1)]).unwrap();
    assert!(
        store
            .set_record_status("0a", RecordStatus::Overturned)
            .unwrap()
    );
    assert!(
        !store
            .set_record_status("0f", RecordStatus::Overturned)
            .unwrap()
    );
    let found = store.record("0a").unwrap().unwrap();
    assert_eq!(found.get_str("status").unwrap(), "overturned");
    assert_eq!(
        found.get_document("losing").unwrap(),
        record("0a", 1).get_document("losing").unwrap()
    );
}

#[test]
fn many_records_stream_out_after_reopening() {
    const RECORDS: usize = 10_000;
    let dir = Dir::new();
    let store = dir.open();
    let records: Vec<_> = (0..RECORDS)
        .map(|n| record(&format!("{n:05}"), (RECORDS - n) as i64))
        .collect();
    assert_eq!(store.put_records(&records).unwrap(), RECORDS);
    assert_eq!(store.put_records(&records).unwrap(), 0);
    drop(store);
    let found = ids(&dir.open(), &RecordFilter::default());
    let expected: Vec<_> = (0..RECORDS).rev().map(|n| format!("{n:05}")).collect();
    assert!(found == expected);
}

#[test]
fn what_was_done_is_saved_with_the_checkpoint_that_says_so() {
    let dir = Dir::new();
    let store = dir.open();
    let after = |updates_applied: u64| {
        let totals = Totals {
            updates_applied,
            ..Totals::default()
        };
        Pair::new(totals, Totals::default())
    };
    store
        .save_checkpoint(&checkpoint(0, 1, 1, 7), &after(70))
        .unwrap();
    drop(store);
    let store = dir.open();
    assert_eq!(store.checkpoints().unwrap(), [checkpoint(0, 1, 1, 7)]);
    assert_eq!(store.totals(PipelineId::AToB).unwrap(), after(70).a);
}

#[test]
fn a_checkpoint_never_moves_backwards() {
    let dir = Dir::new();
    let store = dir.open();
    store
        .save_checkpoint(&checkpoint(0, 1, 2, 5), &Pair::default())
        .unwrap();
    store
        .save_checkpoint(&checkpoint(0, 1, 2, 4), &Pair::default())
        .unwrap();
    store
        .save_checkpoint(&checkpoint(0, 1, 1, 9), &Pair::default())
        .unwrap();
    let saved = || store.checkpoint(PipelineId::AToB, 0).unwrap().unwrap();
    assert_eq!(saved(), checkpoint(0, 1, 2, 5));
    store
        .save_checkpoint(&checkpoint(0, 1, 3, 0), &Pair::default())
        .unwrap();
    assert_eq!(saved(), checkpoint(0, 1, 3, 0));
}

#[test]
fn lanes_that_a_newer_epoch_does_not_have_are_forgotten() {
    let dir = Dir::new();
    let store = dir.open();
    for lane in 0..4 {
        store
            .save_checkpoint(&checkpoint(lane, 4, 1, 1), &Pair::default())
            .unwrap();
    }
    for lane in 0..2 {
        store
            .save_checkpoint(&checkpoint(lane, 2, 2, 0), &Pair::default())
            .unwrap();
    }
    let lanes: Vec<_> = store.checkpoints().unwrap();
    assert_eq!(lanes, [checkpoint(0, 2, 2, 0), checkpoint(1, 2, 2, 0)]);
}

#[test]
fn removed_records_are_gone_and_the_log_is_still_whole() {
    let dir = Dir::new();
    let store = dir.open();
    store
        .put_records(&[record("0a", 1), record("0b", 2)])
        .unwrap();
    store
        .remove_records(&["0a".to_owned(), "0f".to_owned()])
        .unwrap();
    assert_eq!(ids(&store, &RecordFilter::default()), ["0b"]);
    assert_eq!(store.record("0a").unwrap(), None);
    store.check_log().unwrap();
}

#[test]
fn a_cleared_link_leaves_an_empty_store_with_its_id() {
    let dir = Dir::new();
    let store = dir.open();
    let store_id = store.store_id().to_owned();
    store.put_records(&[record("0a", 1)]).unwrap();
    store
        .save_checkpoint(&checkpoint(0, 1, 2, 5), &Pair::default())
        .unwrap();
    store.clear_link().unwrap();
    assert_eq!(store.record("0a").unwrap(), None);
    drop(store);
    let store = dir.open();
    assert_eq!(store.store_id(), store_id);
    assert_eq!(store.checkpoints().unwrap(), []);
    assert_eq!(store.put_records(&[record("0a", 1)]).unwrap(), 1);
}

#[test]
fn a_newer_format_is_refused() {
    let dir = Dir::new();
    drop(dir.open());
    fs::write(dir.0.join("store.format"), "2 some-id\n").unwrap();
    let error = dir.refusal();
    assert_eq!(error.exit, ExitCode::Store);
    assert!(error.to_string().contains("has format 2"), "{error}");
}

#[test]
fn a_damaged_store_is_refused_with_a_way_out() {
    let damages: [fn(&Path); 4] = [
        |db| fs::write(db, vec![0xA5; 700_000]).unwrap(),
        |db| fs::write(db, b"").unwrap(),
        |db| fs::remove_file(db).unwrap(),
        |db| fs::remove_dir_all(db.parent().unwrap()).unwrap(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let dir = Dir::new();
        let store = dir.open();
        store.put_records(&[record("0a", 1)]).unwrap();
        drop(store);
        damage(&dir.0.join("store/db"));
        let error = dir.refusal();
        assert_eq!(error.exit, ExitCode::Store, "damage {number}: {error}");
        assert!(!is_locked(&error), "damage {number}: {error}");
        let hint = error.hint.as_deref().unwrap_or_default();
        assert!(hint.contains("rebuilds"), "damage {number}: {error}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_a_store_error() {
    let dir = Dir::new();
    fs::create_dir_all(&dir.0).unwrap();
    let file = dir.0.join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file.join("state")).err().unwrap();
    assert_eq!(error.exit, ExitCode::Store, "{error}");
}

#[test]
fn a_gap_in_the_conflict_log_is_told_and_filled_up_by_putting_its_records_again() {
    let dir = Dir::new();
    let store = dir.open();
    let records = [record("0a", 1), record("0b", 2), record("0c", 3)];
    store.put_records(&records).unwrap();
    store.check_log().unwrap();
    store.0.records.pop_min().unwrap();
    let error = store.check_log().unwrap_err();
    assert_eq!(error.exit, ExitCode::Store);
    assert!(error.hint.unwrap().contains("rebuilds"));
    assert_eq!(store.put_records(&records).unwrap(), 1);
    store.check_log().unwrap();
    assert_eq!(store.record("0a").unwrap(), Some(record("0a", 1)));
}
