//! Reading the configuration again while its link runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bson::DateTime;
use tokio::sync::Notify;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::pipeline::Shared;
use crate::telemetry::logs;
use crate::telemetry::status::{LastReload, RefusedKey};

/// What reloads of a process leave to whatever of its link comes next: it may be taken over again
/// for other lanes, turned round, or run in a window.
#[derive(Debug, Default)]
pub struct Reloads {
    bell: Notify,
    left: Mutex<Left>,
}

#[derive(Debug, Default)]
struct Left {
    /// What is in effect, where that is not what the process has started with.
    config: Option<Config>,
    last: Option<LastReload>,
}

impl Reloads {
    /// Asks for the configuration to be read again, as soon as the link runs.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn over(&self, config: &Config) -> Config {
        let left = self.left();
        let adjusted = |newer| config.adjusted_as(newer);
        left.config.as_ref().map_or(config.clone(), adjusted)
    }
}

/// Whoever reloads.
pub struct Reloading {
    shared: Arc<Shared>,
    /// What is in effect.
    config: Mutex<Config>,
    reloads: Arc<Reloads>,
}

impl Reloading {
    pub(super) fn new(shared: Arc<Shared>, config: &Config, reloads: Arc<Reloads>) -> Self {
        let config = reloads.over(config);
        shared.adjust(config.adjustable());
        Self {
            shared,
            config: Mutex::new(config),
            reloads,
        }
    }

    /// What the last one has come to; none where there was none in this process.
    pub fn last(&self) -> Option<LastReload> {
        self.reloads.left().last.clone()
    }

    /// Takes what may change, refuses the rest by name, and changes nothing where the file has a
    /// problem. Tells what was taken, for people.
    ///
    /// # Errors
    /// A config error (3) where anything was refused.
    pub fn reload(&self) -> Result<String> {
        let reload = self.read();
        let told = told(&reload);
        self.reloads.left().last = Some(reload);
        told
    }

    fn read(&self) -> LastReload {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reload = LastReload {
            at: Some(DateTime::now()),
            ..LastReload::default()
        };
        match config.read_again() {
            Ok(reread) => {
                *config = config.with(&reread);
                self.shared.adjust(config.adjustable());
                self.reloads.left().config = Some(config.clone());
                logs::set_level(config.log_level);
                for key in &reread.taken {
                    tracing::info!(key, "reloaded");
                    reload.taken.push((*key).to_owned());
                }
                for (key, reason) in &reread.refused {
                    tracing::warn!(key, reason, "this key is not reloaded");
                    reload.refused.push(RefusedKey {
                        key: (*key).to_owned(),
                        reason: (*reason).to_owned(),
                    });
                }
            }
            Err(error) => {
                tracing::error!(%error, "the configuration is not reloaded, and nothing has changed");
                reload.error = Some(error.to_string());
            }
        }
        reload
    }

    /// Reloads whenever the bell rings.
    pub(super) async fn serve(self: Arc<Self>) {
        loop {
            self.reloads.bell.notified().await;
            // What is refused stands in the log and in the status.
            let _ = self.reload();
        }
    }
}

fn told(reload: &LastReload) -> Result<String> {
    if let Some(error) = &reload.error {
        return Err(Error::config(format!("nothing has changed: {error}")));
    }
    let taken = match reload.taken.is_empty() {
        true => "nothing to take".to_owned(),
        false => format!("taken: {}", reload.taken.join(", ")),
    };
    if reload.refused.is_empty() {
        return Ok(taken);
    }
    let refused = reload.refused.iter();
    let lines = refused.map(|one| format!("\n  {}: {}", one.key, one.reason));
    let refused = lines.collect::<String>();
    Err(Error::config(format!("{taken}; refused:{refused}"))
        .hint("set them back, or stop the link and start it again"))
}
