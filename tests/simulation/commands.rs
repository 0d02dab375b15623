//! The commands that tandem sends, as the server answers them.

use std::collections::HashSet;

use bson::{Bson, Document, Timestamp, Uuid, doc};

use crate::collections::change;
use crate::query::{condition_holds, list, matches, part, says, sub};
use crate::reads::{find, get_more};
use crate::replica::{NEVER, Operation, Refused, Replica, SessionState, Standing, Transaction};
use crate::writes::{write, write_error};

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

pub const WRITE_CONFLICT: i32 = 112;
const NO_SUCH_TRANSACTION: i32 = 251;
const SNAPSHOT_UNAVAILABLE: i32 = 246;
const SNAPSHOT_TOO_OLD: i32 = 239;
const TRANSACTION_TOO_OLD: i32 = 225;
const CONFLICTING_OPERATION: i32 = 117;
pub const NAMESPACE_NOT_FOUND: i32 = 26;
const COLLECTION_UUID_MISMATCH: i32 = 361;
const INVALID_OPTIONS: i32 = 72;
pub const DUPLICATE_KEY: i32 = 11000;

/// Where a command reads: the present or a snapshot, with or without a transaction's own writes.
pub struct View {
    pub time: Timestamp,
    pub session: Option<Uuid>,
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
    if time_asked(command, "afterClusterTime").is_some_and(|asked| replica.hides(asked)) {
        return Outcome::Held;
    }
    let outcome = match begin(replica, command, session) {
        Ok(view) => answer(replica, database, command, &view),
        Err(code) => refused(code),
    };
    match outcome {
        Outcome::Reply(mut reply) => {
            reply.insert("ok", 1.0);
            reply.insert("operationTime", operation_time(replica, command));
            Outcome::Reply(reply)
        }
        Outcome::Refused { code, .. } if !command.contains_key("txnNumber") => Outcome::Refused {
            code,
            labels: Vec::new(),
        },
        other => other,
    }
}

/// Of a read of what a majority has: how far that goes.
fn operation_time(replica: &Replica, command: &Document) -> Timestamp {
    match asks_for_majority(command) && !command.contains_key("txnNumber") {
        true => replica.shown_time(),
        false => replica.time,
    }
}

fn asks_for_majority(command: &Document) -> bool {
    let concern = command.get_document("readConcern");
    concern.is_ok_and(|concern| matches!(concern.get_str("level"), Ok("majority")))
}

pub fn refused(code: i32) -> Outcome {
    let labels = match code {
        WRITE_CONFLICT | NO_SUCH_TRANSACTION | SNAPSHOT_TOO_OLD | SNAPSHOT_UNAVAILABLE => {
            vec!["TransientTransactionError"]
        }
        _ => Vec::new(),
    };
    Outcome::Refused { code, labels }
}

pub fn snapshot_asked(command: &Document) -> Option<Timestamp> {
    time_asked(command, "atClusterTime")
}

fn time_asked(command: &Document, name: &str) -> Option<Timestamp> {
    part(command, "readConcern")?.get(name)?.as_timestamp()
}

/// Finds or starts the command's transaction.
fn begin(replica: &mut Replica, command: &Document, session: Option<Uuid>) -> Result<View, i32> {
    let asked = snapshot_asked(command);
    if asked.is_some_and(|asked| asked > replica.time) {
        return Err(INVALID_OPTIONS);
    }
    if asked.is_some_and(|asked| replica.is_forgotten(asked)) {
        return Err(SNAPSHOT_TOO_OLD);
    }
    let latest = match asks_for_majority(command) {
        true => replica.shown_time(),
        false => replica.time,
    };
    let time = asked.unwrap_or(latest);
    let (Some(session), Some(number)) = (session, command.get("txnNumber").and_then(Bson::as_i64))
    else {
        return Ok(View {
            time,
            session: None,
        });
    };
    let known = replica.sessions.get(&session);
    let (known, written) = known.map_or((0, NEVER), |state| (state.number, state.written));
    if number < known {
        return Err(TRANSACTION_TOO_OLD);
    }
    if says(command, "startTransaction") {
        if number == known {
            return Err(CONFLICTING_OPERATION);
        }
        let open = Transaction {
            snapshot: time,
            touched: Default::default(),
            written: Default::default(),
            operations: Vec::new(),
        };
        let state = SessionState {
            number,
            standing: Standing::Open(open),
            written,
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
    let subject_name = subject.as_str().unwrap_or_default();
    let namespace = match name.as_str() {
        "renameCollection" => subject_name.to_owned(),
        _ => format!("{database}.{subject_name}"),
    };
    if let Some(refusal) = refusal(replica, name, &namespace, command, view) {
        replica.abort(&view.session.into_iter().collect());
        return refusal;
    }
    if let Some(session) = view.session {
        replica.touch(session, &namespace);
    }
    match name.as_str() {
        "hello" => Outcome::Reply(doc! { "setName": replica.set, "localTime": replica.now() }),
        "buildInfo" => Outcome::Reply(doc! { "version": "6.0.5" }),
        "getParameter" => Outcome::Reply(compatibility()),
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
        "find" if namespace == "local.oplog.rs" => cursor(entries(replica, command, view)),
        "collStats" if namespace == "local.oplog.rs" => {
            let (bytes, bytes_max) = (1_i64, 1_000_i64);
            Outcome::Reply(doc! { "size": bytes, "maxSize": bytes_max })
        }
        "collStats" => Outcome::Reply(size(replica, &namespace)),
        "getMore" => get_more(replica, subject.as_i64().expect("the id of a cursor")),
        "create" | "drop" | "renameCollection" => change(replica, name, &namespace, command),
        "find" => find(replica, &namespace, command, view),
        "insert" | "update" | "delete" => write(replica, name, &namespace, command, view),
        "commitTransaction" => {
            let committed = view.session.map(|session| replica.commit(session));
            match committed {
                Some(Err(Refused::Conflict | Refused::Held)) => refused(WRITE_CONFLICT),
                Some(Ok(())) | None => Outcome::Reply(doc! {}),
            }
        }
        "abortTransaction" => {
            replica.abort(&view.session.into_iter().collect());
            Outcome::Reply(doc! {})
        }
        other => panic!("the simulation knows no command {other}: {command}"),
    }
}

/// Whether another collection has the name, or had at the time that is read.
fn refusal(
    replica: &Replica,
    name: &str,
    namespace: &str,
    command: &Document,
    view: &View,
) -> Option<Outcome> {
    let found = replica.collections.get(namespace);
    let wanted = command.get("collectionUUID").and_then(uuid_of);
    if wanted.is_some_and(|wanted| found.map(|found| found.uuid) != Some(wanted)) {
        return Some(match name {
            "insert" | "update" | "delete" => {
                Outcome::Reply(write_error(COLLECTION_UUID_MISMATCH, 0))
            }
            _ => refused(COLLECTION_UUID_MISMATCH),
        });
    }
    let of_the_past = view.session.is_some() || snapshot_asked(command).is_some();
    let is_too_new = found.is_some_and(|found| found.visible_from > view.time);
    (of_the_past && is_too_new).then(|| refused(SNAPSHOT_UNAVAILABLE))
}

/// What is found in the oplog: of sessions their first entry, and else the oldest of all.
fn entries(replica: &Replica, command: &Document, view: &View) -> Vec<Document> {
    let filter = part(command, "filter");
    match filter.filter(|filter| filter.contains_key("lsid.id")) {
        Some(filter) => first_data_written(replica, filter, view),
        None => {
            let first = Timestamp {
                time: 1,
                increment: 1,
            };
            vec![doc! { "ts": first }]
        }
    }
}

/// The first entry of the oplog by which one of the sessions wrote data of applications.
fn first_data_written(replica: &Replica, filter: &Document, view: &View) -> Vec<Document> {
    let range = doc! { "ts": filter.get("ts").expect("times") };
    let sessions = filter.get("lsid.id").expect("sessions");
    let is_data = |operation: &Operation| !operation.namespace.starts_with("__tandem.");
    let shown = replica.oplog.iter().filter(|entry| entry.time <= view.time);
    let mut found = shown.filter_map(|entry| {
        let (session, _) = entry.transaction?;
        let session = Bson::Binary(session.into());
        let document = doc! { "ts": entry.time };
        let is_it = condition_holds(Some(&session), sessions)
            && matches(&document, &range, replica.now())
            && entry.operations.iter().any(is_data);
        is_it.then_some(document)
    });
    found.next().into_iter().collect()
}

fn cursor(documents: Vec<Document>) -> Outcome {
    Outcome::Reply(doc! { "cursor": { "id": 0_i64, "ns": "", "firstBatch": documents } })
}

/// The server's own counters, which may be wrong.
fn size(replica: &Replica, namespace: &str) -> Document {
    let count = replica.all(namespace, replica.time, None).len() as i64;
    doc! { "count": count, "size": count * replica.document_bytes }
}

fn compatibility() -> Document {
    doc! { "featureCompatibilityVersion": { "version": "6.0" } }
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

pub fn open<'a>(replica: &'a Replica, view: &View) -> Option<&'a Transaction> {
    match &replica.sessions.get(&view.session?)?.standing {
        Standing::Open(open) => Some(open),
        Standing::Committed | Standing::Aborted => None,
    }
}

pub fn uuid_of(value: &Bson) -> Option<Uuid> {
    match value {
        Bson::Binary(binary) => binary.to_uuid().ok(),
        _ => None,
    }
}
