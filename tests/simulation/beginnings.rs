//! What both sides hold before a link begins, and what must have become of it in the end.

use std::collections::BTreeMap;
use std::time::Duration;

use bson::{Document, doc};
use tandem::change::{Pair, Side};

use crate::applications::{NAMESPACE, Written, place_of};
use crate::random::Random;
use crate::records::Lost;
use crate::schedule::{KEPT_KEYS, KEYS, Step, What};
use crate::world::World;

/// Documents that a side may hold beforehand; applications write to the first of them only.
pub const HELD_KEYS: i32 = 10;

/// A field of what a side held beforehand, which no application ever writes.
const FIELDS: [&str; 3] = ["of_a", "of_b", "of_both"];
const VERSION_FIELD: &str = "at";

/// Longest time before the link is ready in which applications write already.
const EARLY_MS_MAX: u64 = 400;

/// How a link begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Both sides are empty.
    Nothing,
    /// `a` holds documents, which are copied.
    Copy,
    /// Both do.
    Merge,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Nothing, Kind::Copy, Kind::Merge];
}

#[derive(Debug, Clone)]
pub struct Beginning {
    pub kind: Kind,
    documents: Pair<BTreeMap<i32, Document>>,
    /// Whether a side has the collection, be it empty.
    is_there: Pair<bool>,
    has_versions: bool,
    tie: Side,
    /// Whose writes and documents win, whenever they were made.
    pub preferred: Option<Side>,
    /// What the servers say that a document has, which decides how many ranges there are.
    document_bytes: i64,
    /// What applications do while the link starts: of a copy's target, which has to be empty, nothing.
    pub early: Vec<Step>,
}

impl Beginning {
    pub fn of(kind: Kind, dice: &mut Random) -> Self {
        let mut beginning = Self {
            kind,
            documents: Pair::default(),
            is_there: Pair::new(true, true),
            has_versions: dice.percent(50),
            tie: if dice.percent(50) { Side::A } else { Side::B },
            preferred: [None, None, None, None, Some(Side::A), Some(Side::B)]
                [dice.below(6) as usize],
            document_bytes: [1_000, 32 << 20, 64 << 20, 200 << 20][dice.below(4) as usize],
            early: Vec::new(),
        };
        for key in 0..HELD_KEYS {
            beginning.hold(key, dice);
        }
        for side in Side::BOTH.into_iter().filter(|_| kind != Kind::Nothing) {
            let is_there = dice.percent(50) || !beginning.documents[side].is_empty();
            beginning.is_there[side] = is_there;
        }
        let sides: &[Side] = match kind {
            Kind::Nothing => &[],
            Kind::Copy => &[Side::A],
            Kind::Merge => &Side::BOTH,
        };
        for side in sides {
            let count = dice.below(4);
            beginning
                .early
                .extend((0..count).map(|_| early(*side, dice)));
        }
        beginning.early.sort_by_key(|step| step.at);
        beginning
    }

    /// Decides which side holds the document, and what.
    fn hold(&mut self, key: i32, dice: &mut Random) {
        let chance = dice.below(100);
        let mut one = |field: &str| {
            let mut one = doc! { "_id": key, field: key };
            if dice.percent(60) {
                one.insert(VERSION_FIELD, dice.below(3) as i64);
            }
            one
        };
        let (a, b) = match (self.kind, chance) {
            (Kind::Nothing, _) | (_, 90..) => (None, None),
            (Kind::Copy, _) => (Some(one("of_a")), None),
            (Kind::Merge, 0..=39) => (Some(one("of_a")), Some(one("of_b"))),
            (Kind::Merge, 40..=59) => (Some(one("of_a")), None),
            (Kind::Merge, 60..=74) => (None, Some(one("of_b"))),
            (Kind::Merge, _) => {
                let both = one("of_both");
                (Some(both.clone()), Some(both))
            }
        };
        self.documents.a.extend(a.map(|a| (key, a)));
        self.documents.b.extend(b.map(|b| (key, b)));
    }

    /// What a configuration says of it.
    pub fn configured(&self) -> String {
        let mode = match self.kind {
            Kind::Nothing => "none",
            Kind::Copy => "copy",
            Kind::Merge => "merge",
        };
        let version_field = if self.has_versions { VERSION_FIELD } else { "" };
        let policy = match self.preferred {
            None => "last-write-wins",
            Some(Side::A) => "prefer-a",
            Some(Side::B) => "prefer-b",
        };
        format!(
            "[initial_sync]\nmode = \"{mode}\"\n\
             [conflicts]\npolicy = \"{policy}\"\nversion_field = \"{version_field}\"\ntie = \"{}\"\n",
            self.tie.as_str()
        )
    }

    /// Writes what both sides hold.
    pub fn lay(&self, world: &mut World) {
        for side in Side::BOTH {
            let replica = world.replica(side);
            replica.document_bytes = self.document_bytes;
            match self.kind {
                Kind::Nothing => drop(replica.create(NAMESPACE)),
                Kind::Copy | Kind::Merge if self.is_there[side] => {
                    replica.create_told(NAMESPACE);
                }
                Kind::Copy | Kind::Merge => {}
            }
            for (key, document) in &self.documents[side] {
                let change = vec![(place_of(*key), Some(document.clone()))];
                let written = replica.write_now(change, None, None);
                written.expect("nobody else is there yet");
            }
        }
    }

    /// Whether both clusters say that the copy or the merge has come to its end.
    pub fn is_done(&self, world: &World) -> bool {
        let is_done = |side: Side| {
            let replica = &world.replicas[side];
            let links = replica.all("__tandem.links", replica.time, None);
            links.iter().any(|(_, link)| {
                link.get_str("initial_sync")
                    .is_ok_and(|sync| sync == "done")
                    && !link.contains_key("resync")
            })
        };
        self.kind == Kind::Nothing || Side::BOTH.into_iter().all(is_done)
    }

    pub fn has_written(&self, key: i32, field: &str) -> bool {
        let mut sides = Side::BOTH.into_iter();
        sides.any(|side| {
            let document = self.documents[side].get(&key);
            document.is_some_and(|document| document.contains_key(field))
        })
    }

    /// What nobody has written to since is as the rules for two documents say, and what applications
    /// only added to is there, or on record.
    pub fn check(
        &self,
        world: &World,
        account: &[Written],
        lost: &[Lost],
        problems: &mut Vec<String>,
    ) {
        for key in 0..HELD_KEYS {
            let of_key = lost.iter().filter(|lost| lost.key == key);
            let of_key: Vec<&Lost> = of_key.collect();
            if !account.iter().any(|one| one.keys.contains(&key)) {
                problems.extend(self.check_untouched(world, key, &of_key));
            } else if !(KEPT_KEYS..KEYS).contains(&key) {
                problems.extend(self.check_kept(world, key, &of_key));
            }
        }
    }

    fn check_untouched(&self, world: &World, key: i32, lost: &[&Lost]) -> Option<String> {
        let (a, b) = (self.documents.a.get(&key), self.documents.b.get(&key));
        let (stays, goes) = match (a, b) {
            (Some(a), Some(b)) if a != b => match self.winner(a, b) {
                Side::A => (Some(a), Some((Side::B, b))),
                Side::B => (Some(b), Some((Side::A, a))),
            },
            (one, other) => (one.or(other), None),
        };
        let replica = &world.replicas.a;
        let found = replica.as_of(&place_of(key), replica.time);
        if found != stays {
            return Some(format!("document {key} is {found:?} and not {stays:?}"));
        }
        let told: Vec<_> = lost
            .iter()
            .map(|lost| (lost.side, &lost.document))
            .collect();
        let is_told = match (goes, told.as_slice()) {
            (None, []) => true,
            (Some((side, goes)), [(of, Some(document))]) => side == *of && goes == document,
            (None | Some(_), _) => false,
        };
        let problem = || format!("of document {key} {told:?} is on record and not {goes:?}");
        (!is_told).then(problem)
    }

    fn winner(&self, a: &Document, b: &Document) -> Side {
        if let Some(preferred) = self.preferred {
            return preferred;
        }
        let version = |of: &Document| of.get_i64(VERSION_FIELD).ok();
        match (version(a), version(b)) {
            (Some(a), Some(b)) if self.has_versions && a != b => match a > b {
                true => Side::A,
                false => Side::B,
            },
            (Some(_) | None, _) => self.tie,
        }
    }

    fn check_kept(&self, world: &World, key: i32, lost: &[&Lost]) -> Option<String> {
        let replica = &world.replicas.a;
        let found = replica.as_of(&place_of(key), replica.time);
        FIELDS
            .iter()
            .filter(|field| self.has_written(key, field))
            .find_map(|field| {
                let is_there = found.is_some_and(|found| found.contains_key(field));
                let mut holding = lost.iter().filter(|lost| lost.holds(field));
                let is_false = |lost: &&Lost| lost.is_unread() && !lost.overturned;
                match (is_there, holding.clone().count()) {
                    (false, 0) => Some(format!(
                        "{field} of document {key} is gone without a record"
                    )),
                    // Both may have held it.
                    (true, _) if *field != "of_both" && holding.any(is_false) => Some(format!(
                        "{field} of document {key} is on record as lost, and is there"
                    )),
                    (true | false, _) => None,
                }
            })
    }
}

/// Something written to every document that is never replaced or deleted.
pub fn one_of_each_kept_key(side: Side, ms: u64) -> Vec<Step> {
    let step = |key| Step {
        at: Duration::from_millis(ms),
        what: What::Write { side, key },
    };
    (0..KEPT_KEYS).map(step).collect()
}

/// Of a side on its own.
fn early(side: Side, dice: &mut Random) -> Step {
    let key = dice.below(KEYS as u64) as i32;
    let is_kept = key < KEPT_KEYS;
    let what = match dice.below(4) {
        0 if !is_kept => What::Replace { side, key },
        1 if !is_kept => What::Delete { side, key },
        _ => What::Write { side, key },
    };
    Step {
        at: Duration::from_millis(dice.below(EARLY_MS_MAX)),
        what,
    }
}
