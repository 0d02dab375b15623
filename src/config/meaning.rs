//! From settings to a configuration: what no key can judge alone is judged here.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bson::Timestamp;

use super::alerts;
use super::environment::Environment;
use super::filters::filters;
use super::problems::Problems;
use super::reload::Origin;
use super::renames::renamed;
use super::typed::{Flags, Settings};
use super::uri;
use super::{
    ApplyConfig, ClusterConfig, Config, ConflictsConfig, DdlConfig, FenceKind, InitialSync,
    LimitsConfig, LinkConfig, LogLevel, Mode, Policy, Secret, TimeoutsConfig,
};
use crate::change::{NamespaceFilter, Pair, Pattern, Redaction, Side, expression_of};

/// The server's own limit on the name of a database.
const DATABASE_NAME_BYTES_MAX: usize = 63;
/// Long enough to be telling, short enough for a table's column.
const NAME_BYTES_MAX: usize = 64;
const SERVER_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// The configuration that the settings mean. It is of use only where `problems` stays empty.
pub fn mean(
    settings: Settings,
    folder: &Path,
    environment: &Environment,
    flags: &Flags,
    problems: &mut Problems,
) -> Config {
    let origin = Arc::new(Origin {
        file: None,
        environment: environment.clone(),
        flags: flags.clone(),
        settings,
    });
    let settings = &origin.settings;
    let config = Config {
        link: link(settings, folder, flags, problems),
        clusters: clusters(settings, folder, environment, problems),
        namespaces: renamed(settings.renames(), namespaces(settings, problems), problems),
        filters: filters(settings.filters(), mode_of(settings), problems),
        initial_sync: initial_sync(settings, problems),
        conflicts: conflicts(settings, problems),
        ddl: ddl(settings),
        apply: apply(settings),
        limits: LimitsConfig {
            queue_bytes_max: settings.size("limits.queue_bytes_max"),
            ledger_entries_max: settings.size("limits.ledger_entries_max"),
        },
        timeouts: TimeoutsConfig {
            connect: settings.length("timeouts.connect"),
            operation: settings.length("timeouts.operation"),
        },
        http_listen: http_listen(settings, problems),
        log_level: log_level(settings),
        origin: origin.clone(),
        alerts: alerts::mean(settings, folder, environment, problems),
    };
    if config.limits.queue_bytes_max < config.apply.batch_bytes_max {
        problems.add(
            "limits.queue_bytes_max",
            "must not be below apply.batch_bytes_max, else no batch can fill",
        );
    }
    config
}

fn link(settings: &Settings, folder: &Path, flags: &Flags, problems: &mut Problems) -> LinkConfig {
    let name = settings.text("link.name");
    if let Err(what) = check_name(name) {
        problems.add("link.name", what);
    }
    let database = settings.text("link.database");
    if let Err(what) = check_database(database) {
        problems.add("link.database", what);
    }
    if settings.text("link.state_dir").is_empty() {
        problems.add("link.state_dir", "must not be empty");
    }
    let state_dir = match &flags.state_dir {
        Some(given) => given.clone(),
        None => folder.join(settings.text("link.state_dir")),
    };
    LinkConfig {
        name: name.to_owned(),
        mode: mode_of(settings),
        state_dir,
        database: database.to_owned(),
        lease_duration: settings.length("link.lease_duration"),
    }
}

fn mode_of(settings: &Settings) -> Mode {
    match settings.text("link.mode") {
        "one-way" => Mode::OneWay { from: Side::A },
        _ => Mode::TwoWay,
    }
}

fn clusters(
    settings: &Settings,
    folder: &Path,
    environment: &Environment,
    problems: &mut Problems,
) -> Pair<ClusterConfig> {
    let mut one = |side| cluster(settings, side, folder, environment, problems);
    let pair = Pair::new(one(Side::A), one(Side::B));
    if pair.a.name == pair.b.name {
        problems.add("clusters.b.name", "must differ from clusters.a.name");
    }
    for side in Side::BOTH {
        if pair[side].name == side.other().as_str() {
            problems.add(
                format!("clusters.{}.name", side.as_str()),
                format!(
                    "must not be {:?}, which means the other cluster",
                    side.other().as_str()
                ),
            );
        }
    }
    let bare = |uri: &Secret| uri.reveal().trim_end_matches('/').to_owned();
    if !pair.a.uri.reveal().is_empty() && bare(&pair.a.uri) == bare(&pair.b.uri) {
        problems.add(
            "clusters.b.uri",
            "is the same connection string as that of clusters.a; a link needs two clusters",
        );
    }
    pair
}

fn cluster(
    settings: &Settings,
    side: Side,
    folder: &Path,
    environment: &Environment,
    problems: &mut Problems,
) -> ClusterConfig {
    let table = format!("clusters.{}", side.as_str());
    let name = settings.text(&format!("{table}.name"));
    if let Err(what) = check_name(name) {
        problems.add(format!("{table}.name"), what);
    }
    let uri = uri::find(settings, &table, folder, environment).unwrap_or_else(|(key, what)| {
        problems.add(key, what);
        String::new()
    });
    ClusterConfig {
        name: name.to_owned(),
        uri: Secret::new(uri),
    }
}

fn namespaces(settings: &Settings, problems: &mut Problems) -> NamespaceFilter {
    let own = settings.text("link.database");
    let include = settings.texts("namespaces.include");
    let exclude = settings.texts("namespaces.exclude");
    if include.is_empty() {
        problems.add(
            "namespaces.include",
            "must name at least one namespace, for example \"shop.*\"",
        );
    }
    for pattern in include {
        if let Err(what) = check_pattern(pattern) {
            problems.add("namespaces.include", what);
        }
        let database = match expression_of(pattern) {
            Some(_) => "",
            None => pattern.split('.').next().unwrap_or_default(),
        };
        if SERVER_DATABASES.contains(&database) || database == own {
            problems.add(
                "namespaces.include",
                format!("{pattern:?} names a database that is never replicated"),
            );
        }
    }
    for pattern in exclude {
        if let Err(what) = check_pattern(pattern) {
            problems.add("namespaces.exclude", what);
        }
    }
    NamespaceFilter::new(include, exclude, own)
}

/// From when on each cluster's changes are read.
pub const START_AT: Pair<&str> = Pair {
    a: "initial_sync.start_at",
    b: "initial_sync.start_at_b",
};

fn initial_sync(settings: &Settings, problems: &mut Problems) -> InitialSync {
    let mode = settings.text("initial_sync.mode");
    let mut given = |key| {
        let text = settings.text_given(key)?;
        let time = start_time(text);
        if time.is_none() {
            let what = format!("must be a time such as 2025-01-31T12:00:00Z, not {text:?}");
            problems.add(key, what);
        }
        if mode != "none" {
            let what = format!("a {mode} has its own start: leave it empty, or use mode \"none\"");
            problems.add(key, what);
        }
        time
    };
    let start_at = Pair::new(given(START_AT.a), given(START_AT.b));
    match mode {
        "copy" => InitialSync::Copy,
        "merge" => InitialSync::Merge,
        _ => InitialSync::None { start_at },
    }
}

/// The first position of the second that an RFC 3339 time lies in: a little history more is harmless.
fn start_time(text: &str) -> Option<Timestamp> {
    let time: jiff::Timestamp = text.parse().ok()?;
    let seconds = u32::try_from(time.as_second()).ok()?;
    (seconds > 0).then_some(Timestamp {
        time: seconds,
        increment: 0,
    })
}

fn conflicts(settings: &Settings, problems: &mut Problems) -> ConflictsConfig {
    let version_field = settings.text_given("conflicts.version_field");
    if version_field
        .is_some_and(|name| name.contains('.') || name.starts_with('$') || name == "_id")
    {
        problems.add(
            "conflicts.version_field",
            "must be a field at the top of the documents, other than _id, without dots",
        );
    }
    ConflictsConfig {
        policy: match settings.text("conflicts.policy") {
            "prefer-a" => Policy::Prefer(Side::A),
            "prefer-b" => Policy::Prefer(Side::B),
            _ => Policy::LastWriteWins,
        },
        tie: match settings.text("conflicts.tie") {
            "b" => Side::B,
            _ => Side::A,
        },
        version_field: version_field.map(str::to_owned),
        clock_skew_warn: settings.length("conflicts.clock_skew_warn"),
        future_max: settings.length_given("conflicts.future_max"),
        retention: settings.length("conflicts.retention"),
        bytes_max: Some(settings.integer("conflicts.bytes_max")).filter(|bytes| *bytes > 0),
        pause_above: Some(settings.integer("conflicts.pause_above")).filter(|most| *most > 0),
        redact: redact(settings, problems),
    }
}

fn redact(settings: &Settings, problems: &mut Problems) -> Vec<String> {
    let patterns = settings.texts("conflicts.redact");
    for pattern in patterns {
        let is_about = |path: &str| Redaction::new(std::slice::from_ref(pattern)).is_about(path);
        let what = if pattern.starts_with('.') || pattern.ends_with('.') || pattern.contains("..") {
            "must be a path such as \"card\" or \"*.ssn\", where * stands for any text"
        } else if is_about("_id") || pattern.starts_with("_id.") {
            "matches _id, a document's key: without it no record says which document it is about"
        } else if settings
            .text_given("conflicts.version_field")
            .is_some_and(is_about)
        {
            "matches conflicts.version_field, whose value every record shows"
        } else {
            continue;
        };
        problems.add("conflicts.redact", format!("{pattern:?} {what}"));
    }
    patterns.to_vec()
}

fn ddl(settings: &Settings) -> DdlConfig {
    DdlConfig {
        replicate: settings.boolean("ddl.replicate"),
        drops: settings.boolean("ddl.drops"),
    }
}

fn apply(settings: &Settings) -> ApplyConfig {
    let rate = settings.integer("apply.operations_per_second_max");
    ApplyConfig {
        fence: match settings.text("apply.fence") {
            "waiting" => FenceKind::Waiting,
            _ => FenceKind::Snapshot,
        },
        lanes: settings.size("apply.lanes"),
        batch_operations_max: settings.size("apply.batch_operations_max"),
        batch_bytes_max: settings.size("apply.batch_bytes_max"),
        batch_fill_time_max: settings.length("apply.batch_fill_time_max"),
        transaction_time_max: settings.length("apply.transaction_time_max"),
        operations_per_second_max: (rate > 0).then_some(rate),
    }
}

fn http_listen(settings: &Settings, problems: &mut Problems) -> Option<SocketAddr> {
    let text = settings.text_given("http.listen")?;
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            problems.add(
                "http.listen",
                format!("must be an address and a port such as 127.0.0.1:9464, not {text:?}"),
            );
            None
        }
    }
}

fn log_level(settings: &Settings) -> LogLevel {
    match settings.text("log.level") {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => LogLevel::Info,
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(fits) {
        return Err(format!(
            "must be 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes or underscores"
        ));
    }
    Ok(())
}

/// # Errors
/// A sentence that goes on after the key.
pub(super) fn check_database(name: &str) -> Result<(), String> {
    const FORBIDDEN: &str = "/\\. \"$*<>:|?\0";
    if SERVER_DATABASES.contains(&name) {
        return Err(format!("must not be {name}, which belongs to the server"));
    }
    if name.is_empty()
        || name.len() > DATABASE_NAME_BYTES_MAX
        || name.contains(|c| FORBIDDEN.contains(c))
    {
        return Err(format!("{name:?} is not a name that a database can have"));
    }
    Ok(())
}

/// # Errors
/// A sentence that begins with the pattern.
pub(super) fn check_pattern(pattern: &str) -> Result<(), String> {
    if expression_of(pattern).is_some() {
        let parsed = Pattern::parse(pattern).map(|_| ());
        return parsed.map_err(|why| format!("{pattern:?} is no regular expression: {why}"));
    }
    if pattern.contains(['.', '*']) && !pattern.starts_with('.') && !pattern.ends_with('.') {
        return Ok(());
    }
    Err(format!(
        "{pattern:?} must be database.collection, where * stands for any text, or a regular expression \
         between slashes"
    ))
}
