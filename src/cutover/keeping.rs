//! Keeping a cutover on record step by step, and taking it back.

use bson::{DateTime, doc};

use super::asking::put_run;
use super::{Cutover, Step, server};
use crate::cluster::errors;
use crate::error::{Error, ExitCode, Result};
use crate::store::{RunOutcome, RunStep};

/// Server error code.
const UNAUTHORIZED: i32 = 13;

impl Cutover<'_> {
    pub(super) async fn put_step(&mut self, succeeded: bool, found: String) {
        let Some((step, started_at)) = self.current.take() else {
            return;
        };
        let step = step.as_str();
        match succeeded {
            true => tracing::info!(step, "cutover: {found}"),
            false => tracing::error!(step, "cutover: {found}"),
        }
        let started_at_ms = started_at.timestamp_millis();
        self.run.steps.push(RunStep {
            step: step.to_owned(),
            started_at_ms,
            took_ms: DateTime::now().timestamp_millis() - started_at_ms,
            succeeded,
            found,
        });
        put_run(self.config, &self.run).await;
    }

    pub(super) async fn fail_current(&mut self, error: &Error) {
        self.put_step(false, error.to_string()).await;
    }

    /// Takes everything back and says so.
    pub(super) async fn give_up(&mut self, mut error: Error) -> Error {
        self.fail_current(&error).await;
        let name = self.name(self.under_way.source).to_owned();
        let said = match self.take_back().await {
            Ok(()) => {
                format!("nothing is lost: the applications stay on {name}, which takes writes")
            }
            Err(cause) => {
                tracing::error!(%cause, "cannot take the cutover back");
                format!("{name} may still refuse writes: `tandem cutover --abort` tries again")
            }
        };
        let outcome = match error.exit {
            ExitCode::TimedOut => RunOutcome::TimedOut,
            ExitCode::Interrupted => RunOutcome::Stopped,
            _ => RunOutcome::Failed,
        };
        self.end_run(outcome, Some(&error)).await;
        let hint = error.hint.take();
        error.hint(hint.map_or(said.clone(), |hint| format!("{hint}; {said}")))
    }

    pub(super) async fn take_back(&mut self) -> Result<()> {
        if self.under_way.blocked {
            self.unblock().await?;
        }
        self.under_way
            .clear(&self.own, &self.config.link.name)
            .await
    }

    pub(super) async fn unblock(&mut self) -> Result<()> {
        let cluster = &self.own[self.under_way.source].cluster;
        match server::unblock(cluster).await {
            Ok(()) => {
                tracing::info!(cluster = %cluster.name, "cutover: writes are allowed again");
            }
            // The process that was about to block them may have been killed before it was refused.
            Err(error) if errors::code_of(&error) == Some(UNAUTHORIZED) => {
                if self.refuses_writes().await? {
                    let name = &cluster.name;
                    return Err(error.hint(format!(
                        "grant setUserWriteBlockMode on {name}, or have somebody who may run on it: {}",
                        server::UNBLOCK
                    )));
                }
                tracing::warn!(%error, "writes were not blocked by this account");
            }
            Err(error) => return Err(error),
        }
        self.under_way.blocked = false;
        let link = &self.config.link.name;
        self.under_way.save(&self.own, link, Step::Lag).await
    }

    /// Whether the source takes no write of a user.
    async fn refuses_writes(&self) -> Result<bool> {
        let statement = doc! {
            "q": { "_id": format!("{}/cutover", self.config.link.name) },
            "u": { "$inc": { "count": 1_i64 } },
            "upsert": true,
        };
        let source = &self.own[self.under_way.source];
        match source.update("markers", vec![statement]).await {
            Ok(_) => Ok(false),
            Err(error) if errors::code_of(&error) == Some(errors::WRITES_BLOCKED) => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn end_run(&mut self, outcome: RunOutcome, error: Option<&Error>) {
        self.run.ended_at_ms = Some(DateTime::now().timestamp_millis());
        self.run.outcome = outcome;
        self.run.exit_code = Some(error.map_or(ExitCode::Done, |error| error.exit) as i32);
        self.run.error = error.map(ToString::to_string);
        put_run(self.config, &self.run).await;
    }
}
