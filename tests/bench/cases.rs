//! What is compared with what.

use crate::DOCUMENT_BYTES;
use crate::backlog::{Backlog, Index, Keys, Place, Shape};
use crate::through_tandem::Settings;

/// Operations of a case, unless the case is about their number.
const OPERATIONS: usize = 100_000;

/// Of the longest backlog; the others are a tenth and a hundredth of it.
const LONGEST: usize = 1_000_000;

/// One backlog, and the case that it is compared with.
pub struct Case {
    pub name: String,
    pub backlog: Backlog,
    pub settings: Settings,
    pub compared_with: Option<usize>,
    /// Documents of another size are compared by their bytes.
    pub by_bytes: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Both sides loaded, beside one of them; with documents that both of them write.
    TwoWay,
    Unique,
    Keys,
    Collections,
    Sizes,
    Lengths,
    Lanes,
    Batches,
    Linger,
}

impl Group {
    pub const ALL: [Group; 9] = [
        Group::TwoWay,
        Group::Unique,
        Group::Keys,
        Group::Collections,
        Group::Sizes,
        Group::Lengths,
        Group::Lanes,
        Group::Batches,
        Group::Linger,
    ];
    pub const NAMES: [&'static str; 9] = [
        "two-way",
        "unique",
        "keys",
        "collections",
        "sizes",
        "lengths",
        "lanes",
        "batches",
        "linger",
    ];

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|group| group.name() == name)
    }

    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Nobody drains as many large documents as small ones, or into as many collections at a time:
    /// what tells about tandem is what a bare loop loses by it.
    pub fn is_beside_bare(self) -> bool {
        matches!(self, Group::Collections | Group::Sizes | Group::Lengths)
    }

    /// The first one is what the others are compared with.
    pub fn cases(self, operations: Option<usize>) -> Vec<Case> {
        let longest = operations.unwrap_or(LONGEST);
        let operations = operations.unwrap_or(OPERATIONS);
        let updates = Backlog::new(Shape::Updates, operations, DOCUMENT_BYTES);
        let inserts = Backlog::new(Shape::Inserts, operations, DOCUMENT_BYTES);
        match self {
            Group::TwoWay => two_way(updates),
            Group::Unique => vec![
                base("inserts", inserts),
                compared(
                    "inserts beside a unique index",
                    inserts.with_index(Index::Unique),
                ),
                base("updates", updates),
                Case {
                    compared_with: Some(2),
                    ..compared(
                        "updates beside a unique index",
                        updates.with_index(Index::Unique),
                    )
                },
            ],
            Group::Keys => vec![
                base("updates of keys spread evenly", updates),
                compared("of Zipf's keys (0.99)", updates.with_keys(Keys::Zipf)),
                compared(
                    "one update in ten of the same document",
                    updates.with_keys(Keys::OneHot),
                ),
            ],
            Group::Collections => numbers(&[1, 10, 100, 1000], "collections", |collections| {
                inserts.over_collections(collections)
            }),
            Group::Sizes => sizes(operations),
            Group::Lengths => {
                let lengths = [longest / 100, longest / 10, longest];
                numbers(&lengths, "inserts", |operations| Backlog {
                    operations,
                    ..inserts
                })
            }
            Group::Lanes => lanes(updates, &[1, 2, 4, 8, 16]),
            Group::Batches => settings(
                updates,
                "batch_operations_max",
                &["100", "300", "1000", "3000"],
            ),
            Group::Linger => settings(
                updates,
                "batch_fill_time_max",
                &["\"0ms\"", "\"2ms\"", "\"5ms\"", "\"20ms\""],
            ),
        }
    }
}

fn base(name: &str, backlog: Backlog) -> Case {
    Case {
        name: name.to_owned(),
        backlog,
        settings: Settings::default(),
        compared_with: None,
        by_bytes: false,
    }
}

fn compared(name: &str, backlog: Backlog) -> Case {
    Case {
        compared_with: Some(0),
        ..base(name, backlog)
    }
}

/// The rate on both sides together: twice as many operations as on one.
fn two_way(updates: Backlog) -> Vec<Case> {
    let on = |place| Backlog { place, ..updates };
    let shared = |percent| on(Place::BothSides).with_keys(Keys::Shared { percent });
    vec![
        base("updates on one side, one-way", on(Place::OneWay)),
        compared("on one side of two", on(Place::OneSide)),
        compared("on both sides, of different documents", shared(0)),
        compared("1 % of them of the same documents", shared(1)),
        compared("all of them of the same documents", shared(100)),
    ]
}

fn numbers(numbers: &[usize], what: &str, of: impl Fn(usize) -> Backlog) -> Vec<Case> {
    let named = |number: &usize| compared(&format!("{number} {what}"), of(*number));
    numbers.iter().map(named).collect()
}

/// The same bytes in all of them, so far as that is not too many documents.
fn sizes(operations: usize) -> Vec<Case> {
    let of = |bytes: usize| {
        let fewer = (operations * DOCUMENT_BYTES / bytes).min(operations * 3);
        let backlog = Backlog::new(Shape::Inserts, fewer, bytes);
        Case {
            by_bytes: true,
            ..compared(&format!("documents of {bytes} bytes"), backlog)
        }
    };
    [1024, 100, 10_240, 102_400].map(of).into()
}

fn settings(backlog: Backlog, key: &str, values: &[&str]) -> Vec<Case> {
    let of = |value: &&str| Case {
        settings: Settings {
            apply: format!("{key} = {value}\n"),
            ..Settings::default()
        },
        ..compared(&format!("{key} = {value}"), backlog)
    };
    values.iter().map(of).collect()
}

fn lanes(backlog: Backlog, numbers: &[u32]) -> Vec<Case> {
    let of = |lanes: &u32| Case {
        settings: Settings {
            lanes: Some(*lanes),
            ..Settings::default()
        },
        ..compared(&format!("lanes = {lanes}"), backlog)
    };
    numbers.iter().map(of).collect()
}
