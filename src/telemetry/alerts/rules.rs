//! When something is worth telling somebody. Pure: thresholds and numbers in, findings out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::Side;
use crate::config::{Thresholds, duration};
use crate::telemetry::history::{Counted, History};
use crate::telemetry::status::{LinkState, LinkStatus, Phase, PipelineStatus};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    Lag,
    OplogTimeLeft,
    Conflicts,
    DeadLetters,
    ClockSkew,
    LinkStopped,
}

impl Rule {
    pub const ALL: [Rule; 6] = [
        Rule::Lag,
        Rule::OplogTimeLeft,
        Rule::Conflicts,
        Rule::DeadLetters,
        Rule::ClockSkew,
        Rule::LinkStopped,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Lag => "lag",
            Rule::OplogTimeLeft => "oplog_time_left",
            Rule::Conflicts => "conflicts",
            Rule::DeadLetters => "dead_letters",
            Rule::ClockSkew => "clock_skew",
            Rule::LinkStopped => "link_stopped",
        }
    }

    pub fn hint(self) -> &'static str {
        match self {
            Rule::Lag => "`tandem status` says what is waited for; is the target too slow?",
            Rule::OplogTimeLeft => {
                "let the link catch up, or make the oplog larger (replSetResizeOplog)"
            }
            Rule::Conflicts => "`tandem conflict-report --since 1h --summary` says where",
            Rule::DeadLetters => "`tandem dead-letter list` shows them with their reasons",
            Rule::ClockSkew => "run NTP on all members: a slow clock loses every race",
            Rule::LinkStopped => "`tandem status` says why; `tandem check` asks both clusters",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Firing,
    Fine,
    /// Nothing is known, so nothing changes.
    Unknown,
}

/// What a rule says of a pipeline, a cluster or the link.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub rule: Rule,
    /// A pipeline, a cluster's name, or `link`.
    pub subject: String,
    pub verdict: Verdict,
    /// For people.
    pub text: String,
    pub value: Option<f64>,
    pub threshold: f64,
}

/// Judges the link. `stopped_for`: how long it has not done its work.
pub fn judge(
    thresholds: &Thresholds,
    status: &LinkStatus,
    history: &History,
    stopped_for: Option<Duration>,
    now_ms: i64,
) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(most) = thresholds.lag {
        found.extend(status.pipelines.iter().map(|one| lag(status, one, most)));
    }
    if let Some(least) = thresholds.oplog_time_left_below {
        found.extend(Side::BOTH.map(|side| oplog_time_left(status, side, least)));
    }
    if let Some(most) = thresholds.clock_skew {
        found.push(clock_skew(status, most));
    }
    if let Some(most) = thresholds.conflicts_per_minute {
        let counted = history.conflicts_within(MINUTE, now_ms);
        found.push(counted_finding(
            Rule::Conflicts,
            counted,
            most,
            "conflicts within a minute",
        ));
    }
    if let Some(most) = thresholds.dead_letters {
        let counted = history.dead_letters_within(HOUR, now_ms);
        found.push(counted_finding(
            Rule::DeadLetters,
            counted,
            most,
            "dead letters within an hour",
        ));
    }
    if let Some(most) = thresholds.link_stopped {
        found.push(link_stopped(status, stopped_for, most));
    }
    found
}

fn lag(status: &LinkStatus, pipeline: &PipelineStatus, most: Duration) -> Finding {
    let value = pipeline
        .lag_seconds
        .filter(|_| pipeline.phase == Phase::Streaming);
    let (from, to) = (pipeline.id.source(), pipeline.id.target());
    let (from, to) = (&status.clusters[from].name, &status.clusters[to].name);
    let behind = value.map_or("an unknown time".to_owned(), shown_seconds);
    Finding {
        rule: Rule::Lag,
        subject: pipeline.id.as_str().to_owned(),
        verdict: verdict(value.map(|lag| lag > most.as_secs_f64())),
        text: format!(
            "{to} is {behind} behind {from} (limit {})",
            duration::show(most)
        ),
        value,
        threshold: most.as_secs_f64(),
    }
}

fn oplog_time_left(status: &LinkStatus, side: Side, least: Duration) -> Finding {
    let cluster = &status.clusters[side];
    let value = cluster.oplog_seconds_left.map(|left| left as f64);
    let left = value.map_or("an unknown time".to_owned(), shown_seconds);
    Finding {
        rule: Rule::OplogTimeLeft,
        subject: cluster.name.clone(),
        verdict: verdict(value.map(|left| left < least.as_secs_f64())),
        text: format!(
            "the resume point leaves the oplog of {} in {left} (limit {})",
            cluster.name,
            duration::show(least)
        ),
        value,
        threshold: least.as_secs_f64(),
    }
}

fn clock_skew(status: &LinkStatus, most: Duration) -> Finding {
    let value = status.clusters.a.clock_skew_ms.map(|ms| ms as f64 / 1000.0);
    let apart = value.map_or("an unknown time".to_owned(), |skew| {
        shown_seconds(skew.abs())
    });
    Finding {
        rule: Rule::ClockSkew,
        subject: LINK.to_owned(),
        verdict: verdict(value.map(|skew| skew.abs() > most.as_secs_f64())),
        text: format!(
            "the clusters' clocks are {apart} apart (limit {})",
            duration::show(most)
        ),
        value,
        threshold: most.as_secs_f64(),
    }
}

const LINK: &str = "link";

fn counted_finding(rule: Rule, counted: Counted, most: u64, what: &str) -> Finding {
    let verdict = match counted {
        Counted { count, .. } if count >= most => Verdict::Firing,
        Counted { whole: true, .. } => Verdict::Fine,
        Counted { whole: false, .. } => Verdict::Unknown,
    };
    Finding {
        rule,
        subject: LINK.to_owned(),
        verdict,
        text: format!("{} {what} (limit {most})", counted.count),
        value: Some(counted.count as f64),
        threshold: most as f64,
    }
}

fn link_stopped(status: &LinkStatus, stopped_for: Option<Duration>, most: Duration) -> Finding {
    let seconds = stopped_for.map(|time| time.as_secs_f64());
    let (verdict, mut text) = match status.state {
        LinkState::Failed => (
            Verdict::Firing,
            "the link has ended with an error".to_owned(),
        ),
        LinkState::Running => (Verdict::Fine, "the link is running".to_owned()),
        LinkState::Starting | LinkState::Recovering | LinkState::Waiting => {
            let long = stopped_for.is_some_and(|time| time > most);
            let state = status.state.as_str();
            let time = shown_seconds(seconds.unwrap_or_default());
            let text = format!("the link has not been running for {time}: {state}");
            (
                if long {
                    Verdict::Firing
                } else {
                    Verdict::Unknown
                },
                text,
            )
        }
        // Somebody has asked for it.
        LinkState::Paused
        | LinkState::OutsideWindow
        | LinkState::Stopped
        | LinkState::Ended
        | LinkState::NeverRun => (Verdict::Unknown, "the link does not run".to_owned()),
    };
    let waits = status
        .pipelines
        .iter()
        .find_map(|one| one.waiting_on.as_deref());
    let error = status
        .last_error
        .as_ref()
        .map(|error| error.message.as_str());
    if let (Verdict::Firing, Some(why)) = (verdict, error.or(waits)) {
        text = format!("{text}: {why}");
    }
    Finding {
        rule: Rule::LinkStopped,
        subject: LINK.to_owned(),
        verdict,
        text,
        value: seconds,
        threshold: most.as_secs_f64(),
    }
}

fn verdict(beyond: Option<bool>) -> Verdict {
    match beyond {
        Some(true) => Verdict::Firing,
        Some(false) => Verdict::Fine,
        None => Verdict::Unknown,
    }
}

fn shown_seconds(seconds: f64) -> String {
    match seconds {
        few if few < 10.0 => format!("{few:.1} s"),
        some if some < 600.0 => format!("{some:.0} s"),
        more if more < 36_000.0 => format!("{:.0} min", more / 60.0),
        many => format!("{:.0} h", many / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Pair, PipelineId};

    fn status(state: LinkState) -> LinkStatus {
        let names = Pair::new("eu", "us");
        let mut status = LinkStatus::new("l", state, names, &PipelineId::BOTH);
        for pipeline in &mut status.pipelines {
            pipeline.phase = Phase::Streaming;
            pipeline.lag_seconds = Some(1.0);
        }
        status
    }

    fn thresholds() -> Thresholds {
        Thresholds {
            lag: Some(MINUTE),
            oplog_time_left_below: Some(HOUR),
            conflicts_per_minute: Some(10),
            dead_letters: Some(1),
            clock_skew: Some(Duration::from_secs(5)),
            link_stopped: Some(MINUTE),
        }
    }

    fn of(status: &LinkStatus, rule: Rule, stopped_for: Option<Duration>) -> Finding {
        let history = History::default();
        let all = judge(&thresholds(), status, &history, stopped_for, 0);
        all.into_iter()
            .find(|one| one.rule == rule)
            .expect("judged")
    }

    #[test]
    fn a_pipeline_that_is_behind_fires_and_one_whose_lag_is_unknown_says_nothing() {
        let mut status = status(LinkState::Running);
        assert_eq!(of(&status, Rule::Lag, None).verdict, Verdict::Fine);
        status.pipelines[0].lag_seconds = Some(61.0);
        let late = of(&status, Rule::Lag, None);
        assert_eq!(late.verdict, Verdict::Firing);
        assert_eq!(late.text, "us is 61 s behind eu (limit 1m)");
        status.pipelines[0].lag_seconds = None;
        assert_eq!(of(&status, Rule::Lag, None).verdict, Verdict::Unknown);
    }

    #[test]
    fn an_oplog_and_a_clock_fire_past_their_limits() {
        let mut status = status(LinkState::Running);
        status.clusters.a.oplog_seconds_left = Some(3599);
        status.clusters.a.clock_skew_ms = Some(-5001);
        let oplog = of(&status, Rule::OplogTimeLeft, None);
        assert_eq!(
            (oplog.verdict, oplog.subject.as_str()),
            (Verdict::Firing, "eu")
        );
        assert_eq!(of(&status, Rule::ClockSkew, None).verdict, Verdict::Firing);
        status.clusters.a.clock_skew_ms = Some(4999);
        status.clusters.a.oplog_seconds_left = Some(3600);
        assert_eq!(of(&status, Rule::ClockSkew, None).verdict, Verdict::Fine);
        assert_eq!(
            of(&status, Rule::OplogTimeLeft, None).verdict,
            Verdict::Fine
        );
    }

    #[test]
    fn a_link_that_waits_too_long_or_has_failed_fires_and_one_that_was_stopped_does_not() {
        let waiting = |seconds| {
            let mut status = status(LinkState::Waiting);
            status.pipelines[0].waiting_on = Some("us: away".to_owned());
            of(
                &status,
                Rule::LinkStopped,
                Some(Duration::from_secs(seconds)),
            )
        };
        assert_eq!(waiting(60).verdict, Verdict::Unknown);
        assert_eq!(
            waiting(61).text,
            "the link has not been running for 61 s: waiting: us: away"
        );
        let failed = of(&status(LinkState::Failed), Rule::LinkStopped, None);
        assert_eq!(failed.verdict, Verdict::Firing);
        for asked_for in [
            LinkState::Stopped,
            LinkState::Paused,
            LinkState::OutsideWindow,
        ] {
            let long = Some(HOUR);
            let found = of(&status(asked_for), Rule::LinkStopped, long);
            assert_eq!(found.verdict, Verdict::Unknown);
        }
    }

    #[test]
    fn what_is_counted_fires_at_its_limit_and_is_fine_only_after_a_whole_window() {
        let counted = |count, whole| {
            counted_finding(Rule::Conflicts, Counted { count, whole }, 10, "x").verdict
        };
        assert_eq!(counted(10, false), Verdict::Firing);
        assert_eq!(counted(9, false), Verdict::Unknown);
        assert_eq!(counted(9, true), Verdict::Fine);
    }
}
