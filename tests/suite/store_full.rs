//! The store's disk is full or fails: a clean stop, nothing lost, and on it goes.

use std::process::Command;
use std::time::Duration;

use bson::doc;

use crate::support::compare::{assert_converged, contents};
use crate::support::env::TestEnv;
use crate::support::oracle::History;
use crate::support::random::seed;
use crate::support::skipped::skipped;
use crate::support::strace;
use crate::support::tandem::Tandem;
use crate::support::workload::{Workload, documents_of};

const SOON: Duration = Duration::from_secs(30);

/// Writes until the process has ended; expects 7.
async fn ends_with_7(env: &TestEnv, tandem: &mut Tandem, ids_from: usize) -> History {
    let load = Workload::new(seed("store_full"), 40)
        .keys(20)
        .ids_from(ids_from);
    let history = load.run(env.a.client(), env.b.client()).await;
    let code = tandem.wait_exit(SOON).await;
    assert_eq!(code, 7, "{}", tandem.tail());
    history
}

/// What cannot be read while it is opened is dropped by sled; that is noticed then, and said.
async fn goes_on(env: &TestEnv, tandem: &mut Tandem, history: &History, may_be_refused: bool) {
    tandem.under(&[]);
    let _ = std::fs::remove_file(tandem.log_path());
    tandem.start();
    if tandem.ended_or_streaming().await.is_some() {
        assert!(may_be_refused, "{}", tandem.log());
        assert_eq!(tandem.wait_exit(SOON).await, 7);
        let log = tandem.log();
        assert!(log.contains("nothing lies in the store alone"), "{log}");
        std::fs::remove_dir_all(env.path("tandem-state")).unwrap();
        tandem.start();
    }
    tandem.wait_until_streaming().await;
    assert_converged(env, SOON).await;
    let documents = documents_of(&contents(env.a.client()).await);
    history.assert_accounted(&documents, &tandem.all_conflicts(env).await);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_or_fails_ends_the_run_with_7_and_nothing_is_lost() {
    if !strace::is_usable() {
        return;
    }
    let env = TestEnv::start().await;
    env.streaming(&env.link()).await.stop().await;
    let mut tandem = env.tandem(&env.link());
    let mut history = History::default();
    // At the start, and once it streams: strace counts the calls of each thread.
    for (round, (calls, error, when, hint)) in [
        ("pwrite64", "ENOSPC", "1+", "free space"),
        ("pwrite64", "ENOSPC", "3+", "free space"),
        ("pwrite64", "EDQUOT", "2+", "free space"),
        ("sync_file_range", "EIO", "2+", "check the disk"),
        ("fsync", "EIO", "4+", "check the disk"),
        // Once, and the disk is well again: what was to be written then is not there.
        ("fsync", "EIO", "1", "check the disk"),
        ("fsync", "EIO", "4", "check the disk"),
        ("sync_file_range", "EIO", "2", "check the disk"),
        ("rename", "ENOSPC", "2+", "free space"),
        ("write", "ENOSPC", "1+", "free space"),
        ("pread64", "EIO", "1+", "check the disk"),
        ("pread64", "EIO", "3+", "check the disk"),
    ]
    .into_iter()
    .enumerate()
    {
        let _ = std::fs::remove_file(tandem.log_path());
        // What the process does with its own files and threads goes on.
        let of_one_file = match calls {
            "write" => Some("tandem-state/store.format.new"),
            "pread64" => Some("tandem-state/store/db"),
            _ => None,
        };
        tandem.under(&match of_one_file {
            Some(file) => strace::failing_on(&env.path(file), calls, error, when),
            None => strace::failing(calls, error, when),
        });
        tandem.start();
        let more = ends_with_7(&env, &mut tandem, 1_000_000 * round).await;
        history = history.merge(more);
        let log = tandem.log();
        assert!(log.contains(hint), "{calls} {error} {when}: {log}");
        goes_on(&env, &mut tandem, &history, calls == "pread64").await;
    }
}

/// A file system of a few MB, gone with the test.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mounted_at(path: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
            .arg(&path)
            .output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        if !mounted {
            skipped("no file system can be mounted here");
        }
        mounted.then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_disk_that_fills_up_ends_the_run_with_7_until_there_is_space() {
    let env = TestEnv::start().await;
    let Some(disk) = SmallDisk::mounted_at(env.path("tandem-state")) else {
        return;
    };
    let mut tandem = env.streaming(&env.link()).await;
    let filler = disk.0.join("filler");
    // Writes as much as there is room for.
    let _ = std::fs::write(&filler, vec![1; 3 << 20]);
    tandem.sigstop();
    for (orders, side) in [(env.orders_a(), "a"), (env.orders_b(), "b")] {
        for id in 0..10 {
            let big = side.repeat(200_000);
            orders
                .insert_one(doc! { "_id": id, "name": big })
                .await
                .unwrap();
        }
    }
    tandem.sigcont();
    assert_eq!(tandem.wait_exit(SOON).await, 7, "{}", tandem.tail());
    assert!(tandem.log().contains("free space"), "{}", tandem.tail());
    for command in [&["run"][..], &["status"], &["runs"], &["conflict-report"]] {
        let output = tandem.run(command);
        let said = String::from_utf8_lossy(&output.stderr);
        // What only reads may still find room to open the store.
        let refused = output.status.code() == Some(7) && said.contains("free space");
        let told = output.status.code() == Some(0) && command != ["run"];
        assert!(refused || told, "{command:?}: {said}");
    }
    std::fs::remove_file(&filler).unwrap();
    let grown = Command::new("mount")
        .args(["-o", "remount,size=64m"])
        .arg(&disk.0)
        .status();
    assert!(grown.is_ok_and(|status| status.success()));
    tandem.start();
    tandem.wait_until_streaming().await;
    assert_converged(&env, SOON).await;
    assert_eq!(tandem.all_conflicts(&env).await.len(), 10);
    tandem.stop().await;
}
