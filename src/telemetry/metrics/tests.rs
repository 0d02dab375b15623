//! What a scrape gives.

use std::collections::BTreeSet;

use super::*;
use crate::change::{Pair, PipelineId};
use crate::error::Error;

fn board() -> Board {
    Board::new("eu-us", Pair::new("eu", "us"), &PipelineId::BOTH)
}

/// Values of the samples whose line begins so.
fn values(page: &str, start: &str) -> Vec<String> {
    let lines = page.lines().filter(|line| line.starts_with(start));
    let value = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
    lines.map(value).collect()
}

#[test]
fn totals_carry_link_pipeline_and_clusters() {
    let page = Metrics::new(board()).render();
    let labels = r#"{link="eu-us",pipeline="b-to-a",source="us",target="eu"}"#;
    let wanted = format!("tandem_fence_conflicts_total{labels} 0");
    assert!(page.contains(&wanted), "{page}");
    assert!(
        page.contains("# TYPE tandem_fence_conflicts counter\n"),
        "{page}"
    );
    assert!(
        page.contains("# UNIT tandem_lag_seconds seconds\n"),
        "{page}"
    );
    assert!(page.ends_with("# EOF\n"));
    assert!(!page.contains(",}") && !page.contains(",,"), "{page}");
}

#[test]
fn what_is_unknown_is_left_out_and_states_are_one_of_many() {
    let board = board();
    let metrics = Metrics::new(board.clone());
    let page = metrics.render();
    assert_eq!(values(&page, "tandem_lag_seconds{"), [""; 0]);
    assert_eq!(values(&page, "tandem_ready{"), ["0.0"]);
    let starting = r#"tandem_link_state{link="eu-us",state="starting"}"#;
    assert_eq!(values(&page, starting), ["1.0"]);
    board.set_state(LinkState::Failed, Some(&Error::history("gone")));
    let page = metrics.render();
    assert_eq!(values(&page, starting), ["0.0"]);
    assert_eq!(
        values(&page, "tandem_link_state{").len(),
        LinkState::ALL.len()
    );
}

#[test]
fn what_a_server_says_cannot_break_a_line() {
    let board = board();
    let mut status = board.status();
    status.clusters.a.set_name = Some("a\"b\\c\nd".to_owned());
    status.clusters.a.version = Some("6.0".to_owned());
    let shown = Board::new("l", Pair::new("eu", "us"), &[]);
    shown.show(status);
    let page = Metrics::new(shown).render();
    assert!(page.contains(r#"set="a\"b\\c\nd",version="6.0""#), "{page}");
}

/// Names of samples in a text; what a page of this process has, without labels.
fn named(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
    let starts = text.match_indices("tandem_").map(|(at, _)| &text[at..]);
    let name = |text: &str| text.split(|c| !is_part(c)).next().map(str::to_owned);
    starts.filter_map(name).collect()
}

/// What a scrape of a link of which everything is known would have.
fn all_samples() -> BTreeSet<String> {
    let page = Metrics::new(board()).render();
    let families = page.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        Some(format!("{name}{suffix}"))
    });
    families.collect()
}

#[test]
fn every_metric_is_documented_and_whatever_the_documents_name_exists() {
    let operations = include_str!("../../../docs/OPERATIONS.md");
    let rules = include_str!("../../../docs/alerts.yml");
    let grafana = include_str!("../../../docs/grafana/dashboard.json");
    let all = all_samples();
    let undocumented: Vec<_> = all.difference(&named(operations)).cloned().collect();
    assert_eq!(undocumented, [""; 0]);
    let is_unknown = |name: &&String| !all.contains(*name) && *name != "tandem_";
    for (file, text) in [("alerts.yml", rules), ("dashboard.json", grafana)] {
        let of_file = named(text);
        assert!(of_file.len() > 5, "{file}");
        let unknown: Vec<_> = of_file.iter().filter(is_unknown).collect();
        assert_eq!(unknown, [""; 0], "{file}");
    }
    let metrics = operations.split("### Metrics").nth(1).expect("a table");
    let metrics = metrics.split("\n## ").next().expect("its end");
    let of_table = named(metrics);
    let unknown: Vec<_> = of_table.iter().filter(is_unknown).collect();
    assert_eq!(unknown, [""; 0]);
}

#[test]
fn the_grafana_dashboard_can_be_imported_and_no_panel_lies_on_another() {
    let text = include_str!("../../../docs/grafana/dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36));
    let variables = &dashboard["templating"]["list"];
    assert_eq!(variables[0]["type"], "datasource");
    let source = format!("${{{}}}", variables[0]["name"].as_str().unwrap());
    let (mut ids, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = &panel["title"];
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id");
        assert_eq!(panel["datasource"]["uid"], source.as_str(), "{title}");
        let [x, y, w, h] =
            ["x", "y", "w", "h"].map(|name| panel["gridPos"][name].as_u64().unwrap());
        assert!(x + w <= 24, "{title} is out of the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{title} lies on another one");
        }
    }
}
