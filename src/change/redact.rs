//! Values that must not be on record, taken out of a record before it is stored anywhere. Pure.

use std::collections::BTreeMap;

use bson::spec::ElementType;
use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr, rawdoc};

use super::raw::{DEPTH_MAX, RawElement, document_of, elements, renamed};
use super::{ConflictKind, wildcard_matches};

/// The one field of a value's marker: it holds the type of what was there.
pub const MARKER: &str = "__redacted";
/// Paths that a record names; further ones are redacted all the same.
const PATHS_MAX: usize = 100;
/// An event's parts that are whole documents.
const WHOLE: [&str; 2] = ["fullDocument", "fullDocumentBeforeChange"];

/// Which fields are redacted: dotted paths from the top of a document, where `*` stands for any
/// text, dots too, and `*.name` for the name at any depth, the top included. Elements of arrays count
/// by the path of their array. A document's `_id` is never redacted: it is its key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redaction(Vec<String>);

impl Redaction {
    pub fn new(patterns: &[String]) -> Self {
        Self(patterns.to_vec())
    }

    /// Whether a field is redacted, by its path.
    pub fn is_about(&self, path: &str) -> bool {
        let matches = |pattern: &String| {
            let anywhere = pattern.strip_prefix("*.");
            wildcard_matches(pattern, path)
                || anywhere.is_some_and(|name| wildcard_matches(name, path))
        };
        self.0.iter().any(matches)
    }

    /// The record without what must not be on it. It names what is missing in `redacted`: `path`,
    /// and whether both versions differed there, null where there was one version only.
    pub fn record(&self, record: &RawDocument) -> RawDocumentBuf {
        if self.0.is_empty() {
            return record.to_owned();
        }
        let is_ddl = record
            .get_str("kind")
            .is_ok_and(|kind| kind == ConflictKind::Ddl.as_str());
        let depth = match is_ddl {
            true => Reach::AnyDepth,
            false => Reach::FromTheTop,
        };
        let mut versions = [Found::new(), Found::new()];
        let mut elsewhere = Found::new();
        let [winning, losing] = &mut versions;
        let changed = mapped(record, |part| match part.name {
            "winning" => Some(self.side(part, depth, winning, &mut elsewhere)),
            "losing" => Some(self.side(part, depth, losing, &mut elsewhere)),
            _ => None,
        });
        let paths = paths(&versions, &elsewhere);
        if paths.is_empty() {
            return changed;
        }
        let mut array = RawArrayBuf::new();
        for (path, differs) in paths.into_iter().take(PATHS_MAX) {
            let differs = differs.map_or(bson::RawBson::Null, bson::RawBson::Boolean);
            array.push(rawdoc! { "path": path, "differs": differs });
        }
        let mut changed = changed;
        changed.append(cstr!("redacted"), array);
        changed
    }

    /// `winning` or `losing` of a record.
    fn side(
        &self,
        part: &RawElement<'_>,
        reach: Reach,
        found: &mut Found,
        elsewhere: &mut Found,
    ) -> Vec<u8> {
        within(part, |field| match field.name {
            "document" => Some(self.document(field, Reach::FromTheTop, found)),
            "change" => Some(within(field, |field| match field.name {
                name if WHOLE.contains(&name) => {
                    Some(self.document(field, Reach::FromTheTop, elsewhere))
                }
                "updateDescription" => Some(within(field, |field| match field.name {
                    "updatedFields" => Some(self.document(field, Reach::FromTheTop, elsewhere)),
                    _ => None,
                })),
                "rawUpdateDescription" => Some(within(field, |field| match field.name {
                    "diff" => Some(self.diff("", field, 0, elsewhere)),
                    _ => None,
                })),
                "operationDescription" => Some(self.document(field, reach, elsewhere)),
                _ => None,
            })),
            _ => None,
        })
    }

    fn document(&self, field: &RawElement<'_>, reach: Reach, found: &mut Found) -> Vec<u8> {
        within(field, |field| self.field("", field, reach, 0, found))
    }

    /// The field without what is redacted in it; none where it stays as it is.
    fn field(
        &self,
        above: &str,
        field: &RawElement<'_>,
        reach: Reach,
        depth: usize,
        found: &mut Found,
    ) -> Option<Vec<u8>> {
        if above.is_empty() && (field.name == "_id" || field.name.starts_with("_id.")) {
            return None;
        }
        let path = match above {
            "" => field.name.to_owned(),
            above => format!("{above}.{}", field.name),
        };
        if self.reaches(&path, reach) {
            let (kind, value) = field.kind_and_value();
            let content = found.entry(without_numbers(&path)).or_default();
            content.push(kind);
            content.extend_from_slice(value);
            return Some(marked(field.name, kind));
        }
        // The directions of an index are no values of documents.
        if reach == Reach::AnyDepth && field.name == "key" {
            return None;
        }
        self.inner(&path, field, reach, depth, found)
    }

    /// The server's own form of an update: `u` and `i` hold fields, `s` and a name the diff of what is
    /// in that field; of an array, `u` and `s` stand before a place.
    fn diff(&self, path: &str, field: &RawElement<'_>, depth: usize, found: &mut Found) -> Vec<u8> {
        let (kind, value) = field.kind_and_value();
        if depth >= DEPTH_MAX {
            return marked(field.name, kind);
        }
        let reach = Reach::FromTheTop;
        let is_array =
            RawDocument::from_bytes(value).is_ok_and(|diff| matches!(diff.get("a"), Ok(Some(_))));
        within(field, |part| match (is_array, part.name) {
            (false, "u" | "i") => Some(within(part, |field| {
                self.field(path, field, reach, depth + 1, found)
            })),
            (true, name) if name.starts_with('u') => {
                self.inner(path, part, reach, depth + 1, found)
            }
            (true, name) if name.starts_with('s') => Some(self.diff(path, part, depth + 1, found)),
            (false, name) => {
                let name = name.strip_prefix('s')?;
                let path = match path {
                    "" => name.to_owned(),
                    above => format!("{above}.{name}"),
                };
                if !self.reaches(&path, reach) {
                    return Some(self.diff(&path, part, depth + 1, found));
                }
                let (kind, value) = part.kind_and_value();
                found
                    .entry(without_numbers(&path))
                    .or_default()
                    .extend_from_slice(value);
                Some(marked(part.name, kind))
            }
            (true, _) => None,
        })
    }

    fn inner(
        &self,
        path: &str,
        field: &RawElement<'_>,
        reach: Reach,
        depth: usize,
        found: &mut Found,
    ) -> Option<Vec<u8>> {
        let (kind, value) = field.kind_and_value();
        let is_array = match ElementType::from(kind) {
            Some(ElementType::EmbeddedDocument) => false,
            Some(ElementType::Array) => true,
            _ => return None,
        };
        let parts = RawDocument::from_bytes(value).ok();
        let parts = parts.filter(|_| depth < DEPTH_MAX);
        // What cannot be looked into may hold anything.
        let Some(parts) = parts.and_then(|parts| elements(parts).ok()) else {
            found
                .entry(without_numbers(path))
                .or_default()
                .extend_from_slice(value);
            return Some(marked(field.name, kind));
        };
        let kept = parts.iter().map(|part| {
            let changed = match is_array {
                true => self.inner(path, part, reach, depth + 1, found),
                false => self.field(path, part, reach, depth + 1, found),
            };
            changed.unwrap_or_else(|| part.bytes.to_vec())
        });
        let kept: Vec<Vec<u8>> = kept.collect();
        let inner = document_of(kept.iter().map(Vec::as_slice));
        Some(element(field.name, kind, inner.as_bytes()))
    }

    /// A name may hold dots: an update names `card.number`, and so may a field be called. Numbers in
    /// it may be places in an array.
    fn reaches(&self, path: &str, reach: Reach) -> bool {
        let forms = [path.to_owned(), without_numbers(path)];
        forms.iter().any(|path| {
            let names: Vec<&str> = path.split('.').collect();
            let ends = 1..=names.len();
            let mut starts = match reach {
                Reach::FromTheTop => 0..1,
                Reach::AnyDepth => 0..names.len(),
            };
            starts.any(|start| {
                let mut ends = ends.clone().filter(|end| *end > start);
                ends.any(|end| self.is_about(&names[start..end].join(".")))
            })
        })
    }
}

/// Where in a document a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    FromTheTop,
    /// Validators, views and filters of indexes name fields anywhere.
    AnyDepth,
}

/// What was taken out, by path: types and values, to be compared and then thrown away.
type Found = BTreeMap<String, Vec<u8>>;

fn paths(versions: &[Found; 2], elsewhere: &Found) -> Vec<(String, Option<bool>)> {
    let [winning, losing] = versions;
    let mut paths: BTreeMap<&String, Option<bool>> = BTreeMap::new();
    for path in winning.keys().chain(losing.keys()) {
        let both_had_one = !winning.is_empty() && !losing.is_empty();
        let differs = both_had_one.then(|| winning.get(path) != losing.get(path));
        paths.insert(path, differs);
    }
    for path in elsewhere.keys() {
        paths.entry(path).or_insert(None);
    }
    paths
        .into_iter()
        .map(|(path, differs)| (path.clone(), differs))
        .collect()
}

fn without_numbers(path: &str) -> String {
    let is_number = |name: &&str| name.bytes().all(|byte| byte.is_ascii_digit());
    let mut names = path.split('.');
    let first = names.next().unwrap_or_default();
    names
        .filter(|name| !is_number(name))
        .fold(first.to_owned(), |path, name| format!("{path}.{name}"))
}

/// A field of the same name that says what type it had.
fn marked(name: &str, kind: u8) -> Vec<u8> {
    let kind = ElementType::from(kind);
    let kind = kind.map_or_else(|| "unknown".to_owned(), type_name);
    let mut marker = RawDocumentBuf::new();
    marker.append(cstr!("__redacted"), kind.as_str());
    element(name, ElementType::EmbeddedDocument as u8, marker.as_bytes())
}

/// As the server's `$type` calls it, where that differs from the driver's word.
fn type_name(kind: ElementType) -> String {
    let name = match kind {
        ElementType::Double => "double",
        ElementType::String => "string",
        ElementType::EmbeddedDocument => "object",
        ElementType::Array => "array",
        ElementType::Binary => "binData",
        ElementType::ObjectId => "objectId",
        ElementType::Boolean => "bool",
        ElementType::DateTime => "date",
        ElementType::Null => "null",
        ElementType::RegularExpression => "regex",
        ElementType::Int32 => "int",
        ElementType::Timestamp => "timestamp",
        ElementType::Int64 => "long",
        ElementType::Decimal128 => "decimal",
        ElementType::MinKey => "minKey",
        ElementType::MaxKey => "maxKey",
        other => return format!("{other:?}").to_lowercase(),
    };
    name.to_owned()
}

fn element(name: &str, kind: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len() + value.len() + 2);
    bytes.push(kind);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(value);
    bytes
}

/// The document with some of its elements replaced; a broken one becomes a marker as a whole.
fn mapped(
    document: &RawDocument,
    mut change: impl FnMut(&RawElement<'_>) -> Option<Vec<u8>>,
) -> RawDocumentBuf {
    let Ok(parts) = elements(document) else {
        return rawdoc! { "__redacted": "unreadable" };
    };
    let parts = parts
        .iter()
        .map(|part| change(part).unwrap_or_else(|| part.bytes.to_vec()));
    let parts: Vec<Vec<u8>> = parts.collect();
    document_of(parts.iter().map(Vec::as_slice))
}

/// The same for a field that is a document; any other stays.
fn within(
    field: &RawElement<'_>,
    change: impl FnMut(&RawElement<'_>) -> Option<Vec<u8>>,
) -> Vec<u8> {
    let (kind, value) = field.kind_and_value();
    let inner = match ElementType::from(kind) {
        Some(ElementType::EmbeddedDocument) => RawDocument::from_bytes(value),
        _ => return renamed(field, field.name),
    };
    let inner = inner.map_or_else(
        |_| rawdoc! { "__redacted": "unreadable" },
        |inner| mapped(inner, change),
    );
    element(field.name, kind, inner.as_bytes())
}

/// Paths of what is missing from the document that lost, as its record names them.
///
/// Empty where the document is whole.
pub fn redacted_of_loser(record: &RawDocument) -> Vec<String> {
    let losing = record.get_document("losing").ok();
    let document = losing.and_then(|losing| losing.get_document("document").ok());
    let mut paths = Vec::new();
    if let Some(document) = document {
        gather("", document, 0, &mut paths);
    }
    paths
}

fn gather(above: &str, document: &RawDocument, depth: usize, paths: &mut Vec<String>) {
    for element in document.iter_elements().map_while(Result::ok) {
        let name = element.key().as_str();
        let path = match (above, name.parse::<usize>()) {
            ("", _) => name.to_owned(),
            (above, Ok(_)) => above.to_owned(),
            (above, Err(_)) => format!("{above}.{name}"),
        };
        let inner = match element.value() {
            Ok(bson::RawBsonRef::Document(inner)) => inner,
            Ok(bson::RawBsonRef::Array(array)) => match RawDocument::from_bytes(array.as_bytes()) {
                Ok(inner) => inner,
                Err(_) => continue,
            },
            _ => continue,
        };
        if is_marker(inner) {
            if !paths.contains(&path) && paths.len() < PATHS_MAX {
                paths.push(path);
            }
        } else if depth < DEPTH_MAX {
            gather(&path, inner, depth + 1, paths);
        }
    }
}

fn is_marker(document: &RawDocument) -> bool {
    let mut names = document.iter_elements().map_while(Result::ok);
    let first = names.next();
    first.is_some_and(|first| first.key().as_str() == MARKER) && names.next().is_none()
}

#[cfg(test)]
mod tests;
