//! The same answers from a running process, from a store and from nothing.

use bson::{DateTime, RawDocumentBuf, rawdoc};

use super::*;
use crate::error::ExitCode;
use crate::link::control::tests::{Canned, Dir, Serving};
use crate::store::once_let_go;

const NAMES: Pair<&str> = Pair { a: "eu", b: "us" };

fn record(id: &str, status: &str) -> RawDocumentBuf {
    rawdoc! { "_id": id, "logged_at": DateTime::from_millis(1), "status": status }
}

async fn report(dir: &Path) -> (String, Counts) {
    let mut out = Vec::new();
    let asked = Asked {
        state_dir: dir,
        link: "eu-us",
        names: NAMES,
        filter: RecordFilter::default(),
        page: Page::default(),
        typed: Vec::new(),
    };
    let counts = conflict_report(&asked, Format::Ndjson, Detail::Records, &mut out).await;
    (String::from_utf8(out).unwrap(), counts.unwrap())
}

async fn state(dir: &Path) -> LinkState {
    let status = status(dir, "eu-us", NAMES, &PipelineId::BOTH).await;
    status.unwrap().state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_the_same_from_the_process_and_from_the_store() {
    let dir = Dir::new();
    let records = vec![record("0a", "logged"), record("0b", "overturned")];
    let store = Store::open(&dir.0).unwrap();
    store.put_records(&records).unwrap();
    let handler = Canned {
        records,
        ..Canned::default()
    };
    let serving = Serving::start(&dir.0, handler);
    let from_process = report(&dir.0).await;
    serving.stop().await;
    drop(store);
    let from_store = report(&dir.0).await;
    assert_eq!(from_process, from_store);
    assert_eq!((from_store.1.total, from_store.1.standing), (2, 1));
    assert!(
        from_store.0.starts_with("{\"id\":\"0a\""),
        "{}",
        from_store.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_never_ran_has_no_records_and_says_so() {
    let dir = Dir::new();
    assert_eq!(report(&dir.0).await, (String::new(), Counts::default()));
    assert_eq!(state(&dir.0).await, LinkState::NeverRun);
    drop(Store::open(&dir.0).unwrap());
    assert_eq!(state(&dir.0).await, LinkState::NeverRun);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_process_died_is_stopped_unless_it_had_failed() {
    let dir = Dir::new();
    for (saved, shown) in [
        (LinkState::Running, LinkState::Stopped),
        (LinkState::Failed, LinkState::Failed),
    ] {
        let status = LinkStatus::new("eu-us", saved, NAMES, &PipelineId::BOTH);
        let store = once_let_go(|| Store::open(&dir.0)).unwrap();
        store
            .save_status(&serde_json::to_value(status).unwrap())
            .unwrap();
        drop(store);
        assert_eq!(state(&dir.0).await, shown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_is_asked_before_the_store() {
    let dir = Dir::new();
    let _store = Store::open(&dir.0).unwrap();
    let handler = Canned::default();
    let _serving = Serving::start(&dir.0, handler);
    assert_eq!(state(&dir.0).await, LinkState::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_let_go_in_a_moment_is_waited_for() {
    let dir = Dir::new();
    let store = Store::open(&dir.0).unwrap();
    let held = tokio::spawn(async move {
        tokio::time::sleep(LOCKED_PAUSE * 3).await;
        drop(store);
    });
    assert_eq!(state(&dir.0).await, LinkState::NeverRun);
    held.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stays_locked_without_a_socket_is_an_error() {
    let dir = Dir::new();
    let _store = Store::open(&dir.0).unwrap();
    let error = status(&dir.0, "eu-us", NAMES, &PipelineId::BOTH).await;
    assert_eq!(error.unwrap_err().exit, ExitCode::Store);
}

#[tokio::test]
async fn a_start_waits_for_a_report_to_let_go_of_the_store() {
    let dir = Dir::new();
    let store = Store::open(&dir.0).unwrap();
    let held = tokio::spawn(async move {
        tokio::time::sleep(LOCKED_PAUSE * 3).await;
        drop(store);
    });
    assert!(open_to_run(&dir.0).await.is_ok());
    held.await.unwrap();
}
