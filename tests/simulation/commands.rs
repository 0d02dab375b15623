//! The commands that tandem sends, as the server answers them.

use std::collections::HashSet;

use bson::{Bson, Document, Timestamp, Uuid, doc};

use crate::query::{list, matches, sub};
use crate::replica::{Place, Refused, Replica, SessionState, Standing, Transaction, id_of};
use crate::update::{Base, updated};

/// What the server does with a command.
#[derive(Debug)]
pub enum Outcome {
    Reply(Document),
    /// An error of the whole command.
    Refused {
        code: i32,
        labels: Vec<&'static str>,
    },
    /// It waits for a document that somebody's transaction holds.
    Held,
}

const WRITE_CONFLICT: i32 = 112;
const NO_SUCH_TRANSACTION: i32 = 251;
const TRANSACTION_TOO_OLD: i32 = 225;
const CONFLICTING_OPERATION: i32 = 117;
const NAMESPACE_NOT_FOUND: i32 = 26;
const COLLECTION_UUID_MISMATCH: i32 = 361;
const INVALID_OPTIONS: i32 = 72;
const DUPLICATE_KEY: i32 = 11000;

/// Where a command reads: the present or a snapshot, with or without a transaction's own writes.
struct View {
    time: Timestamp,
    session: Option<Uuid>,
}

pub fn run(
    replica: &mut Replica,
    database: &str,
    command: &Document,
    session: Option<Uuid>,
) -> Outcome {
    if snapshot_asked(command).is_some_and(|asked| replica.is_not_durable_yet(asked)) {
        return Outcome::Held;
    }
    let outcome = match begin(replica, command, session) {
        Ok(view) => answer(replica, database, command, &view),
        Err(code) => refused(code),
    };
    match outcome {
        Outcome::Reply(mut reply) => {
            reply.insert("ok", 1.0);
            reply.insert("operationTime", replica.time);
            Outcome::Reply(reply)
        }
        other => other,
    }
}

fn refused(code: i32) -> Outcome {
    let labels = match code {
        WRITE_CONFLICT | NO_SUCH_TRANSACTION => vec!["TransientTransactionError"],
        _ => Vec::new(),
    };
    Outcome::Refused { code, labels }
}

fn snapshot_asked(command: &Document) -> Option<Timestamp> {
    let concern = command.get_document("readConcern").ok()?;
    concern.get_timestamp("atClusterTime").ok()
}

/// Finds or starts the command's transaction.
fn begin(replica: &mut Replica, command: &Document, session: Option<Uuid>) -> Result<View, i32> {
    let asked = snapshot_asked(command);
    if asked.is_some_and(|asked| asked > replica.time) {
        return Err(INVALID_OPTIONS);
    }
    let concern = command.get_document("readConcern").ok();
    let of_majority =
        concern.is_some_and(|concern| matches!(concern.get_str("level"), Ok("majority")));
    let latest = match of_majority {
        true => replica.durable_time(),
        false => replica.time,
    };
    let time = asked.unwrap_or(latest);
    let (Some(session), Ok(number)) = (session, command.get_i64("txnNumber")) else {
        return Ok(View {
            time,
            session: None,
        });
    };
    let known = replica
        .sessions
        .get(&session)
        .map_or(0, |state| state.number);
    if number < known {
        return Err(TRANSACTION_TOO_OLD);
    }
    if command.get_bool("startTransaction").unwrap_or(false) {
        if number == known {
            return Err(CONFLICTING_OPERATION);
        }
        let open = Transaction {
            snapshot: time,
            written: Default::default(),
            operations: Vec::new(),
        };
        let state = SessionState {
            number,
            standing: Standing::Open(open),
        };
        replica.sessions.insert(session, state);
    } else if number > known {
        return Err(NO_SUCH_TRANSACTION);
    }
    match &replica.sessions[&session].standing {
        Standing::Open(open) => Ok(View {
            time: open.snapshot,
            session: Some(session),
        }),
        Standing::Committed if command.contains_key("commitTransaction") => Ok(View {
            time,
            session: None,
        }),
        Standing::Committed | Standing::Aborted => Err(NO_SUCH_TRANSACTION),
    }
}

fn answer(replica: &mut Replica, database: &str, command: &Document, view: &View) -> Outcome {
    let (name, subject) = command.iter().next().expect("a command has a name");
    let namespace = format!("{database}.{}", subject.as_str().unwrap_or_default());
    if let Some(wanted) = command.get("collectionUUID").and_then(uuid_of)
        && replica.collections.get(&namespace).map(|found| found.uuid) != Some(wanted)
    {
        return match name.as_str() {
            "find" => refused(COLLECTION_UUID_MISMATCH),
            _ => Outcome::Reply(write_error(COLLECTION_UUID_MISMATCH, 0)),
        };
    }
    match name.as_str() {
        "hello" => Outcome::Reply(doc! { "setName": replica.set, "localTime": replica.now() }),
        "buildInfo" => Outcome::Reply(doc! { "version": "6.0.5" }),
        "ping" => Outcome::Reply(doc! {}),
        // Without access control nobody has logged in.
        "connectionStatus" => Outcome::Reply(
            doc! { "authInfo": { "authenticatedUsers": [], "authenticatedUserPrivileges": [] } },
        ),
        "replSetGetConfig" => {
            let id = bson::oid::ObjectId::from_bytes([replica.set.as_bytes()[0]; 12]);
            Outcome::Reply(doc! { "config": { "settings": { "replicaSetId": id } } })
        }
        "killSessions" => {
            let ids = list(subject).iter();
            let ids: HashSet<Uuid> = ids.filter_map(|one| uuid_of(sub(one).get("id")?)).collect();
            replica.abort(&ids);
            Outcome::Reply(doc! {})
        }
        "listDatabases" => list_databases(replica),
        "listCollections" => list_collections(replica, database, command),
        "listIndexes" => match replica.collections.contains_key(&namespace) {
            true => cursor(vec![doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" }]),
            false => refused(NAMESPACE_NOT_FOUND),
        },
        "find" if namespace == "local.oplog.rs" => {
            let first = Timestamp {
                time: 1,
                increment: 1,
            };
            cursor(vec![doc! { "ts": first }])
        }
        "collStats" if namespace == "local.oplog.rs" => {
            let (bytes, bytes_max) = (1_i64, 1_000_i64);
            Outcome::Reply(doc! { "size": bytes, "maxSize": bytes_max })
        }
        "find" => find(replica, &namespace, command, view),
        "insert" | "update" | "delete" => write(replica, name, &namespace, command, view),
        "commitTransaction" => {
            if let Some(session) = view.session {
                replica.commit(session);
            }
            Outcome::Reply(doc! {})
        }
        "abortTransaction" => {
            replica.abort(&view.session.into_iter().collect());
            Outcome::Reply(doc! {})
        }
        other => panic!("the simulation knows no command {other}: {command}"),
    }
}

fn cursor(documents: Vec<Document>) -> Outcome {
    Outcome::Reply(doc! { "cursor": { "id": 0_i64, "ns": "", "firstBatch": documents } })
}

fn list_databases(replica: &Replica) -> Outcome {
    let databases = replica.collections.keys();
    let mut names: Vec<&str> = databases
        .filter_map(|namespace| Some(namespace.split_once('.')?.0))
        .collect();
    names.dedup();
    let listed: Vec<Document> = names.iter().map(|name| doc! { "name": *name }).collect();
    Outcome::Reply(doc! { "databases": listed })
}

fn list_collections(replica: &Replica, database: &str, command: &Document) -> Outcome {
    let filter = command.get_document("filter").ok();
    let wanted = filter.and_then(|filter| filter.get_document("name").ok());
    let wanted = wanted.and_then(|wanted| wanted.get_array("$in").ok());
    let uuid = filter.and_then(|filter| filter.get("info.uuid"));
    let listed = replica.collections.iter().filter_map(|(namespace, found)| {
        let name = namespace.strip_prefix(database)?.strip_prefix('.')?;
        let entry = doc! {
            "name": name, "type": "collection", "options": {}, "info": { "uuid": found.uuid },
        };
        let is_of = |uuid: &Bson| *uuid == Bson::from(found.uuid);
        let is_wanted =
            wanted.is_none_or(|wanted| wanted.contains(&name.into())) && uuid.is_none_or(is_of);
        is_wanted.then_some(entry)
    });
    cursor(listed.collect())
}

fn find(replica: &Replica, namespace: &str, command: &Document, view: &View) -> Outcome {
    let everything = doc! {};
    let filter = command.get_document("filter").unwrap_or(&everything);
    let limit = command.get_i32("limit").unwrap_or(i32::MAX) as usize;
    let all = replica.all(namespace, view.time, open(replica, view));
    let found = all.into_iter().map(|(_, found)| found);
    let found = found.filter(|found| matches(found, filter, replica.now()));
    cursor(found.take(limit).collect())
}

fn open<'a>(replica: &'a Replica, view: &View) -> Option<&'a Transaction> {
    match &replica.sessions.get(&view.session?)?.standing {
        Standing::Open(open) => Some(open),
        Standing::Committed | Standing::Aborted => None,
    }
}

/// What one statement does to documents.
struct Change {
    place: Place,
    before: Option<Document>,
    after: Option<Document>,
}

fn write(
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
    if view.session.is_none() && holds_any(replica, verb, namespace, statements, view) {
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
        let is_there = all.iter().any(|(id, _)| *id == place.1);
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
    let one = statement.get_i32("limit").unwrap_or(1) == 1
        && !statement.get_bool("multi").unwrap_or(false);
    let found = all
        .into_iter()
        .filter(|(_, found)| matches(found, query, now));
    let found = found.take(if one { 1 } else { usize::MAX });
    let change = |(id, before): (Vec<u8>, Document)| {
        let after = match verb {
            "update" => Some(updated(&before, &statement["u"], Base::Found, now)),
            _ => None,
        };
        Change {
            place: (namespace.to_owned(), id),
            before: Some(before),
            after,
        }
    };
    let mut changes: Vec<Change> = found.map(change).collect();
    let upserts = statement.get_bool("upsert").unwrap_or(false);
    if verb == "update" && upserts && changes.is_empty() {
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

fn write_error(code: i32, index: i32) -> Document {
    doc! { "n": 0, "writeErrors": [{ "index": index, "code": code, "errmsg": "refused" }] }
}

pub fn uuid_of(value: &Bson) -> Option<Uuid> {
    match value {
        Bson::Binary(binary) => binary.to_uuid().ok(),
        _ => None,
    }
}
