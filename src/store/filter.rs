//! Which conflict records a question is about: a pure match on the raw record.

use bson::{Bson, DateTime, RawDocument};
use serde::{Deserialize, Serialize};

use crate::change::{ConflictKind, PipelineId, RecordStatus, wildcard_matches};

/// One filter given twice means or, different filters mean and; an empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordFilter {
    /// Logged at this time or later.
    pub since: Option<DateTime>,
    /// Logged before this time.
    pub until: Option<DateTime>,
    /// `database.collection`, where `*` stands for any text.
    pub namespaces: Vec<String>,
    pub kinds: Vec<ConflictKind>,
    /// A cluster's name, or `a` or `b`.
    pub winners: Vec<String>,
    pub ids: Vec<String>,
    pub statuses: Vec<RecordStatus>,
    /// Documents by key, see [`RecordFilter::matches`].
    pub keys: Vec<String>,
    pub pipelines: Vec<PipelineId>,
}

impl RecordFilter {
    pub fn of_id(id: &str) -> Self {
        Self {
            ids: vec![id.to_owned()],
            ..Self::default()
        }
    }

    /// A key matches as the whole key or as its `_id` alone: as extended JSON, and where `_id` is a
    /// text or an ObjectId, as that text, in which `*` stands for any text.
    pub fn matches(&self, record: &RawDocument) -> bool {
        let text = |name: &str| record.get_str(name).unwrap_or_default();
        self.includes_time(record)
            && any(&self.namespaces, |pattern| {
                wildcard_matches(pattern, text("namespace"))
            })
            && any(&self.kinds, |kind| kind.as_str() == text("kind"))
            && any(&self.winners, |winner| {
                !winner.is_empty() && (winner == text("winner") || winner == text("winner_cluster"))
            })
            && any(&self.ids, |id| id == text("_id"))
            && any(&self.statuses, |status| status.as_str() == text("status"))
            && any(&self.pipelines, |id| id.as_str() == text("pipeline"))
            && self.includes_key(record)
    }

    fn includes_key(&self, record: &RawDocument) -> bool {
        if self.keys.is_empty() {
            return true;
        }
        let key = record.get_document("document_key").ok();
        let key = key.and_then(|key| bson::Document::try_from(key).ok());
        key.is_some_and(|key| self.keys.iter().any(|typed| names_key(typed, key.clone())))
    }

    fn includes_time(&self, record: &RawDocument) -> bool {
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        record.get_datetime("logged_at").is_ok_and(|at| {
            self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
        })
    }
}

fn any<T>(wanted: &[T], is: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(is)
}

fn names_key(typed: &str, key: bson::Document) -> bool {
    let id = key.get("_id").cloned();
    let is_text = match &id {
        Some(Bson::String(text)) => wildcard_matches(typed, text),
        Some(Bson::ObjectId(id)) => wildcard_matches(typed, &id.to_hex()),
        _ => false,
    };
    let Ok(json) = serde_json::from_str::<serde_json::Value>(typed) else {
        return is_text;
    };
    let both = [id, Some(Bson::Document(key))];
    let mut forms = both.into_iter().flatten().flat_map(|value| {
        let relaxed = value.clone().into_relaxed_extjson();
        [value.into_canonical_extjson(), relaxed]
    });
    is_text || forms.any(|form| form == json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn matches(filter: RecordFilter) -> bool {
        filter.matches(&rawdoc! {
            "_id": "0a",
            "logged_at": DateTime::from_millis(1000),
            "pipeline": "a-to-b",
            "namespace": "shop.orders",
            "document_key": { "_id": "order-7" },
            "kind": "insert_exists",
            "winner": "eu",
            "winner_cluster": "a",
            "status": "logged",
        })
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| text.to_string()).collect()
    }

    #[test]
    fn one_filter_given_twice_means_or() {
        assert!(matches(RecordFilter {
            namespaces: texts(&["shop.items", "shop.o*"]),
            ..Default::default()
        }));
        assert!(matches(RecordFilter {
            kinds: vec![ConflictKind::Ddl, ConflictKind::InsertExists],
            ..Default::default()
        }));
    }

    #[test]
    fn different_filters_mean_and() {
        assert!(!matches(RecordFilter {
            namespaces: texts(&["shop.orders"]),
            kinds: vec![ConflictKind::Ddl],
            ..Default::default()
        }));
    }

    #[test]
    fn since_is_included_and_until_is_not() {
        let at = |since: Option<i64>, until: Option<i64>| {
            matches(RecordFilter {
                since: since.map(DateTime::from_millis),
                until: until.map(DateTime::from_millis),
                ..Default::default()
            })
        };
        assert!(at(Some(1000), None));
        assert!(!at(Some(1001), None));
        assert!(at(None, Some(1001)));
        assert!(!at(None, Some(1000)));
    }

    #[test]
    fn a_winner_is_found_by_name_and_by_side() {
        for (winner, expected) in [("eu", true), ("a", true), ("us", false), ("b", false)] {
            let filter = RecordFilter {
                winners: texts(&[winner]),
                ..Default::default()
            };
            assert_eq!(matches(filter), expected, "{winner}");
        }
    }

    #[test]
    fn ids_statuses_and_pipelines_are_matched() {
        assert!(matches(RecordFilter::of_id("0a")));
        assert!(!matches(RecordFilter::of_id("0b")));
        assert!(!matches(RecordFilter {
            statuses: vec![RecordStatus::Restored],
            ..Default::default()
        }));
        assert!(!matches(RecordFilter {
            pipelines: vec![PipelineId::BToA],
            ..Default::default()
        }));
    }

    #[test]
    fn a_key_is_found_as_it_is_shown_and_as_it_is_typed() {
        let of = |id: bson::RawBson, typed: &str| {
            let filter = RecordFilter {
                keys: texts(&[typed]),
                ..Default::default()
            };
            filter.matches(&rawdoc! { "document_key": { "_id": id } })
        };
        let oid = bson::oid::ObjectId::from_bytes([0xAB; 12]);
        for (id, typed, expected) in [
            ("order-7".into(), "order-7", true),
            ("order-7".into(), "order-*", true),
            ("order-7".into(), "\"order-7\"", true),
            ("order-7".into(), r#"{"_id": "order-7"}"#, true),
            ("order-7".into(), "order-8", false),
            (7_i64.into(), "7", true),
            (7.into(), r#"{"_id":{"$numberInt":"7"}}"#, true),
            (7.into(), r#"{"$numberLong":"7"}"#, false),
            (7.into(), "8", false),
            (
                bson::RawBson::ObjectId(oid),
                "abababababababababababab",
                true,
            ),
            (
                bson::RawBson::ObjectId(oid),
                r#"{"$oid":"abababababababababababab"}"#,
                true,
            ),
            (
                rawdoc! { "a": 1, "b": 2 }.into(),
                r#"{"a": 1, "b": 2}"#,
                true,
            ),
        ] {
            assert_eq!(of(id, typed), expected, "{typed}");
        }
        let of_ddl = rawdoc! { "document_key": bson::RawBson::Null };
        let filter = RecordFilter {
            keys: texts(&["*"]),
            ..Default::default()
        };
        assert!(!filter.matches(&of_ddl));
    }

    #[test]
    fn a_filter_survives_json() {
        let filter = RecordFilter {
            since: Some(DateTime::from_millis(1)),
            namespaces: texts(&["shop.*"]),
            kinds: vec![ConflictKind::DeadLetter],
            statuses: vec![RecordStatus::Logged],
            keys: texts(&["7"]),
            pipelines: vec![PipelineId::AToB],
            ..Default::default()
        };
        let json = serde_json::to_string(&filter).unwrap();
        assert_eq!(
            serde_json::from_str::<RecordFilter>(&json).unwrap(),
            filter,
            "{json}"
        );
        assert_eq!(
            serde_json::from_str::<RecordFilter>("{}").unwrap(),
            Default::default()
        );
    }
}
