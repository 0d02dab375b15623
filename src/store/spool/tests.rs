//! Events go to the disk and come back as they were.

use std::fs::OpenOptions;

use bson::{RawDocumentBuf, Timestamp, rawdoc};

use super::*;
use crate::change::{DocumentKey, Namespace, Operation, Position, Rank, RawEvent, Version};
use crate::error::ExitCode;

fn event(number: u32, text_bytes: usize) -> ChangeEvent {
    let namespace = Namespace::new("shop", "orders.archive");
    let time = Timestamp {
        time: number,
        increment: 7,
    };
    let raw: RawDocumentBuf = rawdoc! { "fullDocument": { "text": "x".repeat(text_bytes) } };
    ChangeEvent {
        position: Position::of_event(time, format!("82{number:06}")),
        key: DocumentKey::of(&namespace, &rawdoc! { "_id": number as i64 }).unwrap(),
        operation: Operation::Replace,
        version: Version {
            wall_time_ms: -1,
            rank: Rank::Wins,
        },
        wall_time_ms: 1 << 40,
        raw: RawEvent::of(raw, Operation::Replace),
    }
}

fn assert_same(found: &ChangeEvent, expected: &ChangeEvent) {
    assert_eq!(found.position, expected.position);
    assert_eq!(found.key, expected.key);
    assert_eq!(found.key.raw(), expected.key.raw());
    assert_eq!(found.operation, expected.operation);
    assert_eq!(found.version, expected.version);
    assert_eq!(found.wall_time_ms, expected.wall_time_ms);
    assert_eq!(found.raw, expected.raw);
}

#[test]
fn events_come_back_as_they_were_in_order_and_by_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = SpoolFiles::new(dir.path());
    spool.file_bytes_max = 3000;
    let events: Vec<ChangeEvent> = (0..40)
        .map(|number| event(number, if number % 3 == 0 { 5000 } else { 10 }))
        .collect();
    let places: Vec<u64> = events
        .iter()
        .map(|event| spool.append(event).unwrap())
        .collect();
    for (place, event) in places.iter().zip(&events).rev() {
        assert_same(&spool.read(*place).unwrap().0, event);
    }
    let mut next = places[0];
    for event in &events {
        let (found, behind) = spool.read(next).unwrap();
        assert_same(&found, event);
        next = behind;
    }
}

#[test]
fn what_was_released_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = SpoolFiles::new(dir.path());
    spool.file_bytes_max = 1000;
    let places: Vec<u64> = (0..20)
        .map(|number| spool.append(&event(number, 300)).unwrap())
        .collect();
    let files = spool.files.len();
    assert!(files > 4, "{files}");
    spool.release(places[10]);
    assert!(spool.files.len() < files);
    assert_eq!(spool.read(places[10]).unwrap().0.position.time.time, 10);
    spool.release(spool.end);
    assert!(spool.files.is_empty());
    let place = spool.append(&event(20, 1)).unwrap();
    assert_eq!(spool.read(place).unwrap().0.position.time.time, 20);
}

#[test]
fn no_file_of_a_spool_has_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = SpoolFiles::new(dir.path());
    spool.append(&event(1, 1)).unwrap();
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_full_disk_is_an_error_of_the_store_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = SpoolFiles::new(dir.path());
    spool.files.push_back(Part {
        file: OpenOptions::new().write(true).open("/dev/full").unwrap(),
        begins: 0,
    });
    let error = spool.append(&event(1, 1)).unwrap_err();
    assert_eq!(error.exit, ExitCode::Store);
    assert_eq!(error.hint.as_deref(), Some("free space on its disk"));
    assert!(error.message.contains("nothing is lost"), "{error}");
    assert!(error.message.contains(&dir.path().display().to_string()));
}
