//! Every key there is: its path, what it takes, and its default with the reason for it.

use std::num::NonZero;
use std::time::Duration;

use super::duration;
use super::environment::PREFIX;

/// One link a host is the common case; a second one needs a name anyway to be told apart.
pub const LINK_NAME: &str = "tandem";
/// What the product is for; one direction is the special case.
pub const MODE: &str = "two-way";
/// Beside the config file, where people look for it.
pub const STATE_DIR: &str = "tandem-state";
/// Sorts before application names and is unlikely to be taken.
pub const DATABASE: &str = "__tandem";
/// Longer than an election (10 s by default), so that one does not cost the lease; short enough
/// for a standby to take over before anybody is paged.
pub const LEASE_DURATION: &str = "15s";
/// Nothing is copied or judged unasked: the operator vouches that both sides are equal.
pub const INITIAL_SYNC_MODE: &str = "none";
/// The rule people expect, and the only one that treats both sides alike.
pub const POLICY: &str = "last-write-wins";
/// Either would do, as long as both pipelines know it.
pub const TIE: &str = "a";
/// Hosts kept by NTP differ by milliseconds; seconds mean that it does not run.
pub const CLOCK_SKEW_WARN: &str = "5s";
/// A quarter: long enough for an audit to find a lost write.
pub const RETENTION: &str = "90d";
/// No limit: a full log stops the link, and only the operator knows how much disk there is.
pub const CONFLICTS_BYTES_MAX: i64 = 0;
/// Never: every loser is on record, and a pause costs lag.
pub const CONFLICTS_PAUSE_ABOVE: i64 = 0;
/// A collection that is another one on each side cannot be kept in step for long.
pub const DDL_REPLICATE: bool = true;
/// A drop takes unseen writes with it, so it must be asked for.
pub const DDL_DROPS: bool = false;
/// Decides on the past and lets the server detect what was unseen: nobody waits.
pub const FENCE: &str = "snapshot";
/// A lane mostly waits for commits, so four keep two cores busy, and fewer would leave one idle. More
/// than sixteen make small transactions, and each of them waits for the same disks.
const LANES_MIN: usize = 4;
const LANES_MAX: usize = 16;
const LANES_PER_CORE: usize = 2;
/// Measured best between 500 and 1000: larger ones hold their locks for longer and gain nothing.
pub const BATCH_OPERATIONS_MAX: i64 = 1000;
/// Half of the largest oplog entry, so that a batch is one entry on the target.
pub const BATCH_BYTES_MAX: i64 = 8 * 1024 * 1024;
/// About the time of one commit: waiting longer costs latency and saves nothing.
pub const BATCH_FILL_TIME_MAX: &str = "5ms";
/// Applications wait behind an open transaction's documents for so long at most.
pub const TRANSACTION_TIME_MAX: &str = "2s";
/// No limit: falling behind is worse than load, unless the operator says otherwise.
pub const OPERATIONS_PER_SECOND_MAX: i64 = 0;
/// Four of the largest documents: a burst is absorbed, resident memory stays in the low hundreds of MB.
pub const QUEUE_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// About 400 MB. Queues of small events hold a tenth of it, so this is a brake for notes that pile up.
pub const LEDGER_ENTRIES_MAX: i64 = 1_000_000;
/// The drivers' own default for finding a primary; an election ends well within it.
pub const TIMEOUT_CONNECT: &str = "30s";
/// Far above any healthy call, so that only a hung one is cut.
pub const TIMEOUT_OPERATION: &str = "30s";
/// What happens and what needs somebody; no event has a line of its own.
pub const LOG_LEVEL: &str = "info";
const LOG_LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];
/// Past what a burst or an election causes.
pub const ALERT_LAG: &str = "1m";
/// Half a night's sleep: enough for somebody to come and repair it.
pub const ALERT_OPLOG_TIME_LEFT_BELOW: &str = "4h";
/// Applications that share few documents make a handful.
pub const ALERT_CONFLICTS_PER_MINUTE: i64 = 100;
/// Each one is a write that has not arrived.
pub const ALERT_DEAD_LETTERS: i64 = 1;
/// As `conflicts.clock_skew_warn`.
pub const ALERT_CLOCK_SKEW: &str = "5s";
/// An election takes 10 s, so a minute is none.
pub const ALERT_LINK_STOPPED: &str = "1m";
/// Twice in a night, not every few minutes.
pub const ALERT_REPEAT_AFTER: &str = "4h";

/// What a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Text,
    /// A text that is never shown, not even where it is wrong.
    Secret,
    Choice(&'static [&'static str]),
    Texts,
    Boolean,
    Integer {
        min: i64,
        max: i64,
    },
    Length {
        min: &'static str,
        max: &'static str,
    },
    /// As `Length`, or empty for none.
    LengthOrNone {
        min: &'static str,
        max: &'static str,
    },
}

/// A value that fits its kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Text(String),
    Texts(Vec<String>),
    Boolean(bool),
    Integer(i64),
    Length(Option<Duration>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Preset {
    Text(&'static str),
    /// No pattern, no address: empty until somebody says.
    NoTexts,
    Boolean(bool),
    Integer(i64),
    /// As many lanes as suit this machine.
    Lanes,
}

#[derive(Debug)]
pub struct Key {
    pub path: &'static str,
    pub kind: Kind,
    pub preset: Preset,
}

const fn key(path: &'static str, kind: Kind, preset: Preset) -> Key {
    Key { path, kind, preset }
}

const fn text(path: &'static str, preset: &'static str) -> Key {
    key(path, Kind::Text, Preset::Text(preset))
}

const fn secret(path: &'static str) -> Key {
    key(path, Kind::Secret, Preset::Text(""))
}

const fn choice(path: &'static str, among: &'static [&'static str], preset: &'static str) -> Key {
    key(path, Kind::Choice(among), Preset::Text(preset))
}

const fn integer(path: &'static str, min: i64, max: i64, preset: i64) -> Key {
    key(path, Kind::Integer { min, max }, Preset::Integer(preset))
}

const fn length(
    path: &'static str,
    min: &'static str,
    max: &'static str,
    preset: &'static str,
) -> Key {
    key(path, Kind::Length { min, max }, Preset::Text(preset))
}

const fn length_or_none(path: &'static str, preset: &'static str) -> Key {
    let (min, max) = ("1ms", "36500d");
    key(path, Kind::LengthOrNone { min, max }, Preset::Text(preset))
}

/// All keys, in the order of the file.
pub const KEYS: &[Key] = &[
    text("link.name", LINK_NAME),
    choice("link.mode", &["two-way", "one-way"], MODE),
    text("link.state_dir", STATE_DIR),
    text("link.database", DATABASE),
    length("link.lease_duration", "1s", "1h", LEASE_DURATION),
    text("clusters.a.name", "a"),
    secret("clusters.a.uri"),
    secret("clusters.a.uri_env"),
    secret("clusters.a.uri_file"),
    text("clusters.b.name", "b"),
    secret("clusters.b.uri"),
    secret("clusters.b.uri_env"),
    secret("clusters.b.uri_file"),
    key("namespaces.include", Kind::Texts, Preset::NoTexts),
    key("namespaces.exclude", Kind::Texts, Preset::NoTexts),
    choice(
        "initial_sync.mode",
        &["none", "copy", "merge"],
        INITIAL_SYNC_MODE,
    ),
    text("initial_sync.start_at", ""),
    text("initial_sync.start_at_b", ""),
    choice(
        "conflicts.policy",
        &["last-write-wins", "prefer-a", "prefer-b"],
        POLICY,
    ),
    choice("conflicts.tie", &["a", "b"], TIE),
    text("conflicts.version_field", ""),
    length("conflicts.clock_skew_warn", "1ms", "1d", CLOCK_SKEW_WARN),
    key(
        "conflicts.future_max",
        Kind::LengthOrNone {
            min: "1ms",
            max: "36500d",
        },
        Preset::Text(""),
    ),
    length("conflicts.retention", "1s", "36500d", RETENTION),
    integer("conflicts.bytes_max", 0, 1 << 50, CONFLICTS_BYTES_MAX),
    integer("conflicts.pause_above", 0, 1 << 40, CONFLICTS_PAUSE_ABOVE),
    key("conflicts.redact", Kind::Texts, Preset::NoTexts),
    key(
        "ddl.replicate",
        Kind::Boolean,
        Preset::Boolean(DDL_REPLICATE),
    ),
    key("ddl.drops", Kind::Boolean, Preset::Boolean(DDL_DROPS)),
    choice("apply.fence", &["snapshot", "waiting"], FENCE),
    key(
        "apply.lanes",
        Kind::Integer { min: 1, max: 64 },
        Preset::Lanes,
    ),
    integer(
        "apply.batch_operations_max",
        1,
        100_000,
        BATCH_OPERATIONS_MAX,
    ),
    integer("apply.batch_bytes_max", 1024, 1 << 30, BATCH_BYTES_MAX),
    length(
        "apply.batch_fill_time_max",
        "0s",
        "10s",
        BATCH_FILL_TIME_MAX,
    ),
    length(
        "apply.transaction_time_max",
        "10ms",
        "50s",
        TRANSACTION_TIME_MAX,
    ),
    integer(
        "apply.operations_per_second_max",
        0,
        1_000_000_000,
        OPERATIONS_PER_SECOND_MAX,
    ),
    integer("limits.queue_bytes_max", 1024, 1 << 40, QUEUE_BYTES_MAX),
    integer("limits.ledger_entries_max", 1, 1 << 40, LEDGER_ENTRIES_MAX),
    length("timeouts.connect", "100ms", "1h", TIMEOUT_CONNECT),
    length("timeouts.operation", "100ms", "1h", TIMEOUT_OPERATION),
    text("http.listen", ""),
    choice("log.level", LOG_LEVELS, LOG_LEVEL),
    length_or_none("alerts.lag", ALERT_LAG),
    length_or_none("alerts.oplog_time_left_below", ALERT_OPLOG_TIME_LEFT_BELOW),
    integer(
        "alerts.conflicts_per_minute",
        0,
        1 << 40,
        ALERT_CONFLICTS_PER_MINUTE,
    ),
    integer("alerts.dead_letters", 0, 1 << 40, ALERT_DEAD_LETTERS),
    length_or_none("alerts.clock_skew", ALERT_CLOCK_SKEW),
    length_or_none("alerts.link_stopped", ALERT_LINK_STOPPED),
    length_or_none("alerts.repeat_after", ALERT_REPEAT_AFTER),
    secret("alerts.webhook"),
    secret("alerts.webhook_env"),
    secret("alerts.webhook_file"),
    text("alerts.webhook_ca_file", ""),
    key("alerts.command", Kind::Texts, Preset::NoTexts),
];

impl Kind {
    /// Reads what stands in a file.
    ///
    /// # Errors
    /// A sentence that goes on after the key. Never the value of a secret.
    pub fn read(self, typed: &toml::Value) -> Result<Value, String> {
        match (self, typed) {
            (Kind::Secret, toml::Value::String(text)) => Ok(Value::Text(text.clone())),
            (Kind::Secret, _) => Err("must be a text in quotes".to_owned()),
            (Kind::Boolean, toml::Value::Boolean(value)) => Ok(Value::Boolean(*value)),
            (Kind::Boolean, other) => Err(format!("must be true or false, not {other}")),
            (Kind::Integer { .. }, toml::Value::Integer(value)) => self.bounded(*value),
            (Kind::Integer { .. }, other) => Err(format!("must be a whole number, not {other}")),
            (Kind::Texts, toml::Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .map(Value::Texts)
                .ok_or_else(|| "must be a list of texts in quotes".to_owned()),
            (Kind::Texts, _) => Err("must be a list of texts in quotes".to_owned()),
            (Kind::Text, toml::Value::Datetime(time)) => Ok(Value::Text(time.to_string())),
            (_, toml::Value::String(text)) => self.read_text(text),
            (_, other) => Err(format!("must be a text in quotes, not {other}")),
        }
    }

    /// Reads what stands in an environment variable: a list is separated by commas.
    ///
    /// # Errors
    /// As [`Kind::read`].
    pub fn read_text(self, text: &str) -> Result<Value, String> {
        match self {
            Kind::Text | Kind::Secret => Ok(Value::Text(text.to_owned())),
            Kind::Choice(among) if among.contains(&text) => Ok(Value::Text(text.to_owned())),
            Kind::Choice(among) => {
                Err(format!("must be one of {}, not {text:?}", among.join(", ")))
            }
            Kind::Texts => Ok(Value::Texts(
                text.split(',')
                    .map(|item| item.trim().to_owned())
                    .filter(|item| !item.is_empty())
                    .collect(),
            )),
            Kind::Boolean => match text {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                _ => Err(format!("must be true or false, not {text:?}")),
            },
            Kind::Integer { .. } => match text.trim().parse() {
                Ok(value) => self.bounded(value),
                Err(_) => Err(format!("must be a whole number, not {text:?}")),
            },
            Kind::LengthOrNone { .. } if text.is_empty() => Ok(Value::Length(None)),
            Kind::Length { min, max } | Kind::LengthOrNone { min, max } => {
                let value = duration::parse(text)?;
                if value < known_length(min) || value > known_length(max) {
                    return Err(format!("must be between {min} and {max}, not {text:?}"));
                }
                Ok(Value::Length(Some(value)))
            }
        }
    }

    fn bounded(self, value: i64) -> Result<Value, String> {
        match self {
            Kind::Integer { min, max } if value < min || value > max => {
                Err(format!("must be between {min} and {max}, not {value}"))
            }
            _ => Ok(Value::Integer(value)),
        }
    }
}

impl Key {
    pub fn default_value(&self) -> Value {
        match self.preset {
            Preset::Text(text) => self
                .kind
                .read_text(text)
                .expect("a default fits its own key"),
            Preset::NoTexts => Value::Texts(Vec::new()),
            Preset::Boolean(value) => Value::Boolean(value),
            Preset::Integer(value) => Value::Integer(value),
            Preset::Lanes => Value::Integer(lanes_for(cores()) as i64),
        }
    }

    /// The environment variable that stands for this key.
    pub fn variable(&self) -> String {
        variable_of(self.path)
    }
}

/// The environment variable that stands for the key at `path`.
pub fn variable_of(path: &str) -> String {
    format!("{PREFIX}{}", path.to_uppercase().replace('.', "__"))
}

/// Lanes of each direction for so many cores.
fn lanes_for(cores: usize) -> usize {
    cores
        .saturating_mul(LANES_PER_CORE)
        .clamp(LANES_MIN, LANES_MAX)
}

/// As many as this process may use, by its affinity and the quota of its control group.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn known_length(text: &str) -> Duration {
    duration::parse(text).expect("a bound is a length of time")
}

#[cfg(test)]
mod tests;
