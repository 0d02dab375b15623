//! `[alerts]`: when somebody is told, and who.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Secret;
use super::environment::Environment;
use super::problems::Problems;
use super::typed::Settings;

#[derive(Debug, Clone)]
pub struct AlertsConfig {
    pub thresholds: Thresholds,
    /// An alert that goes on is told again after this time; none: never.
    pub repeat_after: Option<Duration>,
    pub webhook: Option<WebhookConfig>,
    /// A program and its arguments; empty: none.
    pub command: Vec<String>,
}

/// What is absent is not watched.
#[derive(Debug, Clone, Default)]
pub struct Thresholds {
    pub lag: Option<Duration>,
    pub oplog_time_left_below: Option<Duration>,
    pub conflicts_per_minute: Option<u64>,
    /// Within an hour.
    pub dead_letters: Option<u64>,
    pub clock_skew: Option<Duration>,
    pub link_stopped: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// It may hold a token.
    pub url: Secret,
    /// The CAs to trust instead of the ones that browsers trust.
    pub ca_file: Option<PathBuf>,
}

pub(super) fn mean(
    settings: &Settings,
    folder: &Path,
    environment: &Environment,
    problems: &mut Problems,
) -> AlertsConfig {
    let count = |path: &str| Some(settings.integer(path)).filter(|most| *most > 0);
    let command = settings.texts("alerts.command").to_vec();
    if command.first().is_some_and(String::is_empty) {
        problems.add("alerts.command", "must begin with a program");
    }
    AlertsConfig {
        thresholds: Thresholds {
            lag: settings.length_given("alerts.lag"),
            oplog_time_left_below: settings.length_given("alerts.oplog_time_left_below"),
            conflicts_per_minute: count("alerts.conflicts_per_minute"),
            dead_letters: count("alerts.dead_letters"),
            clock_skew: settings.length_given("alerts.clock_skew"),
            link_stopped: settings.length_given("alerts.link_stopped"),
        },
        repeat_after: settings.length_given("alerts.repeat_after"),
        webhook: webhook(settings, folder, environment).unwrap_or_else(|(key, what)| {
            problems.add(key, what);
            None
        }),
        command,
    }
}

/// Never shows what was typed: it may be a secret under the wrong key.
fn webhook(
    settings: &Settings,
    folder: &Path,
    environment: &Environment,
) -> Result<Option<WebhookConfig>, (String, String)> {
    let keys = [
        "alerts.webhook",
        "alerts.webhook_env",
        "alerts.webhook_file",
    ];
    let mut given = keys
        .into_iter()
        .filter_map(|key| Some((key, settings.text_given(key)?)));
    let Some((key, typed)) = given.next() else {
        return Ok(None);
    };
    let refused = |what: &str| (key.to_owned(), what.to_owned());
    if given.next().is_some() {
        return Err(refused(
            "give only one of webhook, webhook_env and webhook_file",
        ));
    }
    let url = match key {
        "alerts.webhook_env" => environment
            .get(typed)
            .ok_or_else(|| refused("names an environment variable that is not set"))?
            .to_owned(),
        "alerts.webhook_file" => std::fs::read_to_string(folder.join(typed)).map_err(|error| {
            let kind = error.kind();
            refused(&format!("names a file that cannot be read: {kind}"))
        })?,
        _ => typed.to_owned(),
    };
    let url = url.trim();
    let rest = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| url.strip_prefix(scheme));
    let rest = rest.ok_or_else(|| refused("must be a URL that starts with https:// or http://"))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') {
        return Err(refused(
            "must be a URL with a host, and no user or password in it",
        ));
    }
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(refused("must be a URL without blanks"));
    }
    let ca_file = settings.text_given("alerts.webhook_ca_file");
    Ok(Some(WebhookConfig {
        url: Secret::new(url),
        ca_file: ca_file.map(|file| folder.join(file)),
    }))
}
