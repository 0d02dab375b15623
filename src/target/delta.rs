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

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, cstr, rawdoc};
use smallvec::SmallVec;

use super::statements::{FRAME_BYTES, update};
use crate::change::{
    ChangeEvent, DEPTH_MAX, RawElement, document_of, each_element, renamed, with_room,
};

/// The statements of an update event, to be run in order; none where only full state will do.
pub fn update_statements(event: &ChangeEvent) -> Option<SmallVec<[RawDocumentBuf; 1]>> {
    let mut delta = Delta::default();
    delta.read(event.difference()?, "", 0)?;
    let steps = delta.steps();
    let statements = steps
        .iter()
        .map(|step| update(&event.key, &step.absent, &step.operators));
    (!steps.is_empty()).then(|| statements.collect())
}

/// One statement to come.
#[derive(Debug, PartialEq)]
struct Step {
    operators: RawDocumentBuf,
    /// Paths that must not be there yet. Where one is, the field has moved to the end, which no
    /// operator does: the statement matches nothing and full state is sent instead.
    absent: RawDocumentBuf,
}

/// A field under its whole path, as bytes of an element.
#[derive(Debug)]
struct Field<'a> {
    path: Cow<'a, str>,
    bytes: Cow<'a, [u8]>,
    is_new: bool,
}

#[derive(Debug, Default)]
struct Delta<'a> {
    removed: Vec<Cow<'a, str>>,
    truncated: Vec<(Cow<'a, str>, i32)>,
    set: Vec<Field<'a>>,
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

    fn push(&mut self, path: Cow<'a, str>, field: &RawElement<'a>, is_new: bool) {
        let bytes = match path == field.name {
            true => Cow::Borrowed(field.bytes),
            false => Cow::Owned(renamed(field, &path)),
        };
        self.set.push(Field {
            path,
            bytes,
            is_new,
        });
    }

    fn steps(&self) -> Vec<Step> {
        let mut runs: Vec<&[Field<'_>]> = self.set.chunk_by(in_order).collect();
        let mut steps = Vec::new();
        let mut first = self.unset();
        if self.truncated.is_empty()
            && let Some((run, rest)) = runs.split_first()
            && let removed = self.removed.iter().map(AsRef::as_ref).collect()
            && run.iter().all(|field| !overlaps_any(&field.path, &removed))
        {
            let fields = set(run);
            let operators =
                first.get_or_insert_with(|| with_room(fields.as_bytes().len() + FRAME_BYTES));
            operators.append(cstr!("$set"), fields);
            steps.push(step(first.take(), run));
            runs = rest.to_vec();
        }
        if let Some(operators) = first {
            steps.push(step(Some(operators), &[]));
        }
        for (path, length) in &self.truncated {
            steps.push(step(Some(truncate(path, *length)), &[]));
        }
        for run in runs {
            steps.push(step(Some(rawdoc! { "$set": set(run) }), run));
        }
        steps
    }

    fn unset(&self) -> Option<RawDocumentBuf> {
        let mut fields = RawDocumentBuf::new();
        for path in &self.removed {
            fields.append(name(path), "");
        }
        (!fields.is_empty()).then(|| rawdoc! { "$unset": fields })
    }
}

fn step(operators: Option<RawDocumentBuf>, run: &[Field<'_>]) -> Step {
    let mut absent = RawDocumentBuf::new();
    for field in run.iter().filter(|field| field.is_new) {
        absent.append(name(&field.path), rawdoc! { "$exists": false });
    }
    Step {
        operators: operators.unwrap_or_default(),
        absent,
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

fn name(path: &str) -> &bson::raw::CStr {
    path.try_into()
        .expect("a name out of a document has no zero byte")
}

fn set(run: &[Field<'_>]) -> RawDocumentBuf {
    document_of(run.iter().map(|field| field.bytes.as_ref()))
}

fn truncate(path: &str, length: i32) -> RawDocumentBuf {
    let slice = rawdoc! { "$each": RawArrayBuf::new(), "$slice": length };
    let mut push = RawDocumentBuf::new();
    push.append(name(path), slice);
    rawdoc! { "$push": push }
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

    fn steps(difference: RawDocumentBuf) -> Option<Vec<Step>> {
        let mut delta = Delta::default();
        delta.read(&difference, "", 0)?;
        Some(delta.steps())
    }

    fn step(operators: RawDocumentBuf, absent: RawDocumentBuf) -> Step {
        Step { operators, absent }
    }

    #[test]
    fn a_simple_update_is_one_statement() {
        let found = steps(rawdoc! { "d": { "c": false }, "u": { "a": 1, "b": 2 } });
        let operators = rawdoc! { "$unset": { "c": "" }, "$set": { "a": 1, "b": 2 } };
        assert_eq!(found.unwrap(), [step(operators, rawdoc! {})]);
    }

    #[test]
    fn a_new_field_must_not_be_there_yet() {
        let found = steps(rawdoc! { "i": { "n": 1 }, "so": { "i": { "m": 2 } } });
        let absent = rawdoc! { "n": { "$exists": false }, "o.m": { "$exists": false } };
        assert_eq!(
            found.unwrap(),
            [step(rawdoc! { "$set": { "n": 1, "o.m": 2 } }, absent)]
        );
    }

    #[test]
    fn new_fields_out_of_order_are_set_one_after_the_other() {
        let found = steps(rawdoc! { "i": { "z": 1, "a": 2, "b": 3 } }).unwrap();
        let operators: Vec<_> = found.into_iter().map(|step| step.operators).collect();
        assert_eq!(
            operators,
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
        let found =
            steps(rawdoc! { "slist": { "a": true, "l": 2, "u0": 1, "s1": { "u": { "k": 5 } } } });
        let operators: Vec<_> = found
            .unwrap()
            .into_iter()
            .map(|step| step.operators)
            .collect();
        assert_eq!(
            operators,
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
            fields.append(super::name(name), 1);
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
            for step in found.into_iter().flatten() {
                prop_assert!(step.operators.iter().all(|part| part.is_ok()));
            }
            Ok(())
        });
    }

    #[test]
    fn a_difference_that_is_nested_without_end_needs_full_state() {
        assert_eq!(steps(crate::change::hostile::nested("sx", 1_000_000)), None);
    }
}
