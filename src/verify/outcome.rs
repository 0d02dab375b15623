//! What a comparison has found.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::fields::{FieldDifference, FieldKind};
use super::schema::{NotCompared, SchemaDifference};
use super::settle::Reason;
use crate::change::{DocumentKey, Pair};

/// How a document differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    MissingOnA,
    MissingOnB,
    /// Some field differs, or is missing on one side.
    Fields,
    /// Only the order of fields differs.
    FieldOrder,
}

impl DifferenceKind {
    pub fn as_str(self) -> &'static str {
        match self {
            DifferenceKind::MissingOnA => "missing on a",
            DifferenceKind::MissingOnB => "missing on b",
            DifferenceKind::Fields => "fields",
            DifferenceKind::FieldOrder => "field order",
        }
    }

    /// Of two documents that are both there.
    pub fn of_fields(fields: &[FieldDifference]) -> Self {
        if fields.iter().all(|field| field.kind == FieldKind::Order) {
            DifferenceKind::FieldOrder
        } else {
            DifferenceKind::Fields
        }
    }
}

/// A document that differs though nobody was writing it and no event of it was on its way. One at
/// a time, this is what a repair needs.
#[derive(Debug, Clone)]
pub struct DifferingKey {
    pub key: DocumentKey,
    pub kind: DifferenceKind,
    /// Empty where the document is missing on one side.
    pub fields: Vec<FieldDifference>,
}

/// What the comparison hands out while it goes on.
#[derive(Debug)]
pub enum Finding {
    Differing(DifferingKey),
    Unsettled(DocumentKey, Reason),
    /// A range was read to its end.
    Read {
        namespace: String,
        documents: Pair<u64>,
    },
    NotCompared(NotCompared),
}

/// Documents read of one namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub documents: Pair<u64>,
    pub differing: u64,
    pub unsettled: u64,
}

/// Whether both clusters are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Equal,
    Different,
    /// No difference was found, but not everything could be compared.
    Undecided,
}

/// Everything a comparison has come to.
#[derive(Debug, Default)]
pub struct Verification {
    pub namespaces: BTreeMap<String, Counts>,
    pub schema: Vec<SchemaDifference>,
    pub differing: Vec<DifferingKey>,
    pub unsettled: Vec<(DocumentKey, Reason)>,
    pub not_compared: Vec<NotCompared>,
    /// More documents differ than were asked for: the rest was not compared.
    pub cut_short: bool,
    /// Namespaces whose changes the link passes over.
    pub unpaired: Vec<String>,
    /// Documents with an event that could not be applied.
    pub dead_letters: Vec<DocumentKey>,
}

impl Verification {
    pub fn outcome(&self) -> Outcome {
        if !self.differing.is_empty() || !self.schema.is_empty() {
            return Outcome::Different;
        }
        let behind = |(_, reason): &(DocumentKey, Reason)| *reason == Reason::Behind;
        let is_partial = self.cut_short || !self.not_compared.is_empty();
        if self.unsettled.iter().any(behind) || is_partial {
            return Outcome::Undecided;
        }
        Outcome::Equal
    }

    /// Takes one finding. A document is counted once, however often it was found.
    pub fn take(&mut self, finding: Finding) {
        match finding {
            Finding::Differing(found) => {
                if self.differing.iter().all(|other| other.key != found.key) {
                    self.counts(found.key.namespace().as_str()).differing += 1;
                    self.differing.push(found);
                }
            }
            Finding::Unsettled(key, reason) => {
                if self.unsettled.iter().all(|(other, _)| *other != key) {
                    self.counts(key.namespace().as_str()).unsettled += 1;
                    self.unsettled.push((key, reason));
                }
            }
            Finding::Read {
                namespace,
                documents,
            } => {
                let counts = self.counts(&namespace);
                counts.documents.a += documents.a;
                counts.documents.b += documents.b;
            }
            Finding::NotCompared(found) => {
                if !self.not_compared.contains(&found) {
                    self.not_compared.push(found);
                }
            }
        }
    }

    pub fn counts(&mut self, namespace: &str) -> &mut Counts {
        self.namespaces.entry(namespace.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Namespace;
    use bson::rawdoc;

    fn key(id: i32) -> DocumentKey {
        DocumentKey::of(&Namespace::new("shop", "orders"), &rawdoc! { "_id": id }).unwrap()
    }

    fn differing(id: i32) -> Finding {
        Finding::Differing(DifferingKey {
            key: key(id),
            kind: DifferenceKind::MissingOnB,
            fields: Vec::new(),
        })
    }

    #[test]
    fn a_document_found_twice_counts_once() {
        let mut found = Verification::default();
        found.take(differing(1));
        found.take(differing(1));
        found.take(differing(2));
        assert_eq!(found.namespaces["shop.orders"].differing, 2);
    }

    #[test]
    fn what_could_not_be_compared_is_not_called_equal() {
        let mut found = Verification::default();
        found.take(Finding::Unsettled(key(1), Reason::Busy));
        assert_eq!(found.outcome(), Outcome::Equal);
        found.take(Finding::Unsettled(key(2), Reason::Behind));
        assert_eq!(found.outcome(), Outcome::Undecided);
        found.take(differing(3));
        assert_eq!(found.outcome(), Outcome::Different);
    }
}
