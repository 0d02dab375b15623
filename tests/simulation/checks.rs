//! What must be true all the time, and what in the end.

use std::collections::BTreeMap;

use bson::{Bson, Document, RawDocumentBuf, Uuid};
use tandem::change::Side;

use crate::applications::{NAMESPACE, Written, aside, field_of, place_in, place_of};
use crate::beginnings::{Beginning, HELD_KEYS};
use crate::commands::WRITE_CONFLICT;
use crate::query::{list, sub};
use crate::records::{Lost, losers, records_are_here_too};
use crate::replica::{Entry, id_of};
use crate::schedule::{COLLECTIONS_ASIDE, KEPT_KEYS};
use crate::world::{Process, World};

pub const OWN: &str = "__tandem";

/// tandem writes documents of applications only in transactions, and only on sessions whose ids
/// are on record on that cluster.
pub fn check_write(
    world: &mut World,
    side: Side,
    database: &str,
    command: &Document,
    session: Option<Uuid>,
) {
    let name = command.keys().next().map(String::as_str);
    if database == OWN || !matches!(name, Some("insert" | "update" | "delete")) {
        return;
    }
    let replica = &world.replicas[side];
    let on_record = session.is_some_and(|session| {
        let place = (format!("{OWN}.sessions"), id_of(&Bson::from(session)));
        replica.as_of(&place, replica.time).is_some()
    });
    if !command.contains_key("txnNumber") || !on_record {
        let problem = format!("tandem wrote to {database} outside of its tag sessions");
        world.problems.push(problem);
    }
}

/// No write of tandem makes a collection that was dropped or renamed.
pub fn check_brought_back(world: &mut World, side: Side) {
    let brought_back = std::mem::take(&mut world.replicas[side].brought_back);
    let problem = |name: String| format!("tandem has brought {name} back to life");
    world.problems.extend(brought_back.into_iter().map(problem));
}

/// A commit that writes nothing proves nothing about the cluster that has taken it.
pub fn check_commits_write(world: &mut World, side: Side) {
    let empty = std::mem::take(&mut world.replicas[side].empty_commits);
    let problem = |_| format!("tandem has committed nothing on {}", side.as_str());
    world.problems.extend((0..empty).map(problem));
}

/// tandem drops nothing that it has given up: nobody has told it that it may go.
pub fn check_given_up_stays(world: &mut World, side: Side, command: &Document) {
    let uuid = match command.keys().next().map(String::as_str) {
        Some("drop") => command.get("collectionUUID"),
        Some("renameCollection") => command.get("dropTarget"),
        _ => None,
    };
    let Some(uuid) = uuid else { return };
    let replica = &world.replicas[side];
    let known = replica.all(&format!("{OWN}.collections"), replica.time, None);
    let is_given_up = known.iter().any(|(_, known)| {
        known.get(side.as_str()) == Some(uuid)
            && known
                .get_str("state")
                .is_ok_and(|state| state == "unpaired")
    });
    if is_given_up {
        let problem = format!("tandem drops what it has given up: {command}");
        world.problems.push(problem);
    }
}

/// Only that process moves a checkpoint which has raised the epoch last, with the lease in its hand. Two
/// may raise it to the same number; the later one to take the lease goes on.
pub fn check_charge(
    world: &mut World,
    side: Side,
    process: Process,
    command: &Document,
    reply: &Document,
    before: usize,
) {
    let is_plain_update = |collection: &str| {
        command.get_str("update").is_ok_and(|of| of == collection)
            && !command.contains_key("txnNumber")
    };
    if side == Side::A
        && is_plain_update("links")
        && takes_lease(command)
        && reply.get_i32("n").is_ok_and(|n| n == 1)
    {
        world.holder = Some(process);
    }
    if is_plain_update("checkpoints") && world.holder == Some(process) {
        let entries = world.replicas[side].oplog.len();
        world.raised[side].push((process, entries));
    }
    let checkpoints = format!("{OWN}.checkpoints");
    let in_charge = world.in_charge(side).unwrap_or(process);
    let entries = &world.replicas[side].oplog[before..];
    let is_move = |entry: &Entry| {
        let mut operations = entry.operations.iter();
        entry.transaction.is_some() && operations.any(|one| one.namespace == checkpoints)
    };
    if in_charge != process && entries.iter().any(is_move) {
        let problem = format!(
            "process {} has moved a checkpoint, though {} has taken over",
            process.number, in_charge.number
        );
        world.problems.push(problem);
    }
}

/// A session's own record refuses a transaction at a snapshot older than its last write: its lane waits
/// until its reader knows of that one.
pub fn check_record(world: &mut World, name: &str, session: Option<Uuid>, code: i32) {
    if name == "commitTransaction" && code == WRITE_CONFLICT && session.is_some() {
        let problem = "a session commits at a snapshot older than its own last write";
        world.problems.push(problem.to_owned());
    }
}

fn takes_lease(command: &Document) -> bool {
    let query = list(&command["updates"])[0].as_document();
    query.is_some_and(|statement| sub(&statement["q"]).contains_key("$or"))
}

/// Whether both sides hold the same documents, byte for byte.
pub fn is_converged(world: &World) -> bool {
    let mut names = asides(world).chain([NAMESPACE.to_owned()]);
    names.all(|name| contents(world, Side::A, &name) == contents(world, Side::B, &name))
}

/// Collections that come and go, but for those that tandem has given up and said so.
fn asides(world: &World) -> impl Iterator<Item = String> {
    let given_up = given_up(world);
    let names = (0..COLLECTIONS_ASIDE).map(aside);
    names.filter(move |name| !given_up.contains_key(name))
}

/// Names of the collections that are passed over, and why.
pub fn given_up(world: &World) -> BTreeMap<String, String> {
    let mut given_up = BTreeMap::new();
    for side in Side::BOTH {
        let replica = &world.replicas[side];
        for (_, known) in replica.all(&format!("{OWN}.collections"), replica.time, None) {
            if known
                .get_str("state")
                .is_ok_and(|state| state == "unpaired")
            {
                let reason = known.get_str("reason").unwrap_or_default();
                let names = ["name_a", "name_b"].map(|name| known.get_str(name));
                let names = names.into_iter().flatten();
                given_up.extend(names.map(|name| (name.to_owned(), reason.to_owned())));
            }
        }
    }
    given_up
}

/// None where there is no such collection.
fn contents(world: &World, side: Side, name: &str) -> Option<Vec<Vec<u8>>> {
    let replica = &world.replicas[side];
    replica.collections.get(name)?;
    let bytes = |(_, found): (_, &Document)| {
        let raw = RawDocumentBuf::try_from(found).expect("a document");
        raw.into_bytes()
    };
    Some(
        replica
            .all(name, replica.time, None)
            .into_iter()
            .map(bytes)
            .collect(),
    )
}

/// Everything that must hold once both sides have come to rest. `records` are those of the store.
pub fn check_end(
    world: &World,
    beginning: &Beginning,
    account: &[Written],
    records: &[RawDocumentBuf],
) -> Vec<String> {
    let mut problems = world.problems.clone();
    if !is_converged(world) {
        problems.extend((0..HELD_KEYS).filter_map(|key| differing(world, key)));
        problems.extend(asides(world).filter_map(|name| differing_aside(world, &name)));
    }
    let lost = losers(world, records, &mut problems);
    if beginning.is_done(world) {
        beginning.check(world, account, &lost, &mut problems);
    } else {
        problems.push("the copy or the merge has not come to its end".to_owned());
    }
    // What was rolled back must be nowhere.
    let stayed = |one: &&Written| !world.undone.contains(&one.number);
    let account: Vec<Written> = account.iter().filter(stayed).cloned().collect();
    let names: Vec<String> = asides(world).collect();
    let checked = names.iter().map(String::as_str).chain([NAMESPACE]);
    for (name, side) in checked.flat_map(|name| Side::BOTH.map(|side| (name, side))) {
        let replica = &world.replicas[side];
        let Some(uuid) = replica.collections.get(name).map(|found| found.uuid) else {
            continue;
        };
        let is_of = |one: &&Written| one.side == side && one.uuid == uuid;
        let written: Vec<Written> = account.iter().filter(is_of).cloned().collect();
        for key in 0..HELD_KEYS {
            let found = replica.as_of(&place_in(name, key), replica.time);
            nothing_is_invented(key, found, beginning, &account, &mut problems);
            if key < KEPT_KEYS {
                every_write_is_there(key, found, &written, &lost, &mut problems);
            }
        }
    }
    records_are_here_too(world, records, &mut problems);
    problems
}

fn differing_aside(world: &World, name: &str) -> Option<String> {
    let show = |side: Side| {
        let replica = &world.replicas[side];
        let found = replica.collections.get(name)?;
        let all = replica.all(name, replica.time, None).into_iter();
        let documents: Vec<String> = all.map(|(_, found)| found.to_string()).collect();
        Some(format!("{} {documents:?}", found.uuid))
    };
    let differs = contents(world, Side::A, name) != contents(world, Side::B, name);
    differs.then(|| {
        format!(
            "{name} differs: {:?} and {:?}",
            show(Side::A),
            show(Side::B)
        )
    })
}

fn differing(world: &World, key: i32) -> Option<String> {
    let show = |side: Side| {
        let replica = &world.replicas[side];
        replica
            .as_of(&place_of(key), replica.time)
            .map(ToString::to_string)
    };
    (show(Side::A) != show(Side::B)).then(|| {
        format!(
            "document {key} differs: {:?} and {:?}",
            show(Side::A),
            show(Side::B)
        )
    })
}

fn nothing_is_invented(
    key: i32,
    found: Option<&Document>,
    beginning: &Beginning,
    account: &[Written],
    problems: &mut Vec<String>,
) {
    for name in found.map(Document::keys).into_iter().flatten() {
        let written = account
            .iter()
            .any(|one| one.keys.contains(&key) && field_of(one.number) == *name);
        let held = || beginning.has_written(key, name);
        if !written && name != "_id" && name != "last" && !held() {
            problems.push(format!("nobody wrote the field {name} of document {key}"));
        }
    }
}

fn every_write_is_there(
    key: i32,
    found: Option<&Document>,
    account: &[Written],
    lost: &[Lost],
    problems: &mut Vec<String>,
) {
    for one in account
        .iter()
        .filter(|one| one.keys.contains(&key) && one.adds_field)
    {
        let field = field_of(one.number);
        let is_there = found.is_some_and(|found| found.contains_key(&field));
        let of_key = || lost.iter().filter(|lost| lost.key == key);
        let mut records = of_key().filter(|lost| lost.is_about(one.number, &field));
        // No event may have told of it, and its document have lost with a later one.
        let is_carried = one.is_early && of_key().any(|lost| lost.holds(&field));
        match (is_there, records.clone().count()) {
            (false, 0) if !is_carried => problems.push(format!(
                "write {} to document {key} is gone without a record",
                one.number
            )),
            (true, _) if records.any(|lost| !lost.overturned) => problems.push(format!(
                "write {} to document {key} is on record as lost, and is there",
                one.number
            )),
            (true | false, _) => {}
        }
    }
}
