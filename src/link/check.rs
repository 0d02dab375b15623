//! Can this link work? One line a requirement.

pub(crate) mod collections;
mod lines;
mod mistyped;
mod names;
mod privileges;
mod probe;
mod queries;
mod server;

use super::overlap::{Neighbour, must_not_overlap};
use super::own::Own;
use crate::change::{Pair, Side};
use crate::cluster::{self, Cluster};
use crate::config::{Config, duration};
use crate::error::{Error, ExitCode, Result};
use crate::telemetry::alerts;

pub(crate) use privileges::{missing as missing_privileges, must_be_granted};
pub(crate) use queries::must_be_understood;

pub use lines::{CheckLine, Verdict, as_json, as_table};

/// What a check may do to the clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    ReadOnly,
    /// Also one transaction at a past snapshot in tandem's own database.
    Write,
}

/// Asks both clusters everything that the link needs of them.
///
/// # Errors
/// A connection string that the driver refuses (3). All else, an unreachable cluster too, is a line.
pub async fn check(config: &Config, probe: Probe) -> Result<Vec<CheckLine>> {
    let mut lines = Vec::new();
    let (a, b) = tokio::join!(connected(config, Side::A), connected(config, Side::B));
    let mut clusters = Pair::<Option<Cluster>>::default();
    for (side, connection) in [(Side::A, a), (Side::B, b)] {
        match connection {
            Ok(cluster) => clusters[side] = Some(cluster),
            Err(error) if error.exit == ExitCode::Config => return Err(error),
            Err(error) => lines.push(failed(&config.clusters[side].name, "reachable", &error)),
        }
    }
    let mut servers = Pair::<Option<server::Server>>::default();
    for cluster in [&clusters.a, &clusters.b].into_iter().flatten() {
        servers[cluster.side] = server::check(cluster, &mut lines).await;
        if servers[cluster.side].is_some() {
            privileges::check(config, cluster, &mut lines).await;
            queries::check(config, cluster, &mut lines).await;
            if probe == Probe::Write {
                lines.push(probe::check(config, cluster).await);
            }
        }
    }
    if let (Some(a), Some(b)) = (&servers.a, &servers.b) {
        compare_servers(config, a, b, &mut lines);
    }
    if let (Some(a), Some(b), Some(_), Some(_)) = (&clusters.a, &clusters.b, &servers.a, &servers.b)
    {
        lines.extend(
            other_links(config, a, b, &servers)
                .await
                .unwrap_or_default(),
        );
        collections::check(config, a, b, &mut lines).await;
    }
    for cluster in [clusters.a, clusters.b].into_iter().flatten() {
        cluster.shutdown().await;
    }
    for (requirement, found) in alerts::check(&config.alerts).await {
        lines.push(match found {
            Ok(found) => CheckLine::new(Verdict::Ok, "alerts", requirement, found),
            Err(what) => CheckLine::new(Verdict::Warn, "alerts", requirement, what)
                .hint("until it is corrected nobody is told; the link works all the same"),
        });
    }
    Ok(lines)
}

async fn connected(config: &Config, side: Side) -> Result<Cluster> {
    cluster::connect(config, side).await
}

fn compare_servers(
    config: &Config,
    a: &server::Server,
    b: &server::Server,
    lines: &mut Vec<CheckLine>,
) {
    if let (Some(id_a), Some(id_b)) = (&a.replica_set_id, &b.replica_set_id) {
        let (verdict, found) = if id_a == id_b {
            (Verdict::Fail, "one cluster behind both connection strings")
        } else {
            (Verdict::Ok, "two clusters")
        };
        lines.push(
            CheckLine::new(verdict, "link", "two different clusters", found)
                .hint("correct one of the connection strings"),
        );
    }
    let skew_ms = a.clock_offset_ms.abs_diff(b.clock_offset_ms);
    let limit = config.conflicts.clock_skew_warn;
    let verdict = if u128::from(skew_ms) > limit.as_millis() {
        Verdict::Warn
    } else {
        Verdict::Ok
    };
    let requirement = format!("clocks within {}", duration::show(limit));
    lines.push(
        CheckLine::new(verdict, "link", &requirement, format!("{skew_ms} ms apart"))
            .hint("run NTP on all members: a slow clock loses every race"),
    );
}

/// A start would be refused beside another link over the same collections between these clusters,
/// or where both lead to the same third one.
async fn other_links(
    config: &Config,
    a: &Cluster,
    b: &Cluster,
    servers: &Pair<Option<server::Server>>,
) -> Option<Vec<CheckLine>> {
    let id_of = |side: Side| Some(servers[side].as_ref()?.replica_set_id?.to_hex());
    let ids = Pair::new(id_of(Side::A)?, id_of(Side::B)?);
    let own = Pair::new(a, b).map(|cluster| Own::new(cluster, &config.link.database));
    let requirement = "no other link over the same collections";
    let neighbours = match must_not_overlap(config, &ids, &own).await {
        Ok(neighbours) => neighbours,
        Err(error) => return Some(vec![failed("link", requirement, &error)]),
    };
    if neighbours.is_empty() {
        return Some(vec![CheckLine::new(
            Verdict::Ok,
            "link",
            requirement,
            "none",
        )]);
    }
    let line = |other: Neighbour| {
        let found = format!("link {} to {}: {}", other.link, other.name, other.pattern);
        let name = &config.clusters[other.side].name;
        CheckLine::new(Verdict::Warn, name, requirement, found).hint(
            "what it writes counts as an application's here; links over the same collections \
             must not lead round in a ring",
        )
    };
    Some(neighbours.into_iter().map(line).collect())
}

/// A requirement that could not be looked at.
fn failed(subject: &str, requirement: &str, error: &Error) -> CheckLine {
    let hint = error.hint.as_deref().unwrap_or_default();
    CheckLine::new(Verdict::Fail, subject, requirement, error.to_string()).hint(hint)
}
