//! Removes notes that have done their work.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use tokio_util::sync::CancellationToken;

use super::own::Own;
use crate::change::{DocumentKey, Pair};
use crate::error::Result;
use crate::pipeline::Shared;
use crate::resolve::NoteToClear;
use crate::target::key_id;

/// Notes cleared in one round.
const NOTES_MAX: usize = 500;

/// How often notes that may not be cleared yet are looked at again.
const INTERVAL: Duration = Duration::from_millis(200);

/// Clears notes until cancelled. A note that stays is only work, never a wrong decision.
pub async fn clear_notes(shared: Arc<Shared>, own: Pair<Own>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.exchange.notes_wanted(INTERVAL) => {}
        }
        let mut notes = shared.exchange.take_notes_to_clear();
        if notes.is_empty() {
            continue;
        }
        let later = notes.split_off(notes.len().min(NOTES_MAX));
        let (now, not_yet): (Vec<_>, Vec<_>) = {
            let ledger = shared.exchange.ledger();
            notes.into_iter().partition(|note| ledger.may_clear(note))
        };
        let cleared = clear(&shared, &own, &now).await;
        let mut left = later;
        left.extend(not_yet);
        if let Err(error) = cleared {
            tracing::debug!(%error, "cannot clear notes, trying again");
            left.extend(now);
        }
        shared.exchange.put_back_notes_to_clear(left);
    }
}

async fn clear(shared: &Shared, own: &Pair<Own>, notes: &[NoteToClear]) -> Result<()> {
    let link = &shared.facts.link;
    for side in crate::change::Side::BOTH {
        let here: Vec<&NoteToClear> = notes.iter().filter(|note| note.side == side).collect();
        if here.is_empty() {
            continue;
        }
        let paid = here.iter().flat_map(|note| settled(link, note)).collect();
        own[side].update("keys", paid).await?;
        {
            let mut ledger = shared.exchange.ledger();
            for note in &here {
                ledger.note_cleared(note);
            }
        }
        let forgotten = here.iter().map(|note| forget_paid(link, note)).collect();
        own[side.other()].update("keys", forgotten).await?;
        for side in crate::change::Side::BOTH {
            let empty = here.iter().map(|note| delete_empty(link, &note.key));
            own[side].delete("keys", empty.collect()).await?;
        }
    }
    Ok(())
}

/// Drops what is gone from the document, and the note itself if it still has its value.
fn settled(link: &str, note: &NoteToClear) -> Vec<Document> {
    let mut statements = vec![doc! {
        "q": { "_id": id(link, &note.key) },
        "u": { "$pull": { "lost": { "at": { "$lte": note.replaced_through } } } },
    }];
    if let Some(value) = &note.value {
        statements.push(doc! {
            "q": { "_id": id(link, &note.key), "owed": value.as_ref() },
            "u": { "$unset": { "owed": "", "lost": "" } },
        });
    }
    statements
}

fn forget_paid(link: &str, note: &NoteToClear) -> Document {
    doc! {
        "q": { "_id": id(link, &note.key), "paid.through": note.replaced_through },
        "u": { "$unset": { "paid": "" } },
    }
}

/// `included` goes with the rest: by now the lane's checkpoint is past it or it is set again.
fn delete_empty(link: &str, key: &DocumentKey) -> Document {
    let mut query = doc! { "_id": id(link, key) };
    for field in ["owed", "paid", "included", "dead", "local"] {
        query.insert(field, doc! { "$exists": false });
    }
    doc! { "q": query, "limit": 1 }
}

fn id(link: &str, key: &DocumentKey) -> Document {
    Document::try_from(key_id(link, key)).expect("an id of our own making")
}
