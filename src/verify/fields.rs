//! In which fields two versions of a document differ.

use bson::RawDocument;
use bson::spec::ElementType;
use serde::{Deserialize, Serialize};

use crate::change::{RawElement, elements};

/// Fields named for one document; of a wide document that differs throughout, more help nobody.
const FIELDS_MAX: usize = 20;

/// How deep sub-documents are compared field by field.
const DEPTH_MAX: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    MissingOnA,
    MissingOnB,
    Value,
    /// Another BSON type, such as 1 and 1.0.
    Type,
    /// The same fields in another order.
    Order,
}

impl FieldKind {
    pub fn as_str(self) -> &'static str {
        match self {
            FieldKind::MissingOnA => "missing on a",
            FieldKind::MissingOnB => "missing on b",
            FieldKind::Value => "value",
            FieldKind::Type => "type",
            FieldKind::Order => "order",
        }
    }
}

/// A field by its path; the empty path is the document itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldDifference {
    pub path: String,
    pub kind: FieldKind,
}

/// The fields in which two documents differ, sub-documents field by field; none where they are
/// equal byte for byte. At most 20.
pub fn differing_fields(a: &RawDocument, b: &RawDocument) -> Vec<FieldDifference> {
    let mut found = Vec::new();
    compare(a, b, "", 0, &mut found);
    found.truncate(FIELDS_MAX);
    found
}

fn compare(
    a: &RawDocument,
    b: &RawDocument,
    path: &str,
    depth: usize,
    found: &mut Vec<FieldDifference>,
) {
    if a.as_bytes() == b.as_bytes() || found.len() >= FIELDS_MAX {
        return;
    }
    let (Ok(in_a), Ok(in_b)) = (elements(a), elements(b)) else {
        return found.push(FieldDifference {
            path: path.to_owned(),
            kind: FieldKind::Value,
        });
    };
    let before = found.len();
    let mut left: Vec<&RawElement<'_>> = in_b.iter().collect();
    for field in &in_a {
        let here = joined(path, field.name);
        // A name may stand in a document more than once.
        match left.iter().position(|other| other.name == field.name) {
            None => found.push(FieldDifference {
                path: here,
                kind: FieldKind::MissingOnB,
            }),
            Some(at) => {
                let other = left.remove(at);
                compare_field(field, other, here, depth, found);
            }
        }
    }
    for field in left {
        found.push(FieldDifference {
            path: joined(path, field.name),
            kind: FieldKind::MissingOnA,
        });
    }
    if found.len() == before {
        found.push(FieldDifference {
            path: path.to_owned(),
            kind: FieldKind::Order,
        });
    }
}

fn compare_field(
    a: &RawElement<'_>,
    b: &RawElement<'_>,
    path: String,
    depth: usize,
    found: &mut Vec<FieldDifference>,
) {
    if a.bytes == b.bytes {
        return;
    }
    let ((kind_a, value_a), (kind_b, value_b)) = (a.kind_and_value(), b.kind_and_value());
    if kind_a != kind_b {
        return found.push(FieldDifference {
            path,
            kind: FieldKind::Type,
        });
    }
    let nested = ElementType::from(kind_a) == Some(ElementType::EmbeddedDocument);
    if nested && depth < DEPTH_MAX {
        let parts = (
            RawDocument::from_bytes(value_a),
            RawDocument::from_bytes(value_b),
        );
        if let (Ok(a), Ok(b)) = parts {
            return compare(a, b, &path, depth + 1, found);
        }
    }
    found.push(FieldDifference {
        path,
        kind: FieldKind::Value,
    });
}

fn joined(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn shown(a: &RawDocument, b: &RawDocument) -> Vec<String> {
        let found = differing_fields(a, b);
        let shown = found
            .iter()
            .map(|field| format!("{}: {}", field.path, field.kind.as_str()));
        shown.collect()
    }

    #[test]
    fn each_field_is_named_with_what_is_different_about_it() {
        let a = rawdoc! { "_id": 1, "x": 1, "y": 1, "n": { "p": 1, "q": 2 }, "l": [1] };
        let b = rawdoc! { "_id": 1, "x": 2, "y": 1.0, "n": { "p": 1, "r": 2 }, "l": [2], "z": 1 };
        assert_eq!(
            shown(&a, &b),
            [
                "x: value",
                "y: type",
                "n.q: missing on b",
                "n.r: missing on a",
                "l: value",
                "z: missing on a"
            ]
        );
        assert!(shown(&a, &a).is_empty());
    }

    #[test]
    fn fields_in_another_order_are_told_apart_from_other_fields() {
        let (a, b) = (
            rawdoc! { "_id": 1, "x": 1, "y": 2 },
            rawdoc! { "_id": 1, "y": 2, "x": 1 },
        );
        assert_eq!(shown(&a, &b), [": order"]);
        let (a, b) = (
            rawdoc! { "n": { "x": 1, "y": 2 } },
            rawdoc! { "n": { "y": 2, "x": 1 } },
        );
        assert_eq!(shown(&a, &b), ["n: order"]);
    }

    #[test]
    fn a_wide_document_does_not_name_every_field() {
        let (mut a, mut b) = (bson::RawDocumentBuf::new(), bson::RawDocumentBuf::new());
        for at in 0..100 {
            let name = bson::raw::CString::try_from(format!("f{at}")).unwrap();
            a.append(&name, 1);
            b.append(&name, 2);
        }
        assert_eq!(differing_fields(&a, &b).len(), FIELDS_MAX);
    }
}
