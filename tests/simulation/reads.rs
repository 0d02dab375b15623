//! Reads of a collection: along its index, in batches, by cursors that live as long as the primary.

use bson::{Bson, Document, Timestamp, Uuid, doc};

use crate::commands::{Outcome, View, open, refused, snapshot_asked};
use crate::query::{compare, matches, part};
use crate::replica::Replica;

const CURSOR_NOT_FOUND: i32 = 43;
const QUERY_PLAN_KILLED: i32 = 175;
const SNAPSHOT_TOO_OLD: i32 = 239;

/// What is left of a read outside of a transaction.
#[derive(Debug)]
pub struct OpenCursor {
    command: Document,
    namespace: String,
    /// None once it is dropped or renamed.
    uuid: Option<Uuid>,
    /// Each batch of a cursor without one sees what a majority has by then.
    snapshot: Option<Timestamp>,
    /// The `_id` of the last document so far.
    last: Bson,
}

/// A batch ends where the server says; whoever gave no size gets everything.
pub fn find(replica: &mut Replica, namespace: &str, command: &Document, view: &View) -> Outcome {
    let found = documents(replica, namespace, command, view, None);
    let cursor = view.session.is_none().then(|| OpenCursor {
        command: command.clone(),
        namespace: namespace.to_owned(),
        uuid: replica.collections.get(namespace).map(|found| found.uuid),
        snapshot: snapshot_asked(command),
        last: Bson::Null,
    });
    let is_whole = !command.contains_key("batchSize");
    batch(replica, "firstBatch", cursor, found, is_whole)
}

/// The next batch. A cursor sees what is there by then, behind the document it has come to.
pub fn get_more(replica: &mut Replica, id: i64) -> Outcome {
    let Some(cursor) = replica.cursors.remove(&id) else {
        return refused(CURSOR_NOT_FOUND);
    };
    let there = replica.collections.get(&cursor.namespace);
    if there.map(|found| found.uuid) != cursor.uuid {
        return refused(QUERY_PLAN_KILLED);
    }
    if cursor.snapshot.is_some_and(|at| replica.is_forgotten(at)) {
        return refused(SNAPSHOT_TOO_OLD);
    }
    let view = View {
        time: cursor.snapshot.unwrap_or(replica.shown_time()),
        session: None,
    };
    let (name, last) = (cursor.namespace.as_str(), Some(&cursor.last));
    let found = documents(replica, name, &cursor.command, &view, last);
    batch(replica, "nextBatch", Some(cursor), found, false)
}

fn batch(
    replica: &mut Replica,
    name: &str,
    cursor: Option<OpenCursor>,
    mut found: Vec<Document>,
    is_whole: bool,
) -> Outcome {
    let wanted = match is_whole {
        true => usize::MAX,
        false => replica.batch_documents_max,
    };
    let mut id = 0_i64;
    // One that is as long as it may be does not know yet whether anything follows.
    if found.len() >= wanted {
        found.truncate(wanted);
        replica.last_cursor += 1;
        id = replica.last_cursor;
        // Nobody goes on with one inside of a transaction.
        if let Some(mut cursor) = cursor {
            cursor.last = found.last().expect("a batch holds one")["_id"].clone();
            replica.cursors.insert(id, cursor);
        }
    }
    Outcome::Reply(doc! { "cursor": { "id": id, "ns": "", name: found } })
}

/// In the order of the index, behind a document that was read already.
fn documents(
    replica: &Replica,
    namespace: &str,
    command: &Document,
    view: &View,
    behind: Option<&Bson>,
) -> Vec<Document> {
    let everything = doc! {};
    let filter = part(command, "filter").unwrap_or(&everything);
    let all = replica.all(namespace, view.time, open(replica, view));
    let end = |name: &str| part(command, name)?.get("_id");
    let (min, max) = (end("min"), end("max"));
    let mut found: Vec<&Document> = all
        .into_iter()
        .map(|(_, found)| found)
        .filter(|found| is_within(&found["_id"], min, max))
        .filter(|found| matches(found, filter, replica.now()))
        .collect();
    if command.contains_key("hint") || command.contains_key("batchSize") {
        found.sort_by(|one, other| compare(&one["_id"], &other["_id"]).expect("keys of one type"));
    }
    found.retain(|found| behind.is_none_or(|behind| is_less(behind, &found["_id"])));
    let number = |name: &str| {
        let found = command.get(name)?;
        let number = found.as_i64().or(found.as_i32().map(i64::from));
        Some(number.expect("a number") as usize)
    };
    let found = found.into_iter().skip(number("skip").unwrap_or(0));
    let found = found.take(number("limit").unwrap_or(usize::MAX));
    found.map(|found| projected(found, command)).collect()
}

/// From `min` on, up to but without `max`.
fn is_within(id: &Bson, min: Option<&Bson>, max: Option<&Bson>) -> bool {
    min.is_none_or(|min| !is_less(id, min)) && max.is_none_or(|max| is_less(id, max))
}

fn is_less(one: &Bson, other: &Bson) -> bool {
    compare(one, other).is_some_and(|order| order.is_lt())
}

/// Fields are only ever chosen, beside `_id`.
fn projected(found: &Document, command: &Document) -> Document {
    let Some(chosen) = part(command, "projection") else {
        return found.clone();
    };
    let is_chosen = |name: &String| name == "_id" || chosen.get(name) == Some(&Bson::Int32(1));
    let fields = found.iter().filter(|(name, _)| is_chosen(name));
    fields
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
