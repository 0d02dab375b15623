//! A cluster that was restored from a backup is noticed, and brought back from the other one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bson::doc;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv, raw_by_id};
use crate::support::mongod::MongodOptions;
use crate::support::oplog::push_ahead;
use crate::support::tandem::Tandem;

const SOON: Duration = Duration::from_secs(30);

fn copy(from: PathBuf, to: PathBuf) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.expect("cp").success());
}

/// Two clusters of which a was set back to its backup, two minutes after which the link has gone on.
async fn set_back(link_of: fn(&TestEnv) -> LinkConfig) -> (TestEnv, Tandem) {
    let backups = tempfile::tempdir().expect("a temporary directory");
    let backup = backups.path().join("a");
    let a = MongodOptions::named("eu-set");
    let mut env = TestEnv::start_with(a, MongodOptions::named("us-set")).await;
    let mut tandem = env.streaming(&link_of(&env)).await;
    let rows = [doc! { "_id": 1 }, doc! { "_id": 2 }];
    env.orders_a().insert_many(rows).await.unwrap();
    assert_converged(&env, SOON).await;
    tandem.stop().await;
    env.a.sigkill();
    copy(env.a.data_dir().to_owned(), backup.clone());
    env.a.restart().await;

    tandem.start();
    tandem.wait_until_streaming().await;
    push_ahead(env.a.client(), 120).await;
    env.orders_a().delete_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    tandem.stop().await;
    env.a.sigkill();
    let data = env.a.data_dir().to_owned();
    fs::remove_dir_all(&data).unwrap();
    copy(backup, data);
    env.a.restart().await;
    assert!(raw_by_id(&env.orders_a(), 1).await.is_some());
    (env, tandem)
}

/// A start ends with 5; gives what it says.
fn refused(tandem: &Tandem) -> String {
    let output = tandem.run(&["run", "--until-caught-up"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    said
}

fn resynced(tandem: &Tandem, from: &str) {
    let output = tandem.run(&["resync", "--from", from]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_cluster_is_noticed_without_the_state_directory_too() {
    let (env, tandem) = set_back(TestEnv::link).await;
    let said = refused(&tandem);
    assert!(said.contains("stands behind"), "{said}");
    assert!(said.contains("`tandem resync --from b`"), "{said}");

    let mut link = env.link();
    link.state_dir = "of-another-host".to_owned();
    let other = env.tandem_named("other.toml", &link);
    let said = refused(&other);
    let forgotten = "has forgotten what was read from it at";
    assert!(said.contains(forgotten), "{said}");
    resynced(&other, "b");
    assert_converged(&env, SOON).await;
    assert!(raw_by_id(&env.orders_a(), 1).await.is_none());
    let after = raw_by_id(&env.orders_a(), "pushed ahead").await;
    assert!(after.is_some());
    let again = other.run(&["run", "--until-caught-up"]);
    assert_eq!(again.status.code(), Some(0));
}

/// Nothing of the link's progress lies on the source, so its own oplog has to tell.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_source_of_a_one_way_link_is_noticed() {
    let one_way = |env: &TestEnv| env.link().one_way();
    let (env, tandem) = set_back(one_way).await;
    let said = refused(&tandem);
    let forgotten = "has forgotten what was read from it at";
    assert!(said.contains(forgotten), "{said}");
    assert!(said.contains("`tandem resync --from a`"), "{said}");
    resynced(&tandem, "a");
    assert_converged(&env, SOON).await;
    assert!(raw_by_id(&env.orders_b(), 1).await.is_some());
}
