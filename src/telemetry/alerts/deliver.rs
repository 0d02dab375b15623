//! Brings messages to whoever is to be told, in their order, with retries, and holds nobody up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::command;
use super::webhook::Webhook;
use crate::pipeline::Pause;

/// Messages that wait for a receiver; more are dropped, with a word in the log.
const WAITING_MAX: usize = 64;

/// An alert that is told later than this is no help.
const TRIED_FOR_MAX: Duration = Duration::from_secs(15 * 60);

/// Who is told.
#[derive(Clone)]
pub enum Receiver {
    Webhook(Webhook),
    Command(Arc<Vec<String>>),
}

impl Receiver {
    fn shown(&self) -> String {
        match self {
            Receiver::Webhook(webhook) => format!("the webhook at {}", webhook.shown()),
            Receiver::Command(words) => {
                let program = words.first().map(String::as_str).unwrap_or_default();
                format!("the command {program}")
            }
        }
    }

    async fn tell(&self, message: &str) -> Result<(), String> {
        match self {
            Receiver::Webhook(webhook) => webhook.post(message.to_owned()).await,
            Receiver::Command(words) => {
                let (words, message) = (words.clone(), message.to_owned());
                let ran = tokio::task::spawn_blocking(move || command::run(&words, &message));
                ran.await
                    .unwrap_or_else(|_| Err("was broken off".to_owned()))
            }
        }
    }
}

/// A receiver with its queue.
pub struct Outbox {
    send: mpsc::Sender<Arc<str>>,
    shown: String,
    delivers: JoinHandle<()>,
}

impl Outbox {
    pub fn new(to: Receiver) -> Self {
        let (send, receive) = mpsc::channel(WAITING_MAX);
        Self {
            send,
            shown: to.shown(),
            delivers: tokio::spawn(deliver(to, receive)),
        }
    }

    pub fn put(&self, message: Arc<str>) {
        if self.send.try_send(message).is_err() {
            tracing::warn!(to = %self.shown, "an alert is dropped: too many wait to be delivered");
        }
    }

    /// Waits a moment for what is still to be told.
    pub async fn finish(self, time_max: Duration) {
        drop(self.send);
        let mut delivers = self.delivers;
        if tokio::time::timeout(time_max, &mut delivers).await.is_err() {
            delivers.abort();
            tracing::warn!(to = %self.shown, "the last alerts were not delivered in time");
        }
    }
}

async fn deliver(to: Receiver, mut messages: mpsc::Receiver<Arc<str>>) {
    while let Some(message) = messages.recv().await {
        let first = Instant::now();
        let mut pause = Pause::of_deliveries();
        while let Err(why) = to.tell(&message).await {
            if first.elapsed() > TRIED_FOR_MAX {
                tracing::error!(to = %to.shown(), why, "an alert could not be delivered");
                break;
            }
            tracing::warn!(to = %to.shown(), why, "an alert was not delivered, trying again");
            tokio::time::sleep(pause.wait()).await;
        }
    }
}
