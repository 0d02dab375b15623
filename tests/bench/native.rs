//! The same backlog drained by a secondary of the same replica set.

use std::time::{Duration, Instant};

use bson::{Document, Timestamp, doc};

use crate::backlog::Backlog;
use crate::measured::Drain;
use crate::resources::Servers;
use crate::support::mongod::Mongod;
use crate::support::wait::wait_for;
use crate::{DRAIN_TIME_MAX, roomy};

const SET: &str = "native";
const POLL: Duration = Duration::from_millis(5);
const SYNC_TIME_MAX: Duration = Duration::from_secs(120);

/// From the moment the secondary may fetch again until it has applied the last write.
pub async fn drain(backlog: &Backlog) -> Drain {
    let (primary, secondary) = tokio::join!(
        Mongod::start(roomy(SET)),
        Mongod::start_standalone(roomy(SET))
    );
    secondary.wait_answering().await;
    join(&primary, &secondary).await;
    backlog.prepare(primary.client()).await;
    let prepared = last_write(&primary).await;
    wait_for("the secondary follows", SYNC_TIME_MAX, || async {
        (last_write(&secondary).await >= prepared).then_some(())
    })
    .await;

    producer(&secondary, "alwaysOn").await;
    backlog.write(primary.client()).await;
    let end = last_write(&primary).await;
    assert!(
        last_write(&secondary).await < end,
        "the secondary stands still"
    );

    let servers = Servers::watch(Some(&primary), Some(&secondary)).await;
    let started = Instant::now();
    producer(&secondary, "off").await;
    while last_write(&secondary).await < end {
        assert!(
            started.elapsed() < DRAIN_TIME_MAX,
            "the secondary never arrives"
        );
        tokio::time::sleep(POLL).await;
    }
    Drain {
        operations: backlog.operations,
        time: started.elapsed(),
        cpu: servers.taken(0.0),
        ..Drain::default()
    }
}

/// A member that has no vote, so that a majority is the primary alone, as it is for tandem.
async fn join(primary: &Mongod, secondary: &Mongod) {
    let reply = primary.admin(doc! { "replSetGetConfig": 1 }).await;
    let mut config = reply.get_document("config").expect("a config").clone();
    let version = config.get_i32("version").expect("a version");
    config.insert("version", version + 1);
    let host = format!("127.0.0.1:{}", secondary.port());
    let member = doc! { "_id": 1, "host": host, "priority": 0, "votes": 0 };
    config
        .get_array_mut("members")
        .expect("members")
        .push(member.into());
    primary.admin(doc! { "replSetReconfig": config }).await;
    wait_for("the secondary is one", SYNC_TIME_MAX, || async {
        let hello = secondary.admin(doc! { "hello": 1 }).await;
        hello.get_bool("secondary").ok()?.then_some(())
    })
    .await;
}

/// Stops or lets go what fetches the primary's oplog.
async fn producer(secondary: &Mongod, mode: &str) {
    secondary
        .admin(doc! { "configureFailPoint": "stopReplProducer", "mode": mode })
        .await;
}

/// The time of the last write that the member has applied.
async fn last_write(member: &Mongod) -> Timestamp {
    let hello: Document = member.admin(doc! { "hello": 1 }).await;
    let at = hello
        .get_document("lastWrite")
        .and_then(|last| last.get_document("opTime"));
    at.and_then(|at| at.get_timestamp("ts"))
        .expect("lastWrite.opTime.ts")
}
