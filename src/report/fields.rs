//! Two versions of a document, field by field.

use bson::RawBsonRef;
use bson::RawDocument;
use bson::raw::RawElement;
use serde::Serialize;

use super::extjson::canonical_value;

/// Documents have many fields, and a page shows only some.
const ROWS_MAX: usize = 500;
/// A value is shown up to here; JSON and CSV have all of it.
const VALUE_CHARS_MAX: usize = 2000;
/// Sub-documents are taken apart down to here.
const DEPTH_MAX: usize = 20;

/// How the two sides of a field stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Differs {
    Same,
    Changed,
    /// Only the losing version has the field.
    OnlyLosing,
    OnlyWinning,
}

/// A field by its dotted path, with its value as canonical extended JSON on each side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    pub path: String,
    pub differs: Differs,
    pub losing: Option<String>,
    pub winning: Option<String>,
}

/// The fields of both versions: in the order of the losing one, then what only the winning one has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Fields {
    pub rows: Vec<Field>,
    /// Fields past the bound.
    pub left_out: usize,
    /// All fields are the same and yet the bytes are not: their order differs.
    pub order_differs: bool,
}

/// `None` stands for no document.
pub fn compare(losing: Option<&RawDocument>, winning: Option<&RawDocument>) -> Fields {
    let mut fields = Fields::default();
    walk(&mut fields, "", losing, winning, 0);
    let same = fields.rows.iter().all(|row| row.differs == Differs::Same);
    let bytes = |document: Option<&RawDocument>| document.map(|found| found.as_bytes().to_vec());
    fields.order_differs = fields.left_out == 0 && same && bytes(losing) != bytes(winning);
    fields
}

type Elements<'a> = Vec<RawElement<'a>>;

fn elements(document: Option<&RawDocument>) -> Elements<'_> {
    let all = document.into_iter().flat_map(RawDocument::iter_elements);
    all.map_while(Result::ok).collect()
}

fn walk(
    fields: &mut Fields,
    above: &str,
    losing: Option<&RawDocument>,
    winning: Option<&RawDocument>,
    depth: usize,
) {
    let mut others = elements(winning);
    for one in elements(losing) {
        let name = one.key();
        let found = others.iter().position(|other| other.key() == name);
        let other = found.map(|at| others.remove(at));
        row(fields, above, Some(&one), other.as_ref(), depth);
    }
    for other in others {
        row(fields, above, None, Some(&other), depth);
    }
}

fn row(
    fields: &mut Fields,
    above: &str,
    losing: Option<&RawElement<'_>>,
    winning: Option<&RawElement<'_>>,
    depth: usize,
) {
    let Some(name) = losing.or(winning).map(|one| one.key().as_str()) else {
        return;
    };
    let path = match above {
        "" => name.to_owned(),
        above => format!("{above}.{name}"),
    };
    let document = |one: Option<&RawElement<'_>>| match one.and_then(|one| one.value().ok()) {
        Some(RawBsonRef::Document(document)) if depth < DEPTH_MAX => Some(document.to_owned()),
        _ => None,
    };
    if let (Some(one), Some(other)) = (document(losing), document(winning))
        && one != other
    {
        return walk(fields, &path, Some(&one), Some(&other), depth + 1);
    }
    if fields.rows.len() == ROWS_MAX {
        fields.left_out += 1;
        return;
    }
    let (one, other) = (losing.map(canonical_value), winning.map(canonical_value));
    let differs = match (&one, &other) {
        (Some(_), None) => Differs::OnlyLosing,
        (None, _) => Differs::OnlyWinning,
        (Some(one), Some(other)) if one == other => Differs::Same,
        (Some(_), Some(_)) => Differs::Changed,
    };
    fields.rows.push(Field {
        path,
        differs,
        losing: one.map(cut),
        winning: other.map(cut),
    });
}

fn cut(text: String) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn told(losing: &RawDocument, winning: &RawDocument) -> Vec<String> {
        let rows = compare(Some(losing), Some(winning)).rows;
        let told = |row: &Field| {
            let (one, other) = (row.losing.as_deref(), row.winning.as_deref());
            let (one, other) = (one.unwrap_or("-"), other.unwrap_or("-"));
            format!("{} {:?} {one} {other}", row.path, row.differs)
        };
        rows.iter().map(told).collect()
    }

    #[test]
    fn differing_fields_are_told_from_equal_ones_down_to_the_leaves() {
        let losing = rawdoc! { "_id": 1, "x": 1, "at": { "p": 1, "q": "same" }, "gone": true };
        let winning = rawdoc! { "_id": 1, "x": 1_i64, "at": { "p": 2, "q": "same" }, "new": [1] };
        assert_eq!(
            told(&losing, &winning),
            [
                r#"_id Same {"$numberInt":"1"} {"$numberInt":"1"}"#,
                r#"x Changed {"$numberInt":"1"} {"$numberLong":"1"}"#,
                r#"at.p Changed {"$numberInt":"1"} {"$numberInt":"2"}"#,
                r#"at.q Same "same" "same""#,
                "gone OnlyLosing true -",
                r#"new OnlyWinning - [{"$numberInt":"1"}]"#,
            ]
        );
    }

    #[test]
    fn fields_of_one_name_are_paired_in_their_order() {
        let twice = |one: i32, other: i32| {
            let mut document = rawdoc! { "x": one };
            document.append(bson::cstr!("x"), other);
            document
        };
        let rows = compare(Some(&twice(1, 2)), Some(&twice(1, 3))).rows;
        let differs: Vec<Differs> = rows.iter().map(|row| row.differs).collect();
        assert_eq!(differs, [Differs::Same, Differs::Changed]);
    }

    #[test]
    fn another_order_is_a_difference_too() {
        let (one, other) = (rawdoc! { "x": 1, "y": 2 }, rawdoc! { "y": 2, "x": 1 });
        assert!(compare(Some(&one), Some(&other)).order_differs);
        assert!(!compare(Some(&one), Some(&one)).order_differs);
    }

    #[test]
    fn rows_and_values_have_a_bound_that_is_told() {
        let mut large = rawdoc! { "text": "x".repeat(10 * VALUE_CHARS_MAX) };
        for at in 0..ROWS_MAX {
            large.append(bson::raw::CString::try_from(format!("f{at}")).unwrap(), 1);
        }
        let fields = compare(Some(&large), None);
        assert_eq!((fields.rows.len(), fields.left_out), (ROWS_MAX, 1));
        assert!(
            fields.rows[0]
                .losing
                .as_ref()
                .unwrap()
                .ends_with("(20002 bytes)")
        );
    }
}
