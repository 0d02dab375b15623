//! Errors that a server makes up for tandem's commands alone, and how often it did.

use std::time::Duration;

use bson::{Bson, Document, doc};

use super::mongod::Mongod;

const ENTERED_TIME_MAX_MS: i64 = 30_000;

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
            "maxTimeMS": ENTERED_TIME_MAX_MS,
        };
        self.mongod.admin(wait).await;
    }

    /// Fails every command for as long; gives how many.
    pub async fn fail_for(&self, time: Duration, error: Document) -> i64 {
        let before = self.set("alwaysOn", error).await;
        tokio::time::sleep(time).await;
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
