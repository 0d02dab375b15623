//! Metrics in the format of OpenMetrics: every name, its unit and what it means, in one place.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::alerts::Rule;
use super::board::Board;
use super::ready::not_ready;
use super::status::{LinkState, LinkStatus, Phase, PipelineStatus, PositionStatus};
use crate::change::Side;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const PREFIX: &str = "tandem";

/// Renders what a board shows.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    pub fn new(board: Board) -> Self {
        let link = board.status().link;
        let labels = [("link".into(), link.into())];
        let mut registry = Registry::with_prefix_and_labels(PREFIX, labels.into_iter());
        registry.register_collector(Box::new(board));
        Self { registry }
    }

    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

impl Collector for Board {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut page = Page(encoder);
        let status = self.status();
        page.info(
            Name("build", "The version that runs", None),
            [vec![("version", env!("CARGO_PKG_VERSION"))]],
        )?;
        let started = seconds_of(self.started_at().timestamp_millis());
        page.gauge(
            Name(
                "start_time",
                "When the process started, since 1970",
                Some(Unit::Seconds),
            ),
            [(vec![], Some(started))],
        )?;
        of_link(&mut page, &status)?;
        let firing = self.alerts();
        let alerts = Rule::ALL.map(|rule| {
            let count = firing.iter().filter(|fired| fired.rule == rule).count();
            (vec![("alert", rule.as_str())], Some(count as f64))
        });
        page.gauge(
            Name(
                "alerts_firing",
                "Alerts of the process's own that fire",
                None,
            ),
            alerts,
        )?;
        of_clusters(&mut page, &status)?;
        of_pipelines(&mut page, &status)?;
        totals(&mut page, &status)?;
        of_initial_sync(&mut page, &status)
    }
}

/// Names and values.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// One metric: its name without prefix and unit, and what it means.
struct Name(&'static str, &'static str, Option<Unit>);

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn info<'a>(
        &mut self,
        Name(name, help, _): Name,
        all: impl IntoIterator<Item = Labels<'a>>,
    ) -> fmt::Result {
        let kind = MetricType::Info;
        let mut family = self.0.encode_descriptor(name, help, None, kind)?;
        for labels in all {
            family.encode_info(&labels)?;
        }
        Ok(())
    }

    /// What is unknown is left out.
    fn gauge<'a>(
        &mut self,
        Name(name, help, unit): Name,
        samples: impl IntoIterator<Item = (Labels<'a>, Option<f64>)>,
    ) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in samples {
            if let Some(value) = value {
                family.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn counter<'a>(
        &mut self,
        Name(name, help, unit): Name,
        samples: impl IntoIterator<Item = (Labels<'a>, u64)>,
    ) -> fmt::Result {
        let kind = MetricType::Counter;
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), kind)?;
        for (labels, value) in samples {
            let mut one = family.encode_family(&labels)?;
            one.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }
}

fn of_link(page: &mut Page<'_>, status: &LinkStatus) -> fmt::Result {
    page.gauge(
        Name("ready", "1 where every pipeline streams", None),
        [(vec![], flag(not_ready(status).is_none()))],
    )?;
    let states = LinkState::ALL.map(|state| {
        let is = flag(status.state == state);
        (vec![("state", state.as_str())], is)
    });
    page.gauge(
        Name("link_state", "1 at the state of the link", None),
        states,
    )?;
    page.gauge(
        Name(
            "clock_skew",
            "How far the clock of b is ahead of that of a",
            Some(Unit::Seconds),
        ),
        [(vec![], status.clusters.a.clock_skew_ms.map(seconds_of))],
    )?;
    page.gauge(
        Name(
            "unpaired_namespaces",
            "Namespaces that are no longer replicated",
            None,
        ),
        [(vec![], Some(status.unpaired_namespaces.len() as f64))],
    )?;
    page.gauge(
        Name(
            "index_problems",
            "Indexes and options that one side has and the other refuses",
            None,
        ),
        [(vec![], Some(status.index_problems.len() as f64))],
    )
}

fn of_clusters(page: &mut Page<'_>, status: &LinkStatus) -> fmt::Result {
    let clusters = &status.clusters;
    let labels = |side: Side| vec![("cluster", &*clusters[side].name), ("side", side.as_str())];
    let known = |side: Side| {
        let cluster = &clusters[side];
        let (set, version) = (cluster.set_name.as_deref()?, cluster.version.as_deref()?);
        let more = [("set", set), ("version", version)];
        Some(labels(side).into_iter().chain(more).collect())
    };
    page.info(
        Name("cluster", "Replica set and version of a cluster", None),
        Side::BOTH.into_iter().filter_map(known),
    )?;
    page.gauge(
        Name("cluster_reachable", "1 while its change stream works", None),
        Side::BOTH.map(|side| (labels(side), clusters[side].reachable.and_then(flag))),
    )?;
    let seconds = |value: Option<u64>| value.map(|value| value as f64);
    page.gauge(
        Name(
            "oplog_window",
            "From the oldest entry of the oplog to now",
            Some(Unit::Seconds),
        ),
        Side::BOTH.map(|side| (labels(side), seconds(clusters[side].oplog_window_seconds))),
    )?;
    page.gauge(
        Name(
            "oplog_left",
            "How long the link may stand still before its resume point is gone",
            Some(Unit::Seconds),
        ),
        Side::BOTH.map(|side| (labels(side), seconds(clusters[side].oplog_seconds_left))),
    )
}

/// Each pipeline with its labels.
fn pipelines(status: &LinkStatus) -> impl Iterator<Item = (Labels<'_>, &PipelineStatus)> {
    status.pipelines.iter().map(|pipeline| {
        let name = |side: Side| status.clusters[side].name.as_str();
        let (source, target) = (pipeline.id.source(), pipeline.id.target());
        let labels = vec![
            ("pipeline", pipeline.id.as_str()),
            ("source", name(source)),
            ("target", name(target)),
        ];
        (labels, pipeline)
    })
}

fn of_pipelines(page: &mut Page<'_>, status: &LinkStatus) -> fmt::Result {
    let phases = pipelines(status).flat_map(|(labels, pipeline)| {
        Phase::ALL.map(|phase| {
            let mut labels = labels.clone();
            labels.push(("phase", phase.as_str()));
            (labels, flag(pipeline.phase == phase))
        })
    });
    page.gauge(
        Name("pipeline_phase", "1 at the phase of the pipeline", None),
        phases,
    )?;
    let each = |value: fn(&PipelineStatus) -> Option<f64>| {
        pipelines(status).map(move |(labels, pipeline)| (labels, value(pipeline)))
    };
    page.gauge(
        Name(
            "lag",
            "How far the pipeline is behind its source; left out while unknown",
            Some(Unit::Seconds),
        ),
        each(|pipeline| pipeline.lag_seconds),
    )?;
    page.gauge(
        Name(
            "pipeline_waiting",
            "1 while the pipeline waits for something that status names",
            None,
        ),
        each(|pipeline| flag(pipeline.waiting_on.is_some())),
    )?;
    page.gauge(
        Name(
            "observed_timestamp",
            "Cluster time up to which the source has been read, since 1970",
            Some(Unit::Seconds),
        ),
        each(|pipeline| pipeline.observed_through.as_ref().map(cluster_seconds)),
    )?;
    page.gauge(
        Name(
            "applied_timestamp",
            "Cluster time of the source up to which the target has everything, since 1970",
            Some(Unit::Seconds),
        ),
        each(|pipeline| pipeline.applied_through.as_ref().map(cluster_seconds)),
    )
}

fn totals(page: &mut Page<'_>, status: &LinkStatus) -> fmt::Result {
    let operations = pipelines(status).flat_map(|(labels, pipeline)| {
        let by_type = &pipeline.operations_applied_by_type;
        [
            ("insert", by_type.insert),
            ("update", by_type.update),
            ("replace", by_type.replace),
            ("delete", by_type.delete),
            ("ddl", by_type.ddl),
        ]
        .map(|(operation, count)| {
            let mut labels = labels.clone();
            labels.push(("operation", operation));
            (labels, count)
        })
    });
    page.counter(
        Name(
            "operations_applied",
            "Operations applied on the target",
            None,
        ),
        operations,
    )?;
    for (name, help, value) in TOTALS {
        let each = pipelines(status).map(|(labels, pipeline)| (labels, value(pipeline)));
        page.counter(Name(name, help, None), each)?;
    }
    Ok(())
}

type Total = fn(&PipelineStatus) -> u64;

const TOTALS: [(&str, &str, Total); 6] = [
    (
        "events_read",
        "Change events of applications read from the source",
        |pipeline| pipeline.events_read_total,
    ),
    (
        "conflicts",
        "Writes of the source that lost against one of the target and are on record",
        |pipeline| pipeline.conflicts_total,
    ),
    (
        "identical",
        "Conflicts whose documents were the same on both sides",
        |pipeline| pipeline.identical_total,
    ),
    (
        "dead_letters",
        "Events that could not be applied",
        |pipeline| pipeline.dead_letters_total,
    ),
    (
        "fence_conflicts",
        "Transactions that the target refused since an unseen write was there",
        |pipeline| pipeline.fence_conflicts_total,
    ),
    (
        "events_passed_over",
        "Events of namespaces that are no longer replicated",
        |pipeline| pipeline.events_passed_over_total,
    ),
];

/// Of a copy, a merge or a resync, while there is one.
fn of_initial_sync(page: &mut Page<'_>, status: &LinkStatus) -> fmt::Result {
    let numbers = status.initial_sync.as_ref();
    for (name, help, unit, field) in SYNC {
        let value = numbers.and_then(|numbers| numbers[field].as_f64());
        page.gauge(Name(name, help, unit()), [(vec![], value)])?;
    }
    Ok(())
}

type SyncNumber = (
    &'static str,
    &'static str,
    fn() -> Option<Unit>,
    &'static str,
);

const SYNC: [SyncNumber; 5] = [
    (
        "initial_sync_documents_done",
        "Documents copied or compared",
        || None,
        "documents_done",
    ),
    (
        "initial_sync_documents_expected",
        "Documents to copy or compare, an estimate",
        || None,
        "documents_total",
    ),
    (
        "initial_sync_done",
        "Bytes copied or compared",
        || Some(Unit::Bytes),
        "bytes_done",
    ),
    (
        "initial_sync_expected",
        "Bytes to copy or compare, an estimate",
        || Some(Unit::Bytes),
        "bytes_total",
    ),
    (
        "initial_sync_left",
        "Time that is left, an estimate",
        || Some(Unit::Seconds),
        "seconds_left",
    ),
];

fn flag(is: bool) -> Option<f64> {
    Some(if is { 1.0 } else { 0.0 })
}

fn seconds_of(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn cluster_seconds(position: &PositionStatus) -> f64 {
    f64::from(position.ts[0])
}

#[cfg(test)]
mod tests;
