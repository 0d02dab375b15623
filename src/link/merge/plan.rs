//! What a merge would go through on both sides; reads only.

use std::collections::BTreeMap;

use comfy_table::{Table, presets};
use serde_json::json;

use super::Sides;
use crate::change::{Mode, Namespace, Pair, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Result;
use crate::link::initial_sync::survey::{Surveyed, survey};

/// Everything included on either side.
pub struct MergePlan {
    found: BTreeMap<Namespace, Sides>,
    mode: Mode,
}

/// By the name on a, what each side has of it.
///
/// # Errors
/// As the clusters say.
pub(super) async fn survey_both(
    config: &Config,
    clusters: &Pair<Cluster>,
) -> Result<BTreeMap<Namespace, Sides>> {
    let mut found: BTreeMap<Namespace, Sides> = BTreeMap::new();
    for side in Side::BOTH {
        // What two-way mode does not take, a merge does not compare either.
        for one in survey(&clusters[side], &config.namespaces, Mode::TwoWay).await? {
            let renames = config.namespaces.renames();
            if let Some(on_a) = renames.on_a(side, &one.namespace) {
                found.entry(on_a).or_default()[side] = Some(one);
            }
        }
    }
    Ok(found)
}

/// Why a namespace is not merged; none where it is, or is a view.
pub(super) fn obstacle(mode: Mode, sides: &Sides) -> Option<&'static str> {
    let mut known = [&sides.a, &sides.b].into_iter().flatten();
    if let Some(reason) = known.find_map(|one| one.unsupported) {
        return Some(reason);
    }
    match mode {
        Mode::OneWay { from } if sides[from].is_none() => {
            Some("it is on the target alone, and nothing goes back")
        }
        Mode::OneWay { .. } | Mode::TwoWay => None,
    }
}

pub(super) fn is_view(sides: &Sides) -> bool {
    let mut known = [&sides.a, &sides.b].into_iter().flatten();
    known.any(Surveyed::is_view)
}

fn name_on_b(sides: &Sides) -> Option<&str> {
    let of_a = sides.a.as_ref().map(|one| one.counterpart.as_str());
    of_a.or(sides.b.as_ref().map(|one| one.namespace.as_str()))
}

impl MergePlan {
    /// # Errors
    /// As the clusters say.
    pub async fn of(config: &Config, clusters: &Pair<Cluster>) -> Result<Self> {
        Ok(Self {
            found: survey_both(config, clusters).await?,
            mode: config.link.mode,
        })
    }

    fn obstacle(&self, sides: &Sides) -> Option<&'static str> {
        match is_view(sides) {
            true => None,
            false => obstacle(self.mode, sides),
        }
    }

    pub fn as_table(&self) -> String {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header([
            "namespace",
            "documents on a",
            "on b",
            "bytes on a",
            "on b",
            "merged",
        ]);
        let (mut documents, mut bytes) = (Pair::new(0, 0), Pair::new(0, 0));
        for (namespace, sides) in &self.found {
            let of = |side: Side| sides[side].as_ref();
            let obstacle = self.obstacle(sides);
            for side in Side::BOTH.into_iter().filter(|_| obstacle.is_none()) {
                documents[side] += of(side).map_or(0, |one| one.documents);
                bytes[side] += of(side).map_or(0, |one| one.bytes);
            }
            let shown = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
            table.add_row([
                of(Side::A).map_or_else(|| namespace.to_string(), Surveyed::shown),
                shown(of(Side::A).map(|one| one.documents)),
                shown(of(Side::B).map(|one| one.documents)),
                shown(of(Side::A).map(|one| one.bytes)),
                shown(of(Side::B).map(|one| one.bytes)),
                match obstacle {
                    None if is_view(sides) => "as a view".to_owned(),
                    None => "yes".to_owned(),
                    Some(reason) => format!("no: {reason}"),
                },
            ]);
        }
        format!(
            "{table}\n{} namespaces, {} documents and {} bytes on a, {} documents and {} bytes on b \
             (estimated)\nA document that only one side has is copied, even if the other side has \
             deleted it once: a merge cannot tell.\nNothing was written.\n",
            self.found.len(),
            documents.a,
            bytes.a,
            documents.b,
            bytes.b
        )
    }

    pub fn as_json(&self) -> String {
        let namespaces = self.found.iter().map(|(namespace, sides)| {
            let of = |pick: fn(&Surveyed) -> u64| sides.as_ref().map(|one| one.as_ref().map(pick));
            let obstacle = self.obstacle(sides);
            json!({
                "namespace": namespace.as_str(),
                "namespace_on_b": name_on_b(sides),
                "documents": of(|one| one.documents),
                "bytes": of(|one| one.bytes),
                "merged": obstacle.is_none(),
                "reason": obstacle,
            })
        });
        let namespaces: Vec<_> = namespaces.collect();
        format!("{}\n", json!({ "format": 1, "namespaces": namespaces }))
    }
}
