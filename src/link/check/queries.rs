//! Whether the servers take the filters of the configuration.

use bson::{RawDocumentBuf, cstr};

use super::collections::shapes;
use super::{CheckLine, Verdict, failed};
use crate::change::{Deletes, Filter, Namespace};
use crate::cluster::Cluster;
use crate::config::{Config, suggestion};
use crate::error::{Class, Error, Result};

const REQUIREMENT: &str = "filters understood";

/// Tries every filter and projection on a cluster, against tandem's own database.
///
/// # Errors
/// A config error (3) that names the filter; as the cluster says.
pub async fn must_be_understood(config: &Config, cluster: &Cluster) -> Result<()> {
    for (index, filter) in config.filters.iter().enumerate() {
        match ask(config, cluster, filter).await {
            Err(error) if matches!(error.class, Class::Retry) => return Err(error),
            Err(error) => {
                let name = &cluster.name;
                let key = format!("filters[{index}]");
                return Err(
                    Error::config(format!("{key}: {name} does not take it")).caused_by(error)
                );
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

async fn ask(config: &Config, cluster: &Cluster, filter: &Filter) -> Result<()> {
    let mut command = RawDocumentBuf::new();
    command.append(cstr!("find"), "links");
    filter.selection.put_into(&mut command, None);
    command.append(cstr!("limit"), 1);
    let doing = format!("try a filter on {}", cluster.name);
    cluster
        .each(&config.link.database, command, &doing, |_| {})
        .await
}

pub(super) async fn check(config: &Config, cluster: &Cluster, lines: &mut Vec<CheckLine>) {
    if config.filters.is_empty() {
        return;
    }
    let line = match must_be_understood(config, cluster).await {
        Ok(()) => {
            let kept = config.filters.iter();
            let kept = kept.filter(|one| one.deletes == Deletes::Ignored).count();
            let found = format!(
                "{} filters, {kept} ignore deletes",
                config.filters.iter().count()
            );
            CheckLine::new(Verdict::Ok, &cluster.name, REQUIREMENT, found)
        }
        Err(error) => failed(&cluster.name, REQUIREMENT, &error),
    };
    lines.push(line);
    if config.link.mode.sends(cluster.side) {
        lines.extend(about_nothing(config, cluster).await);
    }
}

/// A mistyped pattern filters nothing, and nobody would notice.
async fn about_nothing(config: &Config, cluster: &Cluster) -> Vec<CheckLine> {
    const REQUIREMENT: &str = "filters name a collection";
    let found = match shapes(config, cluster).await {
        Ok(found) => found,
        Err(error) => return vec![failed(&cluster.name, REQUIREMENT, &error)],
    };
    let is_about_nothing = |filter: &&Filter| {
        let mut names = found.keys().map(Namespace::as_str);
        !names.any(|name| filter.pattern.matches(name))
    };
    let filters = config.filters.iter().filter(is_about_nothing);
    let line = |filter: &Filter| {
        let typed = filter.namespace();
        let near = suggestion(typed, found.keys().map(Namespace::as_str));
        let said = format!("{typed} names none of the included ones{near}");
        CheckLine::new(Verdict::Warn, &cluster.name, REQUIREMENT, said)
            .hint("until there is one, nothing is left out: is filters.namespace as meant?")
    };
    filters.map(line).collect()
}
