//! Reading the configuration again while its link runs.

use std::sync::{Arc, Mutex, PoisonError};

use bson::DateTime;
use tokio::sync::Notify;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::pipeline::Shared;
use crate::telemetry::logs;
use crate::telemetry::status::{LastReload, RefusedKey};

/// Whoever reloads, and what came of it last.
pub struct Reloading {
    shared: Arc<Shared>,
    /// What is in effect.
    config: Mutex<Config>,
    last: Mutex<Option<LastReload>>,
}

impl Reloading {
    pub(super) fn new(shared: Arc<Shared>, config: &Config) -> Self {
        Self {
            shared,
            config: Mutex::new(config.clone()),
            last: Mutex::default(),
        }
    }

    /// What the last one has come to; none where there was none in this process.
    pub fn last(&self) -> Option<LastReload> {
        let last = self.last.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what may change, refuses the rest by name, and changes nothing where the file has a
    /// problem. Tells what was taken, for people.
    ///
    /// # Errors
    /// A config error (3) where anything was refused.
    pub fn reload(&self) -> Result<String> {
        let reload = self.read();
        let told = told(&reload);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(reload);
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
    pub(super) async fn serve(self: Arc<Self>, bell: Arc<Notify>) {
        loop {
            bell.notified().await;
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
