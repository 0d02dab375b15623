//! The status of a link: the document that `status --json` prints and others script against.

use bson::{DateTime, Timestamp};
use serde::{Deserialize, Serialize};

use crate::change::{Pair, PipelineId, Position, Side};
use crate::error::Error;
use crate::store::{Pauses, Totals};

pub use super::status_text::{terminal_width, to_lines, to_text};
pub use steering::{LastReload, PauseStatus, RefusedKey};

/// The format of [`LinkStatus`]; raised when a field changes its meaning or goes.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    Starting,
    Recovering,
    Running,
    Waiting,
    Paused,
    OutsideWindow,
    Stopped,
    /// A cutover has ended the link.
    Ended,
    Failed,
    NeverRun,
}

impl LinkState {
    pub const ALL: [LinkState; 10] = [
        LinkState::Starting,
        LinkState::Recovering,
        LinkState::Running,
        LinkState::Waiting,
        LinkState::Paused,
        LinkState::OutsideWindow,
        LinkState::Stopped,
        LinkState::Ended,
        LinkState::Failed,
        LinkState::NeverRun,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            LinkState::Starting => "starting",
            LinkState::Recovering => "recovering",
            LinkState::Running => "running",
            LinkState::Waiting => "waiting",
            LinkState::Paused => "paused",
            LinkState::OutsideWindow => "outside_window",
            LinkState::Stopped => "stopped",
            LinkState::Ended => "ended",
            LinkState::Failed => "failed",
            LinkState::NeverRun => "never_run",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Starting,
    InitialSync,
    Recovering,
    Streaming,
    Waiting,
    Paused,
    Stopped,
}

impl Phase {
    pub const ALL: [Phase; 7] = [
        Phase::Starting,
        Phase::InitialSync,
        Phase::Recovering,
        Phase::Streaming,
        Phase::Waiting,
        Phase::Paused,
        Phase::Stopped,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::InitialSync => "initial_sync",
            Phase::Recovering => "recovering",
            Phase::Streaming => "streaming",
            Phase::Waiting => "waiting",
            Phase::Paused => "paused",
            Phase::Stopped => "stopped",
        }
    }
}

/// What was never observed is null; times are RFC 3339 in UTC with ms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    pub format: u32,
    pub link: String,
    pub state: LinkState,
    /// Null where no process runs.
    pub pid: Option<u32>,
    /// When the link entered its state.
    #[serde(with = "optional_time")]
    pub since: Option<DateTime>,
    /// From when a first start replicates.
    #[serde(with = "optional_time")]
    pub started_from: Option<DateTime>,
    /// One-way mode: the pipeline that applies; a cutover may have turned it round.
    #[serde(default)]
    pub direction: Option<PipelineId>,
    pub clusters: Pair<ClusterStatus>,
    pub pipelines: Vec<PipelineStatus>,
    pub initial_sync: Option<serde_json::Value>,
    pub last_error: Option<LastError>,
    /// What the last reload of the configuration has come to; null where this process had none.
    #[serde(default)]
    pub last_reload: Option<LastReload>,
    /// Namespaces that are no longer replicated, since their collections are not the same any more.
    #[serde(default)]
    pub unpaired_namespaces: Vec<String>,
    /// Indexes and options that one side has and the other refuses.
    #[serde(default)]
    pub index_problems: Vec<IndexProblem>,
}

/// An index, or an option of a collection, that the other cluster has and this one refuses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexProblem {
    /// The cluster that refuses it.
    pub cluster: Side,
    pub namespace: String,
    /// The index, or the option.
    pub name: String,
    pub reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterStatus {
    pub name: String,
    pub set_name: Option<String>,
    pub version: Option<String>,
    pub reachable: Option<bool>,
    pub clock_skew_ms: Option<i64>,
    pub oplog_window_seconds: Option<u64>,
    /// How long the link may stand still before its resume point is gone from the oplog.
    #[serde(default)]
    pub oplog_seconds_left: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PipelineStatus {
    pub id: PipelineId,
    pub phase: Phase,
    pub waiting_on: Option<String>,
    /// Since when an operator has paused it, and who; null where it is not.
    #[serde(default)]
    pub paused: Option<PauseStatus>,
    /// 0 where both sides are equal, null where it is unknown.
    pub lag_seconds: Option<f64>,
    pub observed_through: Option<PositionStatus>,
    pub applied_through: Option<PositionStatus>,
    pub events_read_total: u64,
    pub operations_applied_total: u64,
    pub operations_applied_by_type: OperationsApplied,
    pub conflicts_total: u64,
    pub identical_total: u64,
    pub dead_letters_total: u64,
    pub fence_conflicts_total: u64,
    /// Events of namespaces that are not replicated any more.
    #[serde(default)]
    pub events_passed_over_total: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationsApplied {
    pub insert: u64,
    pub update: u64,
    pub replace: u64,
    pub delete: u64,
    pub ddl: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PositionStatus {
    /// Seconds and increment of the cluster time.
    pub ts: [u32; 2],
    pub token: String,
    #[serde(with = "optional_time")]
    pub wall_time: Option<DateTime>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    #[serde(with = "optional_time")]
    pub at: Option<DateTime>,
    pub class: String,
    pub message: String,
    pub hint: Option<String>,
    pub exit_code: i32,
}

impl LinkStatus {
    /// A link in `state` of which nothing has been observed yet.
    pub fn new(link: &str, state: LinkState, names: Pair<&str>, pipelines: &[PipelineId]) -> Self {
        let phase = match state {
            LinkState::NeverRun | LinkState::Stopped | LinkState::Ended | LinkState::Failed => {
                Phase::Stopped
            }
            LinkState::Starting
            | LinkState::Recovering
            | LinkState::Running
            | LinkState::Waiting
            | LinkState::Paused
            | LinkState::OutsideWindow => Phase::Starting,
        };
        Self {
            format: FORMAT,
            link: link.to_owned(),
            state,
            pid: None,
            since: None,
            started_from: None,
            direction: None,
            clusters: names.map(|name| ClusterStatus {
                name: name.to_owned(),
                ..ClusterStatus::default()
            }),
            pipelines: pipelines
                .iter()
                .map(|id| PipelineStatus::new(*id, phase))
                .collect(),
            initial_sync: None,
            last_error: None,
            last_reload: None,
            unpaired_namespaces: Vec::new(),
            index_problems: Vec::new(),
        }
    }

    /// With what is paused, of a link that does not run.
    pub fn with_pauses(mut self, pauses: &Pauses) -> Self {
        for pipeline in &mut self.pipelines {
            pipeline.paused = pauses.of(pipeline.id).map(PauseStatus::new);
        }
        self
    }

    /// What is still true of the last saved status once its process is gone.
    pub fn without_process(mut self) -> Self {
        self.state = match self.state {
            LinkState::Failed => LinkState::Failed,
            LinkState::NeverRun => LinkState::NeverRun,
            LinkState::Ended => LinkState::Ended,
            // Its process waits without holding anything, so nobody answers for it.
            LinkState::OutsideWindow => LinkState::OutsideWindow,
            LinkState::Starting
            | LinkState::Recovering
            | LinkState::Running
            | LinkState::Waiting
            | LinkState::Paused
            | LinkState::Stopped => LinkState::Stopped,
        };
        self.pid = None;
        for cluster in [&mut self.clusters.a, &mut self.clusters.b] {
            cluster.reachable = None;
        }
        for pipeline in &mut self.pipelines {
            pipeline.phase = Phase::Stopped;
            pipeline.waiting_on = None;
            pipeline.lag_seconds = None;
        }
        self
    }
}

impl PipelineStatus {
    pub fn new(id: PipelineId, phase: Phase) -> Self {
        Self {
            id,
            phase,
            waiting_on: None,
            paused: None,
            lag_seconds: None,
            observed_through: None,
            applied_through: None,
            events_read_total: 0,
            operations_applied_total: 0,
            operations_applied_by_type: OperationsApplied::default(),
            conflicts_total: 0,
            identical_total: 0,
            dead_letters_total: 0,
            fence_conflicts_total: 0,
            events_passed_over_total: 0,
        }
    }

    pub fn set_totals(&mut self, totals: &Totals) {
        let by_type = OperationsApplied {
            insert: totals.inserts_applied,
            update: totals.updates_applied,
            replace: totals.replaces_applied,
            delete: totals.deletes_applied,
            ddl: totals.ddl_applied,
        };
        self.events_read_total = totals.events_read;
        self.operations_applied_total =
            by_type.insert + by_type.update + by_type.replace + by_type.delete + by_type.ddl;
        self.operations_applied_by_type = by_type;
        self.conflicts_total = totals.conflicts;
        self.identical_total = totals.identical;
        self.dead_letters_total = totals.dead_letters;
        self.fence_conflicts_total = totals.fence_conflicts;
        self.events_passed_over_total = totals.events_passed_over;
    }
}

impl PositionStatus {
    /// `wall_time` is that of the event at the position; none for a post-batch token.
    pub fn new(position: &Position, wall_time: Option<DateTime>) -> Self {
        let Timestamp { time, increment } = position.time;
        Self {
            ts: [time, increment],
            token: position.token.to_string(),
            wall_time,
        }
    }
}

impl LastError {
    pub fn new(error: &Error, at: DateTime) -> Self {
        Self {
            at: Some(at),
            class: error.class.as_str().to_owned(),
            message: error.to_string(),
            hint: error.hint.clone(),
            exit_code: error.exit as i32,
        }
    }
}

mod optional_time {
    //! A time as RFC 3339 text, or null.

    use bson::DateTime;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::change::{parse_rfc3339, rfc3339};

    pub fn serialize<S: Serializer>(time: &Option<DateTime>, to: S) -> Result<S::Ok, S::Error> {
        time.map(rfc3339).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        let time = parse_rfc3339(&text);
        time.map(Some)
            .ok_or_else(|| D::Error::custom(format!("{text} is not a time in RFC 3339")))
    }
}

mod steering;
#[cfg(test)]
mod tests;
