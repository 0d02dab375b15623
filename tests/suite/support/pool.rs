//! Replica sets that one test leaves to the next: to start one costs as much as many a test.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bson::doc;

use super::mongod::{Mongod, MongodOptions, Server};

/// No more of them wait for a test: each takes its memory.
const WAITING_MAX: usize = 6;

/// Whatever a test leaves running ends with its runtime, a moment after it has put the server back.
const REST_TIME: Duration = Duration::from_millis(100);

static WAITING: Mutex<Vec<Waiting>> = Mutex::new(Vec::new());

struct Waiting {
    options: MongodOptions,
    server: Server,
    since: Instant,
}

/// A replica set of one that holds nothing: another test's, or a new one. Its oplog may go back to
/// before this test.
pub async fn replica_set(options: MongodOptions) -> Mongod {
    while let Some(found) = take(&options) {
        tokio::time::sleep_until((found.since + REST_TIME).into()).await;
        let mut mongod = Mongod::of(options.clone(), found.server).await;
        if clear(&mongod).await.is_ok() {
            mongod.bequeath_to(put);
            return mongod;
        }
    }
    let mut mongod = Mongod::start(options).await;
    mongod.bequeath_to(put);
    mongod
}

fn put(options: MongodOptions, server: Server) {
    let mut waiting = waiting();
    if waiting.len() < WAITING_MAX {
        let since = Instant::now();
        waiting.push(Waiting {
            options,
            server,
            since,
        });
    }
}

fn take(options: &MongodOptions) -> Option<Waiting> {
    let mut waiting = waiting();
    let at = waiting.iter().position(|one| one.options == *options)?;
    Some(waiting.remove(at))
}

/// Removes whatever the last test has left there.
async fn clear(mongod: &Mongod) -> mongodb::error::Result<()> {
    let admin = mongod.client().database("admin");
    admin.run_command(doc! { "killAllSessions": [] }).await?;
    let allow = doc! { "setUserWriteBlockMode": 1, "global": false };
    admin.run_command(allow).await?;
    for name in mongod.client().list_database_names().await? {
        if !matches!(name.as_str(), "admin" | "config" | "local") {
            mongod.client().database(&name).drop().await?;
        }
    }
    Ok(())
}

fn waiting() -> MutexGuard<'static, Vec<Waiting>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}
