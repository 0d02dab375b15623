//! What an operator has done to a running link, as its status tells it.

use bson::DateTime;
use serde::{Deserialize, Serialize};

use super::optional_time;
use crate::store::Paused;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseStatus {
    #[serde(with = "optional_time")]
    pub since: Option<DateTime>,
    pub by: String,
}

impl PauseStatus {
    pub fn new(paused: &Paused) -> Self {
        Self {
            since: Some(DateTime::from_millis(paused.at_ms)),
            by: paused.by.clone(),
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    #[serde(with = "optional_time")]
    pub at: Option<DateTime>,
    /// Keys that took effect.
    pub taken: Vec<String>,
    /// Keys that have changed in the file and go on as they were.
    pub refused: Vec<RefusedKey>,
    /// Why nothing was taken at all.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedKey {
    pub key: String,
    pub reason: String,
}
