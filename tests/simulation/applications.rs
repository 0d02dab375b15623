//! Applications write, plainly and in transactions, and keep account of it.

use std::time::Duration;

use bson::{Bson, Document, doc};
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
    pub keys: Vec<i32>,
    /// Whether it is a field of the document from then on.
    pub adds_field: bool,
}

pub fn field_of(number: u32) -> String {
    format!("w{number}")
}

pub fn place_of(key: i32) -> Place {
    (NAMESPACE.to_owned(), id_of(&Bson::Int32(key)))
}

/// Does one step of an application.
pub async fn perform(world: &SharedWorld, what: &What, account: &mut Vec<Written>) {
    let number = account.len() as u32 + 1;
    let (side, keys) = match what {
        What::Write { side, key }
        | What::Replace { side, key }
        | What::Delete { side, key }
        | What::NoChange { side, key } => (*side, vec![*key]),
        What::Transaction { side, keys } => (*side, keys.to_vec()),
        What::Crash { .. }
        | What::Sleep { .. }
        | What::Latecomer { .. }
        | What::Cut { .. }
        | What::Slow { .. }
        | What::Election { .. }
        | What::ClockJump { .. } => {
            panic!("no application does {what:?}")
        }
    };
    let until = Instant::now() + HELD_MAX;
    while write(&mut lock(world), side, what, &keys, number).is_err() {
        if Instant::now() >= until {
            let problem =
                format!("a plain write of {keys:?} on {side:?} was held for {HELD_MAX:?}");
            lock(world).problems.push(problem);
            return;
        }
        sleep(HELD_INTERVAL).await;
    }
    let adds_field = matches!(what, What::Write { .. } | What::Transaction { .. });
    account.push(Written {
        number,
        keys,
        adds_field,
    });
}

fn write(
    world: &mut World,
    side: Side,
    what: &What,
    keys: &[i32],
    number: u32,
) -> Result<bool, Refused> {
    if world.is_electing(side) {
        return Err(Refused::Held);
    }
    let transaction = matches!(what, What::Transaction { .. });
    let transaction = transaction.then(|| (world.dice.uuid(), 1));
    let replica = world.replica(side);
    let changes = keys.iter().map(|key| {
        let place = place_of(*key);
        let before = replica.as_of(&place, replica.time).cloned();
        (place, after(what, before, *key, number))
    });
    let changes = changes.collect();
    let done = replica.write_now(changes, Some(number), transaction);
    world.note(side, "application", i32::from(done.is_ok()));
    world.written(side);
    done
}

fn after(what: &What, before: Option<Document>, key: i32, number: u32) -> Option<Document> {
    let last = number as i32;
    match what {
        What::Write { .. } | What::Transaction { .. } => {
            let mut after = before.unwrap_or_else(|| doc! { "_id": key });
            after.insert("last", last);
            after.insert(field_of(number), last);
            Some(after)
        }
        What::Replace { .. } => Some(doc! { "_id": key, field_of(number): last, "last": last }),
        What::Delete { .. } => None,
        What::NoChange { .. } => before,
        What::Crash { .. }
        | What::Sleep { .. }
        | What::Latecomer { .. }
        | What::Cut { .. }
        | What::Slow { .. }
        | What::Election { .. }
        | What::ClockJump { .. } => None,
    }
}
