//! The documents with the most conflicts, counted in bounded memory.

use std::collections::{BTreeSet, HashMap};

use bson::RawDocument;
use serde::Serialize;

use super::extjson::write_canonical;

/// Documents counted at once, some 300 bytes each.
const COUNTED_MAX: usize = 20_000;
/// Longer keys are told apart by their beginning.
const KEY_BYTES_MAX: usize = 200;
pub(super) const SHOWN_MAX: usize = 10;

/// Counts as the space-saving algorithm does: exact while there are no more documents than places;
/// past that a document takes the place and the count of the one with the lowest, so counts are
/// never too low and the documents with the most conflicts are kept.
#[derive(Debug, Clone)]
pub(super) struct Top {
    places: usize,
    counts: HashMap<String, u64>,
    by_count: BTreeSet<(u64, String)>,
    exact: bool,
}

/// A document and how many records are about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopDocument {
    pub namespace: String,
    /// Canonical extended JSON; the beginning of a long one, as a text.
    pub document_key: serde_json::Value,
    pub count: u64,
}

impl Default for Top {
    fn default() -> Self {
        Self::of_places(COUNTED_MAX)
    }
}

impl Top {
    fn of_places(places: usize) -> Self {
        Self {
            places,
            counts: HashMap::new(),
            by_count: BTreeSet::new(),
            exact: true,
        }
    }

    pub(super) fn add(&mut self, record: &RawDocument) {
        let Ok(key) = record.get_document("document_key") else {
            return;
        };
        let mut name = record.get_str("namespace").unwrap_or_default().to_owned();
        name.push('\0');
        let mut text = String::new();
        write_canonical(&mut text, key);
        name.push_str(beginning(&text));
        self.count(name);
    }

    fn count(&mut self, name: String) {
        let mut before = self.counts.get(&name).copied();
        if let Some(count) = before {
            self.by_count.remove(&(count, name.clone()));
        } else if self.counts.len() == self.places {
            let lowest = self.by_count.pop_first();
            if let Some((count, other)) = lowest {
                self.counts.remove(&other);
                self.exact = false;
                before = Some(count);
            }
        }
        let count = before.unwrap_or(0) + 1;
        self.by_count.insert((count, name.clone()));
        self.counts.insert(name, count);
    }

    /// Whether no document had to make room for another one.
    pub(super) fn is_exact(&self) -> bool {
        self.exact
    }

    /// The most frequent ones, by count, then by name.
    pub(super) fn most(&self) -> Vec<TopDocument> {
        let mut all: Vec<_> = self.counts.iter().collect();
        all.sort_by(|(left, count), (right, other)| other.cmp(count).then(left.cmp(right)));
        all.truncate(SHOWN_MAX);
        let shown = |(name, count): (&String, &u64)| {
            let (namespace, key) = name.split_once('\0').unwrap_or_default();
            TopDocument {
                namespace: namespace.to_owned(),
                document_key: serde_json::from_str(key)
                    .unwrap_or_else(|_| serde_json::Value::from(format!("{key}…"))),
                count: *count,
            }
        };
        all.into_iter().map(shown).collect()
    }
}

fn beginning(text: &str) -> &str {
    let mut end = text.len().min(KEY_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn add(top: &mut Top, id: i32) {
        top.add(&rawdoc! { "namespace": "shop.orders", "document_key": { "_id": id } });
    }

    #[test]
    fn counts_are_exact_while_there_is_room() {
        let mut top = Top::of_places(3);
        for id in [1, 2, 2, 3, 3, 3] {
            add(&mut top, id);
        }
        let counts: Vec<u64> = top.most().iter().map(|one| one.count).collect();
        assert_eq!(counts, [3, 2, 1]);
        assert!(top.is_exact());
        assert_eq!(
            top.most()[0].document_key,
            serde_json::json!({ "_id": { "$numberInt": "3" } })
        );
    }

    #[test]
    fn the_most_frequent_one_is_kept_where_there_is_no_room() {
        let mut top = Top::of_places(10);
        for id in 0..1000 {
            add(&mut top, id);
            add(&mut top, -1);
        }
        let most = top.most();
        assert_eq!(most[0].document_key["_id"]["$numberInt"], "-1");
        assert_eq!(most[0].count, 1000);
        assert!(!top.is_exact());
    }

    #[test]
    fn a_long_key_is_cut_and_a_change_of_a_collection_has_none() {
        let mut top = Top::default();
        let long = "ü".repeat(KEY_BYTES_MAX);
        top.add(&rawdoc! { "namespace": "shop.orders", "document_key": { "_id": long } });
        top.add(&rawdoc! { "namespace": "shop.orders", "document_key": bson::RawBson::Null });
        let most = top.most();
        assert_eq!(most.len(), 1);
        assert!(most[0].document_key.as_str().unwrap().ends_with('…'));
    }
}
