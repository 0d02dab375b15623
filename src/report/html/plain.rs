//! Canonical extended JSON as people read it: numbers, times and ids without what wraps them.

use bson::DateTime;
use serde_json::Value;

use crate::change::rfc3339;
use crate::report::fields::{Differs, Field};

type Show = fn(&str) -> String;

/// What stands before a value, what after it, and what is shown. A text within JSON cannot hold the
/// first: its quotes are escaped there.
const WRAPPED: [(&str, &str, Show); 7] = [
    (r#"{"$numberInt":""#, r#""}"#, str::to_owned),
    (r#"{"$numberLong":""#, r#""}"#, str::to_owned),
    (r#"{"$numberDouble":""#, r#""}"#, str::to_owned),
    (r#"{"$numberDecimal":""#, r#""}"#, str::to_owned),
    (r#"{"$date":{"$numberLong":""#, r#""}}"#, moment),
    (r#"{"$oid":""#, r#""}"#, |id| format!("ObjectId({id})")),
    (r#"{"__redacted":""#, r#""}"#, |kind| {
        format!("(redacted {kind})")
    }),
];

fn moment(ms: &str) -> String {
    let ms = ms.parse().map(DateTime::from_millis);
    ms.map_or_else(|_| "(no date)".to_owned(), rfc3339)
}

/// A value, or the beginning of one.
pub(super) fn readable(canonical: &str) -> String {
    let mut out = String::with_capacity(canonical.len());
    let mut rest = canonical;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let unwrapped = WRAPPED.iter().find_map(|(start, end, show)| {
            let (value, after) = from.strip_prefix(start)?.split_once(end)?;
            Some((show(value), after))
        });
        let (shown, after) = unwrapped.unwrap_or_else(|| ("{".to_owned(), &from[1..]));
        out.push_str(&shown);
        rest = after;
    }
    out + rest
}

/// Both sides of a field; as they are where they differ in nothing but their types.
pub(super) fn sides(row: &Field) -> [Option<String>; 2] {
    let [losing, winning] = [&row.losing, &row.winning].map(|value| value.as_deref().map(readable));
    if row.differs == Differs::Changed && losing == winning {
        return [row.losing.clone(), row.winning.clone()];
    }
    [losing, winning]
}

/// A document's key; of one that is `_id` alone, its value.
pub(super) fn key(canonical: &str) -> String {
    let fields = match serde_json::from_str(canonical) {
        Ok(Value::Object(fields)) if fields.len() == 1 => fields,
        Ok(_) | Err(_) => return readable(canonical),
    };
    let Some(id) = fields.get("_id") else {
        return readable(canonical);
    };
    if let Some(text) = id.as_str().or_else(|| id["$oid"].as_str()) {
        return text.to_owned();
    }
    let shown = readable(canonical);
    let alone = shown.strip_prefix(r#"{"_id":"#);
    let alone = alone.and_then(|id| id.strip_suffix('}'));
    alone.unwrap_or(&shown).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_without_what_wraps_them() {
        for (canonical, shown) in [
            (r#"{"$numberInt":"-5"}"#, "-5"),
            (
                r#"[{"$numberDouble":"NaN"},{"a":{"$numberLong":"7"}}]"#,
                r#"[NaN,{"a":7}]"#,
            ),
            (
                r#"{"$date":{"$numberLong":"1700000000000"}}"#,
                "2023-11-14T22:13:20.000Z",
            ),
            (r#"{"$oid":"0a0b"}"#, "ObjectId(0a0b)"),
            (r#"{"__redacted":"string"}"#, "(redacted string)"),
            (r#""{\"$numberInt\":\"1\"}""#, r#""{\"$numberInt\":\"1\"}""#),
            (
                r#"{"$numberInt":"1… (20 bytes)"#,
                r#"{"$numberInt":"1… (20 bytes)"#,
            ),
            (r#"{"$minKey":1} {"#, r#"{"$minKey":1} {"#),
        ] {
            assert_eq!(readable(canonical), shown, "{canonical}");
        }
    }

    #[test]
    fn what_differs_in_its_type_alone_keeps_it() {
        let field = |losing: &str, winning: &str| Field {
            path: "x".into(),
            differs: Differs::Changed,
            losing: Some(losing.into()),
            winning: Some(winning.into()),
        };
        let (int, long) = (r#"{"$numberInt":"1"}"#, r#"{"$numberLong":"1"}"#);
        assert_eq!(
            sides(&field(int, long)),
            [Some(int.to_owned()), Some(long.to_owned())]
        );
        let two = r#"{"$numberInt":"2"}"#;
        assert_eq!(
            sides(&field(int, two)),
            ["1", "2"].map(|one| Some(one.to_owned()))
        );
    }

    #[test]
    fn a_key_of_an_id_alone_is_its_value() {
        for (canonical, shown) in [
            (r#"{"_id":"order-7"}"#, "order-7"),
            (r#"{"_id":{"$numberInt":"7"}}"#, "7"),
            (r#"{"_id":{"$oid":"0a0b"}}"#, "0a0b"),
            (
                r#"{"region":"eu","_id":{"$numberInt":"7"}}"#,
                r#"{"region":"eu","_id":7}"#,
            ),
            (r#"{"_id":"a long o"#, r#"{"_id":"a long o"#),
            ("", ""),
        ] {
            assert_eq!(key(canonical), shown, "{canonical}");
        }
    }
}
