//! Which documents of a one-way link are replicated, which of their fields, and which operations.

use bson::{RawArrayBuf, RawDocumentBuf, cstr, rawdoc};

use super::{Namespace, Pattern, Renames, Side};

/// Which documents of a collection are read, and what of them: those that are replicated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// A query; none: all documents.
    pub filter: Option<RawDocumentBuf>,
    /// A projection; none: whole documents.
    pub projection: Option<RawDocumentBuf>,
}

impl Selection {
    pub fn is_everything(&self) -> bool {
        self.filter.is_none() && self.projection.is_none()
    }

    /// The keys of what the filter leaves out; none where there is no filter.
    pub fn outside(&self) -> Option<Selection> {
        let filter = self.filter.clone()?;
        let mut neither = RawArrayBuf::new();
        neither.push(filter);
        Some(Selection {
            filter: Some(rawdoc! { "$nor": neither }),
            projection: Some(rawdoc! { "_id": 1 }),
        })
    }

    /// Completes a `find` that would have the filter `also`.
    pub fn put_into(&self, command: &mut RawDocumentBuf, also: Option<RawDocumentBuf>) {
        let filter = match (also, self.filter.clone()) {
            (Some(also), Some(filter)) => {
                let mut both = RawArrayBuf::new();
                both.push(also);
                both.push(filter);
                Some(rawdoc! { "$and": both })
            }
            (also, filter) => also.or(filter),
        };
        if let Some(filter) = filter {
            command.append(cstr!("filter"), filter);
        }
        if let Some(projection) = self.projection.clone() {
            command.append(cstr!("projection"), projection);
        }
    }
}

/// Whether documents that are deleted on the source, or leave the filter, stay on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletes {
    Replicated,
    Ignored,
}

/// What holds for the collections of a pattern.
#[derive(Debug, Clone)]
pub struct Filter {
    pub pattern: Pattern,
    pub selection: Selection,
    pub deletes: Deletes,
    /// As it was typed, pattern first: what a link remembers of it.
    pub typed: String,
}

impl Filter {
    pub fn namespace(&self) -> &str {
        pattern_of(&self.typed)
    }
}

/// The pattern of a filter as it was typed.
pub fn pattern_of(typed: &str) -> &str {
    typed.split('\n').next().unwrap_or_default()
}

/// All of a link. The first one that matches a collection's name on a counts.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    filters: Vec<Filter>,
    /// Collections are asked about by their names on b.
    of_b: Option<Renames>,
}

impl Filters {
    pub fn new(filters: Vec<Filter>) -> Self {
        Self {
            filters,
            of_b: None,
        }
    }

    /// The same for whoever knows the collections by their names on `side`.
    pub fn on(&self, side: Side, renames: &Renames) -> Self {
        let is_renamed = side == Side::B && !self.is_empty() && !renames.is_empty();
        Self {
            filters: self.filters.clone(),
            of_b: is_renamed.then(|| renames.clone()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Filter> {
        self.filters.iter()
    }

    pub fn selection(&self, namespace: &Namespace) -> Selection {
        let found = self.of(namespace);
        found.map_or_else(Selection::default, |found| found.selection.clone())
    }

    pub fn selects(&self, namespace: &Namespace) -> bool {
        let found = self.of(namespace);
        found.is_some_and(|found| !found.selection.is_everything())
    }

    pub fn deletes(&self, namespace: &Namespace) -> Deletes {
        let found = self.of(namespace);
        found.map_or(Deletes::Replicated, |found| found.deletes)
    }

    /// Whether the same holds for two collections.
    pub fn treat_alike(&self, one: &Namespace, other: &Namespace) -> bool {
        self.number_of(one) == self.number_of(other)
    }

    /// Whether collections are asked about by other names than the patterns are about.
    pub fn are_renamed(&self) -> bool {
        self.of_b.is_some()
    }

    fn of(&self, namespace: &Namespace) -> Option<&Filter> {
        self.filters.get(self.number_of(namespace)?)
    }

    /// The filter that counts for a collection, by its place among all.
    pub fn number_of(&self, namespace: &Namespace) -> Option<usize> {
        let renames = self.of_b.as_ref();
        let on_a = renames.and_then(|renames| renames.on_a(Side::B, namespace));
        let name = on_a.as_ref().unwrap_or(namespace).as_str();
        self.filters
            .iter()
            .position(|filter| filter.pattern.matches(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_joins_the_one_that_is_there() {
        let only = rawdoc! { "_id": 1 };
        let selection = Selection {
            filter: Some(rawdoc! { "region": "EU" }),
            projection: Some(rawdoc! { "card": 0 }),
        };
        let mut command = rawdoc! { "find": "orders" };
        selection.put_into(&mut command, Some(only.clone()));
        let expected = rawdoc! {
            "find": "orders",
            "filter": { "$and": [{ "_id": 1 }, { "region": "EU" }] },
            "projection": { "card": 0 },
        };
        assert_eq!(command, expected);
        let mut command = rawdoc! { "find": "orders" };
        Selection::default().put_into(&mut command, Some(only.clone()));
        assert_eq!(command, rawdoc! { "find": "orders", "filter": only });
    }
}
