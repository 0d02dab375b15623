//! Collections that b calls otherwise: whether they are there, and whether b can call them so.

use std::collections::BTreeMap;

use super::collections::Shape;
use super::{CheckLine, Verdict, failed};
use crate::change::{NAMESPACE_BYTES_MAX, Namespace, Pair, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Result;
use crate::link::initial_sync::survey::everything;

const REQUIREMENT: &str = "renames";

/// One line for each rename, and one for each collection of a that has no name on b.
pub(super) async fn check(
    config: &Config,
    a: &Cluster,
    shapes: &Pair<&BTreeMap<Namespace, Shape>>,
    lines: &mut Vec<CheckLine>,
) {
    let renames = config.namespaces.renames();
    if renames.is_empty() {
        return;
    }
    for rename in renames.iter() {
        let count = |side: Side| {
            let names = shapes[side].keys();
            names.filter(|name| rename.is_about(name)).count()
        };
        let found = Pair::new(count(Side::A), count(Side::B));
        let verdict = match found {
            Pair { a: 0, b: 0 } => Verdict::Warn,
            Pair { .. } => Verdict::Ok,
        };
        let told = format!(
            "{}: {} collections on a, {} on b",
            rename.shown(),
            found.a,
            found.b
        );
        lines.push(
            CheckLine::new(verdict, "link", REQUIREMENT, told)
                .hint("none yet on either side: are the names as meant?"),
        );
    }
    match nameless(config, a).await {
        Ok(nameless) => lines.extend(nameless.into_iter().map(|(name, why)| {
            let subject = format!("{name} on {}", a.name);
            CheckLine::new(Verdict::Fail, &subject, "a name on b", why)
                .hint("exclude it, or rename it otherwise")
        })),
        Err(error) => lines.push(failed(&a.name, "a name on b", &error)),
    }
}

/// What is asked for and cannot be called on b as it would have to be.
async fn nameless(config: &Config, a: &Cluster) -> Result<Vec<(Namespace, String)>> {
    let renames = config.namespaces.renames();
    let mut found = Vec::new();
    for name in everything(a, &config.namespaces).await?.into_keys() {
        let on_b = renames.on(Side::B, &name);
        if config.namespaces.has_no_name_on_b(&name) {
            found.push((name, "the name would belong to the server".to_owned()));
        } else if config.namespaces.includes(Side::A, &name) && on_b.is_too_long() {
            let bytes = on_b.as_str().len();
            let why =
                format!("{bytes} bytes, more than the {NAMESPACE_BYTES_MAX} that servers take");
            found.push((name, why));
        }
    }
    Ok(found)
}
