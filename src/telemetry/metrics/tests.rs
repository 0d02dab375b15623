//! What a scrape gives.

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
