//! The status document, field by field.

use serde_json::json;

use super::*;

fn running() -> LinkStatus {
    let names = Pair::new("eu", "us");
    let mut status = LinkStatus::new("eu-us", LinkState::Running, names, &[PipelineId::AToB]);
    status.pid = Some(42);
    status.since = Some(DateTime::from_millis(1_700_000_000_120));
    status.clusters.a.reachable = Some(true);
    status.clusters.a.version = Some("6.0.5".into());
    let pipeline = &mut status.pipelines[0];
    pipeline.phase = Phase::Streaming;
    pipeline.lag_seconds = Some(0.25);
    let time = Timestamp {
        time: 1_700_000_000,
        increment: 3,
    };
    let position = Position::of_event(time, "82ab");
    let wall_time = Some(DateTime::from_millis(1_700_000_000_100));
    pipeline.applied_through = Some(PositionStatus::new(&position, wall_time));
    pipeline.set_totals(&Totals {
        events_read: 9,
        inserts_applied: 1,
        updates_applied: 2,
        replaces_applied: 3,
        deletes_applied: 4,
        ddl_applied: 5,
        conflicts: 6,
        identical: 7,
        dead_letters: 8,
        fence_conflicts: 10,
        events_passed_over: 11,
    });
    status
}

#[test]
fn the_json_has_exactly_the_agreed_fields() {
    let nothing = json!({ "name": "us", "set_name": null, "version": null, "reachable": null,
        "clock_skew_ms": null, "oplog_window_seconds": null, "oplog_seconds_left": null });
    let expected = json!({
        "format": 1,
        "link": "eu-us",
        "state": "running",
        "pid": 42,
        "since": "2023-11-14T22:13:20.120Z",
        "started_from": null,
        "direction": null,
        "clusters": {
            "a": { "name": "eu", "set_name": null, "version": "6.0.5", "reachable": true,
                "clock_skew_ms": null, "oplog_window_seconds": null, "oplog_seconds_left": null },
            "b": nothing,
        },
        "pipelines": [{
            "id": "a-to-b",
            "phase": "streaming",
            "waiting_on": null,
            "paused": null,
            "lag_seconds": 0.25,
            "observed_through": null,
            "applied_through": { "ts": [1_700_000_000, 3], "token": "82ab",
                "wall_time": "2023-11-14T22:13:20.100Z" },
            "events_read_total": 9,
            "operations_applied_total": 15,
            "operations_applied_by_type":
                { "insert": 1, "update": 2, "replace": 3, "delete": 4, "ddl": 5 },
            "conflicts_total": 6,
            "identical_total": 7,
            "dead_letters_total": 8,
            "fence_conflicts_total": 10,
            "events_passed_over_total": 11,
        }],
        "initial_sync": null,
        "last_error": null,
        "last_reload": null,
        "unpaired_namespaces": [],
        "index_problems": [],
    });
    let value = serde_json::to_value(running()).unwrap();
    assert_eq!(value, expected);
    assert_eq!(
        serde_json::from_value::<LinkStatus>(value).unwrap(),
        running()
    );
}

#[test]
fn states_and_phases_have_one_name_each() {
    for state in LinkState::ALL {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    for phase in Phase::ALL {
        assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
    }
}

#[test]
fn a_link_whose_process_is_gone_is_stopped_and_its_totals_stay() {
    let stopped = running().without_process();
    assert_eq!(stopped.state, LinkState::Stopped);
    assert_eq!((stopped.pid, stopped.clusters.a.reachable), (None, None));
    let pipeline = &stopped.pipelines[0];
    assert_eq!(pipeline.phase, Phase::Stopped);
    assert_eq!(pipeline.lag_seconds, None);
    assert_eq!(pipeline.conflicts_total, 6);
    assert!(pipeline.applied_through.is_some());
}

#[test]
fn a_link_that_failed_stays_failed() {
    let mut status = running();
    status.state = LinkState::Failed;
    let error = Error::history("the resume point of eu is lost").hint("resync");
    status.last_error = Some(LastError::new(&error, DateTime::from_millis(0)));
    let left = status.without_process();
    assert_eq!(left.state, LinkState::Failed);
    assert_eq!(
        serde_json::to_value(left.last_error).unwrap(),
        json!({ "at": "1970-01-01T00:00:00.000Z", "class": "resync",
            "message": "the resume point of eu is lost", "hint": "resync", "exit_code": 5 })
    );
}

#[test]
fn people_read_what_matters() {
    let mut status = running();
    status.unpaired_namespaces = vec!["shop.old".into()];
    let error = Error::unreachable("cannot reach us");
    status.last_error = Some(LastError::new(&error, DateTime::from_millis(0)));
    let text = to_text(&status, None);
    for part in [
        "eu-us",
        "running",
        "pid 42",
        "eu",
        "us",
        "6.0.5",
        "a-to-b",
        "streaming",
        "0.25 s",
        "cannot reach us",
        "shop.old",
        "2023-11-14T22:13:20.100Z",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    let names = Pair::new("eu", "us");
    let never = LinkStatus::new("eu-us", LinkState::NeverRun, names, &PipelineId::BOTH);
    assert!(
        to_text(&never, None).contains("never_run"),
        "{}",
        to_text(&never, None)
    );
}

#[test]
fn a_narrow_terminal_has_a_column_for_each_pipeline_and_no_torn_line() {
    let mut status = running();
    status.started_from = Some(DateTime::from_millis(1_700_000_000_000));
    status.clusters.a.oplog_window_seconds = Some(200);
    status.clusters.a.oplog_seconds_left = Some(400_000);
    let widest = |text: &str| {
        text.lines()
            .map(|line| line.trim_end().chars().count())
            .max()
    };
    assert!(
        widest(&to_text(&status, None)) > Some(80),
        "nothing is folded"
    );
    for width in [80, 48] {
        let text = to_text(&status, Some(width));
        assert!(widest(&text) <= Some(width.into()), "{width}:\n{text}");
        for part in ["dead letters", "0.25 s", "3 min", "4.6 d"] {
            assert!(text.contains(part), "{part} at {width}:\n{text}");
        }
    }
}

#[test]
fn what_is_waited_for_stands_below_the_table_whatever_its_length() {
    let mut status = running();
    let on = format!("us: {}", "cannot read the change stream ".repeat(9));
    status.pipelines[0].waiting_on = Some(on.clone());
    status.clusters.a.oplog_window_seconds = Some(1_800);
    let text = to_text(&status, None);
    assert!(text.contains(&format!("\na-to-b waits ({on})\n")), "{text}");
    assert!(text.contains("30 min"), "{text}");
    let table = text.lines().filter(|line| line.contains("streaming"));
    assert!(table.clone().count() == 1 && table.clone().all(|line| line.len() < 130));
}
