//! Applications write, plainly and in transactions, and keep account of it.

use std::time::Duration;

use bson::{Bson, Document, Uuid, doc};
use tandem::change::Side;
use tokio::time::{Instant, sleep};

use crate::replica::{Place, Refused, id_of};
use crate::schedule::What;
use crate::world::{SharedWorld, World, lock};

pub const NAMESPACE: &str = "shop.orders";

/// An application whose document is held tries again.
const HELD_INTERVAL: Duration = Duration::from_millis(2);
/// Longer than any transaction of a living process is open.
const HELD_MAX: Duration = Duration::from_secs(60);

/// What was written, by the number of the write.
#[derive(Debug, Clone)]
pub struct Written {
    pub number: u32,
    /// The collection, by its UUID on the cluster it was written on.
    pub side: Side,
    pub uuid: Uuid,
    pub keys: Vec<i32>,
    /// Whether it is a field of the document from then on.
    pub adds_field: bool,
    /// Perhaps before the link began to read.
    pub is_early: bool,
}

pub fn field_of(number: u32) -> String {
    format!("w{number}")
}

pub fn place_of(key: i32) -> Place {
    place_in(NAMESPACE, key)
}

pub fn place_in(namespace: &str, key: i32) -> Place {
    (namespace.to_owned(), id_of(&Bson::Int32(key)))
}

/// A collection that comes and goes.
pub fn aside(collection: usize) -> String {
    format!("shop.aside{collection}")
}

/// What an application does, and to what.
struct Act {
    side: Side,
    namespace: String,
    keys: Vec<i32>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    AddField,
    Replace,
    Delete,
    NoChange,
    /// Of the collection.
    Create,
    Drop,
    Rename {
        to: usize,
    },
}

/// What a step has applications do; nothing where it is a fault.
fn act(what: &What) -> Option<Act> {
    let on_documents = |side: &Side, keys: Vec<i32>, kind| Act {
        side: *side,
        namespace: NAMESPACE.to_owned(),
        keys,
        kind,
    };
    let on_collection = |side: &Side, collection: &usize, kind| Act {
        side: *side,
        namespace: aside(*collection),
        keys: Vec::new(),
        kind,
    };
    Some(match what {
        What::Write { side, key } => on_documents(side, vec![*key], Kind::AddField),
        What::Transaction { side, keys } => on_documents(side, keys.to_vec(), Kind::AddField),
        What::Replace { side, key } => on_documents(side, vec![*key], Kind::Replace),
        What::Delete { side, key } => on_documents(side, vec![*key], Kind::Delete),
        What::NoChange { side, key } => on_documents(side, vec![*key], Kind::NoChange),
        What::WriteAside {
            side,
            collection,
            key,
        } => Act {
            keys: vec![*key],
            ..on_collection(side, collection, Kind::AddField)
        },
        What::Create { side, collection } => on_collection(side, collection, Kind::Create),
        What::Drop { side, collection } => on_collection(side, collection, Kind::Drop),
        What::Rename {
            side,
            collection,
            to,
        } => on_collection(side, collection, Kind::Rename { to: *to }),
        What::Crash { .. }
        | What::Sleep { .. }
        | What::Latecomer { .. }
        | What::Cut { .. }
        | What::Slow { .. }
        | What::Election { .. }
        | What::ClockJump { .. } => return None,
    })
}

/// Does one step of an application.
pub async fn perform(world: &SharedWorld, what: &What, account: &mut Vec<Written>) {
    let number = account.len() as u32 + 1;
    let act = act(what).unwrap_or_else(|| panic!("no application does {what:?}"));
    let until = Instant::now() + HELD_MAX;
    while do_once(&mut lock(world), &act, number).is_err() {
        if Instant::now() >= until {
            let problem = format!("{what:?} was held for {HELD_MAX:?}");
            lock(world).problems.push(problem);
            return;
        }
        sleep(HELD_INTERVAL).await;
    }
    let found = lock(world).replicas[act.side]
        .collections
        .get(&act.namespace)
        .map(|f| f.uuid);
    if let Some(uuid) = found.filter(|_| !act.keys.is_empty()) {
        account.push(Written {
            number,
            side: act.side,
            uuid,
            keys: act.keys,
            adds_field: act.kind == Kind::AddField,
            is_early: false,
        });
    }
}

fn do_once(world: &mut World, act: &Act, number: u32) -> Result<(), Refused> {
    if world.is_electing(act.side) {
        return Err(Refused::Held);
    }
    let transaction = (act.keys.len() > 1).then(|| (world.dice.uuid(), 1));
    let replica = world.replica(act.side);
    let changes = act.keys.iter().map(|key| {
        let place = place_in(&act.namespace, *key);
        let before = replica.as_of(&place, replica.time).cloned();
        (place, after(act.kind, before, *key, number))
    });
    let changes: Vec<_> = changes.collect();
    let done = match act.kind {
        Kind::AddField | Kind::Replace | Kind::Delete | Kind::NoChange => {
            let done = replica.write_now(changes, Some(number), transaction);
            done.map(|_| ())
        }
        Kind::Create => {
            replica.create_told(&act.namespace);
            Ok(())
        }
        Kind::Drop => replica.drop_collection(&act.namespace),
        Kind::Rename { to } => replica.rename(&act.namespace, &aside(to)),
    };
    world.note(act.side, "application", i32::from(done.is_ok()));
    world.written(act.side);
    done
}

fn after(kind: Kind, before: Option<Document>, key: i32, number: u32) -> Option<Document> {
    let last = number as i32;
    match kind {
        Kind::AddField => {
            let mut after = before.unwrap_or_else(|| doc! { "_id": key });
            after.insert("last", last);
            after.insert(field_of(number), last);
            Some(after)
        }
        Kind::Replace => Some(doc! { "_id": key, field_of(number): last, "last": last }),
        Kind::NoChange => before,
        Kind::Delete | Kind::Create | Kind::Drop | Kind::Rename { .. } => None,
    }
}
