//! What a filter asks of rows; pure.

use std::collections::{HashMap, HashSet};

use bson::RawDocument;

use super::block::{ANY_DOCUMENT, Row, document};
use crate::store::RecordFilter;

/// Rows whose records may match a filter.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Whether these values match.
    facets: HashMap<u64, bool>,
    /// None: any.
    documents: Option<HashSet<u32>>,
}

impl Wanted {
    /// `facets` are all that are on record.
    pub fn of<'a>(
        filter: &RecordFilter,
        facets: impl Iterator<Item = (u64, &'a RawDocument)>,
    ) -> Self {
        let of_facets = RecordFilter {
            since: None,
            until: None,
            ids: Vec::new(),
            keys: Vec::new(),
            ..filter.clone()
        };
        Self {
            facets: facets
                .map(|(name, values)| (name, of_facets.matches(values)))
                .collect(),
            documents: documents(&filter.keys),
        }
    }

    /// Facets that came on record since may match, too.
    pub fn includes(&self, row: &Row<'_>) -> bool {
        let facets = || self.facets.get(&row.facets).is_none_or(|matches| *matches);
        let document =
            |wanted: &HashSet<u32>| row.document == ANY_DOCUMENT || wanted.contains(&row.document);
        self.documents.as_ref().is_none_or(document) && facets()
    }
}

/// Whether rows tell of anything that a filter asks for.
pub(super) fn narrows(filter: &RecordFilter) -> bool {
    let of_facets = [
        filter.namespaces.is_empty(),
        filter.kinds.is_empty(),
        filter.winners.is_empty(),
        filter.statuses.is_empty(),
        filter.pipelines.is_empty(),
    ];
    of_facets.contains(&false) || documents(&filter.keys).is_some()
}

/// The documents that typed keys may name; None where they may name any.
fn documents(typed: &[String]) -> Option<HashSet<u32>> {
    if typed.is_empty() || typed.iter().any(|typed| typed.contains('*')) {
        return None;
    }
    let texts = typed.iter().flat_map(|typed| {
        let json: Option<serde_json::Value> = serde_json::from_str(typed).ok();
        let of_json = json.iter().flat_map(|json| {
            let ids = [Some(json), json.get("_id")].into_iter().flatten();
            ids.filter_map(id_text).collect::<Vec<_>>()
        });
        of_json.chain([typed.clone()]).collect::<Vec<_>>()
    });
    Some(texts.map(|text| document(&text)).collect())
}

/// As rows take an `_id` for text; None for what they do not tell apart.
fn id_text(json: &serde_json::Value) -> Option<String> {
    let number = |text: &str| text.parse::<i64>().ok().map(|number| number.to_string());
    match json {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => number.as_i64().map(|number| number.to_string()),
        serde_json::Value::Object(fields) => ["$oid", "$numberInt", "$numberLong"]
            .into_iter()
            .find_map(|name| Some((name, fields.get(name)?.as_str()?)))
            .and_then(|(name, text)| match name {
                "$oid" => Some(text.to_owned()),
                _ => number(text),
            }),
        serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Array(_) => None,
    }
}
