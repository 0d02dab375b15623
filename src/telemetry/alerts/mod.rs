//! Tells somebody when the link needs them, and when it no longer does.

mod command;
mod deliver;
mod memory;
mod rules;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::DateTime;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::status::LinkState;
use crate::change::rfc3339;
use crate::config::{AlertsConfig, Config};
use crate::error::{Error, Result};
use deliver::{Outbox, Receiver};
use memory::{Event, Memory};
use rules::{Finding, judge};
use webhook::Webhook;

pub use memory::Fired;
pub use rules::Rule;

/// The format of a message; raised when a field changes its meaning or goes.
const FORMAT: u32 = 1;

/// How often the link is judged.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long the end of the process waits for what is still to be told.
const LAST_TIME_MAX: Duration = Duration::from_secs(10);

/// Watches a board for whoever is to be told.
pub struct Alerts {
    link: String,
    config: AlertsConfig,
    state_dir: PathBuf,
    board: Board,
    outboxes: Vec<Outbox>,
    memory: Memory,
    /// Since when the link has not done its work.
    stopped_since: Option<Instant>,
}

impl Alerts {
    /// None where nobody is to be told.
    ///
    /// # Errors
    /// A config error (3): a webhook's CA file that cannot be used.
    pub fn new(config: &Config, board: Board) -> Result<Option<Self>> {
        let receivers = receivers(&config.alerts)?;
        if receivers.is_empty() {
            return Ok(None);
        }
        let state_dir = config.link.state_dir.clone();
        Ok(Some(Self {
            link: config.link.name.clone(),
            config: config.alerts.clone(),
            board,
            outboxes: receivers.into_iter().map(Outbox::new).collect(),
            memory: Memory::load(&state_dir),
            state_dir,
            stopped_since: None,
        }))
    }

    /// Watches until cancelled, tells how it ended, and waits a moment for the last messages.
    pub async fn watch(mut self, ended: CancellationToken) {
        loop {
            self.look();
            tokio::select! {
                biased;
                () = ended.cancelled() => break,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
        self.look();
        for outbox in self.outboxes {
            outbox.finish(LAST_TIME_MAX).await;
        }
    }

    fn look(&mut self) {
        let status = self.board.status();
        let stopped_for = match status.state {
            LinkState::Starting | LinkState::Recovering | LinkState::Waiting => {
                let since = self.stopped_since.get_or_insert_with(Instant::now);
                Some(since.elapsed())
            }
            LinkState::Running
            | LinkState::Paused
            | LinkState::OutsideWindow
            | LinkState::Stopped
            | LinkState::Ended
            | LinkState::Failed
            | LinkState::NeverRun => {
                self.stopped_since = None;
                None
            }
        };
        let now = DateTime::now();
        let now_ms = now.timestamp_millis();
        let findings = {
            let history = self.board.history();
            judge(
                &self.config.thresholds,
                &status,
                &history,
                stopped_for,
                now_ms,
            )
        };
        let news = self.memory.take(findings, now_ms, self.config.repeat_after);
        self.board
            .set_alerts(self.memory.firing().cloned().collect());
        if news.is_empty() {
            return;
        }
        for (event, finding, since_ms) in &news {
            self.tell(*event, finding, *since_ms, now);
        }
        if let Err(error) = self.memory.save(&self.state_dir) {
            tracing::debug!(%error, "what alerts were told is not on record");
        }
    }

    fn tell(&self, event: Event, finding: &Finding, since_ms: i64, now: DateTime) {
        let (alert, subject, text) = (finding.rule.as_str(), &finding.subject, &finding.text);
        match event {
            Event::Firing => tracing::warn!(alert, subject, text, "an alert fires"),
            Event::StillFiring => tracing::warn!(alert, subject, text, "an alert still fires"),
            Event::Recovered => tracing::info!(alert, subject, text, "an alert has ended"),
        }
        let event_name = event.as_str().replace('_', " ");
        let message = json!({
            "format": FORMAT,
            "event": event.as_str(),
            "alert": alert,
            "link": self.link,
            "subject": subject,
            "text": format!("tandem {}, {event_name}: {text}", self.link),
            "value": finding.value,
            "threshold": finding.threshold,
            "hint": finding.rule.hint(),
            "since": rfc3339(DateTime::from_millis(since_ms)),
            "at": rfc3339(now),
        });
        let message: Arc<str> = format!("{message}\n").into();
        for outbox in &self.outboxes {
            outbox.put(message.clone());
        }
    }
}

fn receivers(config: &AlertsConfig) -> Result<Vec<Receiver>> {
    let mut receivers = Vec::new();
    if let Some(webhook) = &config.webhook {
        let refused = |what| Error::config(format!("alerts.webhook: {what}"));
        receivers.push(Receiver::Webhook(Webhook::new(webhook).map_err(refused)?));
    }
    if !config.command.is_empty() {
        receivers.push(Receiver::Command(Arc::new(config.command.clone())));
    }
    Ok(receivers)
}

/// What `check` asks of the receivers: a requirement each, with what was found. Nothing is told.
pub async fn check(config: &AlertsConfig) -> Vec<(&'static str, Result<String, String>)> {
    let mut found = Vec::new();
    if let Some(config) = &config.webhook {
        let reached = match Webhook::new(config) {
            Ok(webhook) => webhook.reach().await.map(|()| webhook.shown()),
            Err(what) => Err(what),
        };
        found.push(("webhook can be reached", reached));
    }
    if let Some(program) = config.command.first() {
        let file = command::found(program).map(|file| file.display().to_string());
        let file = file.ok_or_else(|| format!("{program} is no program that can be run"));
        found.push(("command can be run", file));
    }
    found
}
