//! Inserts, updates and deletes, as the server does them.

use bson::{Bson, Document, doc};

use crate::commands::{DUPLICATE_KEY, Outcome, View, WRITE_CONFLICT, open, refused};
use crate::query::{matches, says, sub};
use crate::replica::{Id, Place, Refused, Replica, id_of};
use crate::update::{Base, updated};

/// What one statement does to documents.
struct Change {
    place: Place,
    before: Option<Document>,
    after: Option<Document>,
}

pub fn write(
    replica: &mut Replica,
    verb: &str,
    namespace: &str,
    command: &Document,
    view: &View,
) -> Outcome {
    let statements = match verb {
        "insert" => command.get_array("documents"),
        "update" => command.get_array("updates"),
        _ => command.get_array("deletes"),
    };
    let statements = statements.expect("a write has statements");
    let may_be_held = view.session.is_none() && replica.holds_anything();
    if may_be_held && holds_any(replica, verb, namespace, statements, view) {
        return Outcome::Held;
    }
    let (mut matched, mut modified, mut upserted) = (0, 0, Vec::new());
    for (index, statement) in statements.iter().enumerate() {
        let now_view = View {
            time: view.session.map_or(replica.time, |_| view.time),
            session: view.session,
        };
        let Some(changes) = changes(replica, verb, namespace, sub(statement), &now_view) else {
            replica.abort(&view.session.into_iter().collect());
            return Outcome::Reply(write_error(DUPLICATE_KEY, index as i32));
        };
        for change in changes {
            matched += 1;
            if verb == "update" && change.before.is_none() {
                upserted.push(doc! { "index": index as i32 });
            }
            let was_there = change.before.is_some();
            match apply(replica, view, change) {
                Ok(effective) => modified += i32::from(effective && was_there),
                Err(Refused::Conflict) => {
                    replica.abort(&view.session.into_iter().collect());
                    return refused(WRITE_CONFLICT);
                }
                Err(Refused::Held) => panic!("looked at before"),
            }
        }
    }
    let mut reply = doc! { "n": matched };
    if verb == "update" {
        reply.insert("nModified", modified);
        if !upserted.is_empty() {
            reply.insert("upserted", upserted);
        }
    }
    Outcome::Reply(reply)
}

fn holds_any(
    replica: &Replica,
    verb: &str,
    namespace: &str,
    statements: &[Bson],
    view: &View,
) -> bool {
    let touched = statements
        .iter()
        .filter_map(|statement| changes(replica, verb, namespace, sub(statement), view));
    touched
        .flatten()
        .any(|change| replica.is_held(&change.place, None))
}

/// None: a document of this `_id` is there already.
fn changes(
    replica: &Replica,
    verb: &str,
    namespace: &str,
    statement: &Document,
    view: &View,
) -> Option<Vec<Change>> {
    let place = |id: &Bson| (namespace.to_owned(), id_of(id));
    let now = replica.now();
    let own = open(replica, view);
    let all = replica.all(namespace, view.time, own);
    if verb == "insert" {
        let place = place(&statement["_id"]);
        let is_there = all.iter().any(|(id, _)| **id == place.1);
        let after = Some(statement.clone());
        return (!is_there).then(|| {
            vec![Change {
                place,
                before: None,
                after,
            }]
        });
    }
    let query = statement.get_document("q").expect("a query");
    let limit = statement.get("limit").and_then(Bson::as_i32);
    let one = limit.is_none_or(|limit| limit == 1) && !says(statement, "multi");
    let found = all.iter().filter(|(_, found)| matches(found, query, now));
    let found = found.take(if one { 1 } else { usize::MAX });
    let change = |(id, before): &(&Id, &Document)| {
        let after = match verb {
            "update" => Some(updated(before, &statement["u"], Base::Found, now)),
            _ => None,
        };
        Change {
            place: (namespace.to_owned(), (*id).clone()),
            before: Some((*before).clone()),
            after,
        }
    };
    let mut changes: Vec<Change> = found.map(change).collect();
    let upserts = says(statement, "upsert");
    if verb == "update" && upserts && changes.is_empty() {
        let id = id_of(&query["_id"]);
        if all.iter().any(|(one, _)| **one == id) {
            return None;
        }
        let made = doc! { "_id": query["_id"].clone() };
        let after = updated(&made, &statement["u"], Base::Made, now);
        changes.push(Change {
            place: place(&query["_id"]),
            before: None,
            after: Some(after),
        });
    }
    Some(changes)
}

fn apply(replica: &mut Replica, view: &View, change: Change) -> Result<bool, Refused> {
    let Change {
        place,
        before,
        after,
    } = change;
    match view.session {
        Some(session) => replica.write_in(session, place, before.as_ref(), after),
        None => replica.write_now(vec![(place, after)], None, None),
    }
}

pub fn write_error(code: i32, index: i32) -> Document {
    doc! { "n": 0, "writeErrors": [{ "index": index, "code": code, "errmsg": "refused" }] }
}
