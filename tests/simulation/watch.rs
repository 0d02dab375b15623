//! What each commit of tandem must leave behind, looked at as soon as it is there.

use std::collections::BTreeSet;

use bson::{Document, Timestamp};
use tandem::change::{PipelineId, Side};

use crate::applications::{NAMESPACE, place_of};
use crate::checks::OWN;
use crate::replica::{Entry, Replica};
use crate::schedule::KEPT_KEYS;
use crate::world::World;

/// To be asked after a command, with the number of entries of the oplog before it.
pub fn check_commits(world: &mut World, side: Side, before: usize) {
    let entries = &world.replicas[side].oplog[before..];
    let mut problems = Vec::new();
    let of_tandem = |entry: &&Entry| entry.transaction.is_some() && entry.write.is_none();
    for entry in entries.iter().filter(of_tandem) {
        problems.extend(overwritten(world, side, entry));
        if world.streams_tell_all && has_moved_a_checkpoint(entry) {
            problems.extend(passed_too_early(world, side));
        }
    }
    world.problems.extend(problems);
}

/// Fields that applications have added, each of them by one write.
fn fields(document: Option<&Document>) -> BTreeSet<String> {
    let names = document.into_iter().flat_map(Document::keys);
    let is_of_a_write = |name: &&String| {
        name.strip_prefix('w')
            .is_some_and(|number| number.parse::<u32>().is_ok())
    };
    names.filter(is_of_a_write).cloned().collect()
}

/// Nothing is overwritten but what is on record by then: nobody deletes or replaces these documents.
fn overwritten(world: &World, side: Side, entry: &Entry) -> Vec<String> {
    let written = |key: &i32| {
        let mut operations = entry.operations.iter();
        operations.any(|one| one.namespace == NAMESPACE && one.id.as_i32() == Some(*key))
    };
    let replica = &world.replicas[side];
    let mut problems = Vec::new();
    for key in (0..KEPT_KEYS).filter(written) {
        let place = place_of(key);
        let then = fields(replica.as_of(&place, right_before(entry.time)));
        let now = fields(replica.as_of(&place, entry.time));
        let gone = then.difference(&now);
        let unsaid = gone.filter(|field| !is_on_record(world, field));
        problems.extend(unsaid.map(|field| {
            format!("{field} of document {key} was overwritten on {side:?} without a record")
        }));
    }
    problems
}

fn has_moved_a_checkpoint(entry: &Entry) -> bool {
    let checkpoints = format!("{OWN}.checkpoints");
    let mut operations = entry.operations.iter();
    operations.any(|one| one.namespace == checkpoints)
}

/// What all checkpoints of the pipeline into `side` have passed is there, on record, or noted down to be
/// sent.
fn passed_too_early(world: &World, side: Side) -> Vec<String> {
    let (source, target) = (&world.replicas[side.other()], &world.replicas[side]);
    let Some(passed) = passed_by_all(target, PipelineId::from_source(side.other())) else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    for key in 0..KEPT_KEYS {
        let place = place_of(key);
        let sent = fields(source.as_of(&place, passed));
        let here = fields(target.as_of(&place, target.time));
        let missing = sent.difference(&here);
        let unsaid = missing.filter(|field| !is_on_record(world, field) && !is_owed(world));
        problems.extend(
            unsaid.map(|field| {
                format!("a checkpoint on {side:?} has passed {field} of document {key}")
            }),
        );
    }
    problems
}

fn passed_by_all(target: &Replica, pipeline: PipelineId) -> Option<Timestamp> {
    let checkpoints = target.all(&format!("{OWN}.checkpoints"), target.time, None);
    let passed = |checkpoint: &Document| {
        let time = checkpoint.get_timestamp("time").expect("a position");
        match checkpoint.get_bool("whole") {
            Ok(true) => time,
            _ => right_before(time),
        }
    };
    let of_pipeline = checkpoints.iter().filter(|(_, one)| {
        one.get_str("pipeline")
            .is_ok_and(|of| of == pipeline.as_str())
    });
    of_pipeline.map(|(_, one)| passed(one)).min()
}

fn is_on_record(world: &World, field: &str) -> bool {
    let field = format!("\"{field}\"");
    own(world, "conflicts").any(|record| {
        let losing = record.get_document("losing");
        losing.is_ok_and(|losing| losing.to_string().contains(&field))
    })
}

/// Some document is to be sent whole.
fn is_owed(world: &World) -> bool {
    own(world, "keys").any(|note| note.contains_key("owed") || note.contains_key("lost"))
}

fn own<'a>(world: &'a World, collection: &'static str) -> impl Iterator<Item = &'a Document> {
    let found = Side::BOTH.into_iter().flat_map(move |side| {
        let replica = &world.replicas[side];
        replica.all(&format!("{OWN}.{collection}"), replica.time, None)
    });
    found.map(|(_, document)| document)
}

fn right_before(time: Timestamp) -> Timestamp {
    match time.increment {
        0 => Timestamp {
            time: time.time - 1,
            increment: u32::MAX,
        },
        increment => Timestamp {
            time: time.time,
            increment: increment - 1,
        },
    }
}
