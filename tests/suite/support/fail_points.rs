//! Errors that a server makes up for tandem's commands alone, and how often it did.

use std::time::Duration;

use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;

use super::env::TestEnv;
use super::mongod::Mongod;
use super::schema::run;
use super::wait::wait_for;

const ENTERED_TIME_MAX: Duration = Duration::from_secs(30);

/// A fail point on one server. What it is set to goes on until it is set anew.
pub struct FailPoint<'t> {
    mongod: &'t Mongod,
    commands: Vec<&'static str>,
}

impl<'t> FailPoint<'t> {
    pub fn on(mongod: &'t Mongod, commands: &[&'static str]) -> Self {
        Self {
            mongod,
            commands: commands.to_vec(),
        }
    }

    /// Sets it, and gives how often it had failed a command before.
    async fn set(&self, mode: impl Into<Bson>, error: Document) -> i64 {
        let mut data = doc! { "failCommands": &self.commands, "appName": "tandem" };
        data.extend(error);
        let command =
            doc! { "configureFailPoint": "failCommand", "mode": mode.into(), "data": data };
        let reply = self.mongod.admin(command).await;
        let count = reply.get("count").expect("a count");
        let whole = count.as_i32().map(i64::from).or(count.as_i64());
        whole.expect("a number")
    }

    /// Fails the next `times` commands with `error`, and returns once it has.
    pub async fn fail(&self, times: i32, error: Document) {
        let before = self.set(doc! { "times": times }, error).await;
        let wait = doc! {
            "waitForFailPoint": "failCommand",
            "timesEntered": before + i64::from(times),
            "maxTimeMS": ENTERED_TIME_MAX.as_millis() as i64,
        };
        self.mongod.admin(wait).await;
    }

    /// Fails every command for as long; gives how many.
    pub async fn fail_for(&self, time: Duration, error: Document) -> i64 {
        self.fail_while(tokio::time::sleep(time), error).await
    }

    /// Fails every command until then; gives how many.
    pub async fn fail_while(&self, meanwhile: impl Future<Output = ()>, error: Document) -> i64 {
        let before = self.set("alwaysOn", error).await;
        meanwhile.await;
        self.set("off", doc! {}).await - before
    }

    /// Fails every command until the process has ended, say.
    pub async fn fail_always(&self, error: Document) {
        self.set("alwaysOn", error).await;
    }

    pub async fn off(&self) {
        self.set("off", doc! {}).await;
    }
}

/// Drops a view on a while tandem is about to make it on b, to which it comes by `go_on`. So the drop is
/// older than the event of what is made, and read after it.
pub async fn drop_amid_its_creation(env: &TestEnv, view: &str, go_on: impl Future<Output = ()>) {
    let held = |ms: i64| doc! { "blockConnection": true, "blockTimeMS": ms };
    let create = FailPoint::on(&env.b, &["create"]);
    let mut of_view = held(2000);
    of_view.insert("namespace", format!("shop.{view}"));
    tokio::join!(create.fail(1, of_view), go_on);
    let stream = FailPoint::on(&env.a, &["getMore"]);
    stream.fail_always(held(4000)).await;
    // What the stream waits for now is the last thing that it is told of.
    let last = doc! { "_id": -1 };
    env.orders_a().insert_one(last).await.expect("a write");
    tokio::time::sleep(Duration::from_millis(300)).await;
    run(&env.a, doc! { "drop": view }).await;
    stream.off().await;
}

/// Ends the change streams of whole clusters, so that they are opened again.
pub async fn kill_streams(mongod: &Mongod) {
    let cursors = wait_for("an open stream", ENTERED_TIME_MAX, || async {
        let found = open_streams(mongod).await;
        (!found.is_empty()).then_some(found)
    })
    .await;
    let kill = doc! { "killCursors": "$cmd.aggregate", "cursors": cursors };
    mongod.admin(kill).await;
}

/// Their cursors, whether somebody waits at one or not.
async fn open_streams(mongod: &Mongod) -> Vec<Bson> {
    let open = vec![
        doc! { "$currentOp": { "allUsers": true, "idleCursors": true } },
        doc! { "$match": { "cursor.originatingCommand.aggregate": 1, "cursor.tailable": true } },
    ];
    let admin = mongod.client().database("admin");
    let found = admin.aggregate(open).await.expect("operations");
    let found: Vec<Document> = found.try_collect().await.expect("operations");
    let cursor = |one: &Document| one.get_document("cursor").ok()?.get("cursorId").cloned();
    found.iter().filter_map(cursor).collect()
}
