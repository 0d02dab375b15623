//! From the raw description of an update to statements that make the same bytes of the same document.
//!
//! The description is the oplog's own difference: fields deleted (`d`), updated in place (`u`),
//! inserted at the end (`i`), and differences of a field's value (`s` before its name); of an array
//! also its new length (`l`). Unlike `updateDescription` it tells a nested path from a dotted name,
//! and a field in its place from one that moved to the end.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, rawdoc};
use smallvec::SmallVec;

use super::statements::FRAME_BYTES;
use crate::change::{ChangeEvent, DEPTH_MAX, DocumentKey, RawElement, RawWriter, each_element};

/// The statements of an update event, to be run in order; none where only full state will do.
pub fn update_statements(event: &ChangeEvent) -> Option<SmallVec<[RawDocumentBuf; 1]>> {
    let mut delta = Delta::default();
    delta.read(event.difference()?, "", 0)?;
    let steps = delta.steps();
    let statements = steps.iter().map(|step| step.statement(&event.key));
    (!steps.is_empty()).then(|| statements.collect())
}

/// One statement to come: fields removed and then set, or a list cut.
#[derive(Debug, Clone, Copy, Default)]
struct Step<'d, 'a> {
    removed: &'d [Cow<'a, str>],
    cut: Option<(&'d str, i32)>,
    set: &'d [Field<'a>],
}

/// A field under its whole path.
#[derive(Debug)]
struct Field<'a> {
    path: Cow<'a, str>,
    element: RawElement<'a>,
    is_new: bool,
}

#[derive(Debug, Default)]
struct Delta<'a> {
    removed: Vec<Cow<'a, str>>,
    truncated: Vec<(Cow<'a, str>, i32)>,
    set: SmallVec<[Field<'a>; 4]>,
}

impl<'a> Delta<'a> {
    fn read(&mut self, difference: &'a RawDocument, above: &str, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        if matches!(difference.get("a"), Ok(Some(a)) if a.as_bool() == Some(true)) {
            return self.read_array(difference, above, depth);
        }
        for part in each_element(difference) {
            let part = part.ok()?;
            match part.name {
                "d" => {
                    for field in each_element(part.document()?) {
                        self.removed.push(join(above, field.ok()?.name)?);
                    }
                }
                "u" | "i" => {
                    for field in each_element(part.document()?) {
                        let field = field.ok()?;
                        self.push(join(above, field.name)?, &field, part.name == "i");
                    }
                }
                name => {
                    let below = join(above, name.strip_prefix('s')?)?;
                    self.read(part.document()?, &below, depth + 1)?;
                }
            }
        }
        Some(())
    }

    fn read_array(&mut self, difference: &'a RawDocument, above: &str, depth: usize) -> Option<()> {
        for part in each_element(difference) {
            let part = part.ok()?;
            match part.name {
                "a" => {}
                "l" => self
                    .truncated
                    .push((above.to_owned().into(), difference.get_i32("l").ok()?)),
                name if name.starts_with('u') => {
                    self.push(join(above, &name[1..])?, &part, false);
                }
                name => {
                    let below = join(above, name.strip_prefix('s')?)?;
                    self.read(part.document()?, &below, depth + 1)?;
                }
            }
        }
        Some(())
    }

    fn push(&mut self, path: Cow<'a, str>, element: &RawElement<'a>, is_new: bool) {
        self.set.push(Field {
            path,
            element: *element,
            is_new,
        });
    }

    fn steps(&self) -> SmallVec<[Step<'_, 'a>; 1]> {
        let mut runs = self.set.chunk_by(in_order).peekable();
        let mut steps = SmallVec::new();
        let mut first = Step {
            removed: &self.removed,
            ..Step::default()
        };
        if self.truncated.is_empty() {
            let removed: BTreeSet<&str> = self.removed.iter().map(AsRef::as_ref).collect();
            let stays =
                |field: &Field<'_>| removed.is_empty() || !overlaps_any(&field.path, &removed);
            let together = runs.next_if(|run| run.iter().all(stays));
            first.set = together.unwrap_or_default();
        }
        if !first.removed.is_empty() || !first.set.is_empty() {
            steps.push(first);
        }
        steps.extend(self.truncated.iter().map(|(path, length)| Step {
            cut: Some((path, *length)),
            ..Step::default()
        }));
        steps.extend(runs.map(|set| Step {
            set,
            ..Step::default()
        }));
        steps
    }
}

impl Step<'_, '_> {
    /// An update by operators. It matches nothing where a new field is there already: that one has
    /// moved to the end, which no operator does, and full state is sent instead.
    fn statement(&self, key: &DocumentKey) -> RawDocumentBuf {
        let room = |field: &Field<'_>| 2 * field.path.len() + field.element.bytes.len();
        let fields: usize = self.set.iter().map(room).sum();
        let mut statement =
            RawWriter::with_room(key.raw().as_bytes().len() + fields + 2 * FRAME_BYTES);
        statement.open("q");
        statement.elements_of(key.raw());
        for field in self.set.iter().filter(|field| field.is_new) {
            statement.open(&field.path);
            statement.flag("$exists", false);
            statement.close();
        }
        statement.close();
        statement.open("u");
        self.write_operators(&mut statement);
        statement.close();
        statement.finish()
    }

    fn write_operators(&self, statement: &mut RawWriter) {
        if !self.removed.is_empty() {
            statement.open("$unset");
            for path in self.removed {
                statement.empty_text(path);
            }
            statement.close();
        }
        if let Some((path, length)) = self.cut {
            statement.open("$push");
            let slice = rawdoc! { "$each": RawArrayBuf::new(), "$slice": length };
            statement.document(path, &slice);
            statement.close();
        }
        if !self.set.is_empty() {
            statement.open("$set");
            for field in self.set {
                statement.element(&field.path, &field.element);
            }
            statement.close();
        }
    }
}

/// A path of one more component; none where operators cannot reach it.
fn join<'a>(above: &str, below: &'a str) -> Option<Cow<'a, str>> {
    if below.is_empty() || below.starts_with('$') || below.contains('.') {
        return None;
    }
    Some(match above {
        "" => below.into(),
        _ => format!("{above}.{below}").into(),
    })
}

/// Whether one path is the other one, or leads through it.
fn overlap(one: &str, other: &str) -> bool {
    let leads = |short: &str, long: &str| {
        long.strip_prefix(short)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    leads(one, other) || leads(other, one)
}

/// Whether one of many paths is this one, leads through it, or is led through by it.
fn overlaps_any(path: &str, others: &BTreeSet<&str>) -> bool {
    let mut above = path.match_indices('.').map(|(dot, _)| &path[..dot]);
    let below = format!("{path}.");
    let mut from_below =
        others.range::<str, _>((Bound::Included(below.as_str()), Bound::Unbounded));
    others.contains(path)
        || above.any(|part| others.contains(part))
        || from_below
            .next()
            .is_some_and(|other| other.starts_with(&below))
}

/// Whether `$set` adds the two fields in the order they stand in. It goes by name, not by place.
fn in_order(one: &Field<'_>, next: &Field<'_>) -> bool {
    compare_paths(&one.path, &next.path) == Ordering::Less && !overlap(&one.path, &next.path)
}

/// The order in which the server walks update paths: numbers as numbers, names as bytes.
fn compare_paths(one: &str, other: &str) -> Ordering {
    let mut right = other.split('.');
    for left in one.split('.') {
        let Some(right) = right.next() else {
            return Ordering::Greater;
        };
        match compare_components(left, right) {
            Ordering::Equal => {}
            unequal => return unequal,
        }
    }
    match right.next() {
        Some(_) => Ordering::Less,
        None => Ordering::Equal,
    }
}

fn compare_components(one: &str, other: &str) -> Ordering {
    match (one.parse::<u64>(), other.parse::<u64>()) {
        (Ok(left), Ok(right)) => left.cmp(&right),
        _ => one.cmp(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Namespace;

    /// What the statements do (`u`) where (`q`).
    fn steps(difference: RawDocumentBuf) -> Option<Vec<(RawDocumentBuf, RawDocumentBuf)>> {
        let key = DocumentKey::of(&Namespace::new("shop", "orders"), &rawdoc! { "_id": 1 });
        let mut delta = Delta::default();
        delta.read(&difference, "", 0)?;
        let statement = |step: &Step<'_, '_>| {
            let statement = step.statement(key.as_ref().expect("a key"));
            let part = |name| statement.get_document(name).expect("a part").to_owned();
            (part("u"), part("q"))
        };
        Some(delta.steps().iter().map(statement).collect())
    }

    fn operators(difference: RawDocumentBuf) -> Vec<RawDocumentBuf> {
        let steps = steps(difference).expect("statements");
        steps.into_iter().map(|(operators, _)| operators).collect()
    }

    #[test]
    fn a_simple_update_is_one_statement() {
        let found = steps(rawdoc! { "d": { "c": false }, "u": { "a": 1, "b": 2 } });
        let operators = rawdoc! { "$unset": { "c": "" }, "$set": { "a": 1, "b": 2 } };
        assert_eq!(found.unwrap(), [(operators, rawdoc! { "_id": 1 })]);
    }

    #[test]
    fn a_new_field_must_not_be_there_yet() {
        let found = steps(rawdoc! { "i": { "n": 1 }, "so": { "i": { "m": 2 } } });
        let absent = rawdoc! { "_id": 1, "n": { "$exists": false }, "o.m": { "$exists": false } };
        assert_eq!(
            found.unwrap(),
            [(rawdoc! { "$set": { "n": 1, "o.m": 2 } }, absent)]
        );
    }

    #[test]
    fn new_fields_out_of_order_are_set_one_after_the_other() {
        assert_eq!(
            operators(rawdoc! { "i": { "z": 1, "a": 2, "b": 3 } }),
            [
                rawdoc! { "$set": { "z": 1 } },
                rawdoc! { "$set": { "a": 2, "b": 3 } }
            ]
        );
    }

    #[test]
    fn array_indexes_are_ordered_as_numbers() {
        assert_eq!(compare_paths("a.9", "a.10"), Ordering::Less);
        assert_eq!(compare_paths("a", "a.b"), Ordering::Less);
        assert_eq!(compare_paths("b", "a.z"), Ordering::Greater);
    }

    #[test]
    fn paths_overlap_where_one_leads_through_the_other() {
        let overlaps =
            |path, others: &[&str]| overlaps_any(path, &others.iter().copied().collect());
        for (path, other) in [("a", "a"), ("a.b.c", "a"), ("a.b.c", "a.b"), ("a", "a.b.c")] {
            assert!(overlap(path, other), "{path} {other}");
            assert!(overlaps(path, &["a!", other, "ab", "z"]), "{path} {other}");
        }
        assert!(!overlaps("a.b", &["a!", "a.bc", "a.a", "ab", "b"]));
    }

    #[test]
    fn an_array_is_cut_before_its_elements_are_set() {
        let difference =
            rawdoc! { "slist": { "a": true, "l": 2, "u0": 1, "s1": { "u": { "k": 5 } } } };
        assert_eq!(
            operators(difference),
            [
                rawdoc! { "$push": { "list": { "$each": [], "$slice": 2 } } },
                rawdoc! { "$set": { "list.0": 1, "list.1.k": 5 } },
            ]
        );
    }

    #[test]
    fn names_that_operators_cannot_reach_need_full_state() {
        for name in ["$price", "", "p.q"] {
            let mut fields = RawDocumentBuf::new();
            fields.append(<&bson::raw::CStr>::try_from(name).unwrap(), 1);
            assert_eq!(steps(rawdoc! { "u": fields.clone() }), None, "{name:?}");
            assert_eq!(steps(rawdoc! { "so": { "i": fields } }), None, "o.{name:?}");
        }
    }

    #[test]
    fn no_difference_makes_it_panic_and_every_statement_is_a_document() {
        use crate::change::hostile::{any_bytes, any_damage, any_document, broken, for_any};
        use proptest::prelude::*;
        let documents = prop_oneof![any_bytes(), any_document()];
        for_any((documents, any_damage()), |(document, (changes, cut))| {
            let found = steps(broken(document, &changes, cut));
            for (operators, _) in found.into_iter().flatten() {
                prop_assert!(operators.iter().all(|part| part.is_ok()));
            }
            Ok(())
        });
    }

    #[test]
    fn a_difference_that_is_nested_without_end_needs_full_state() {
        assert_eq!(steps(crate::change::hostile::nested("sx", 1_000_000)), None);
    }
}
