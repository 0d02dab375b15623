//! Removes notes that have done their work.

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use tokio_util::sync::CancellationToken;

use super::history::notes;
use super::own::Own;
use crate::change::{AppliedThrough, DocumentKey, Pair, Rank, Side};
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
        biased;
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
    settle(&shared.facts.link, own, notes).await?;
    let mut ledger = shared.exchange.ledger();
    for note in notes {
        ledger.note_cleared(note);
    }
    Ok(())
}

/// Removes paid notes from the clusters: first what they say, only then that they were paid.
///
/// # Errors
/// As the clusters say; to be done again then.
async fn settle(link: &str, own: &Pair<Own>, notes: &[NoteToClear]) -> Result<()> {
    for part in notes.chunks(NOTES_MAX) {
        for side in Side::BOTH {
            let here: Vec<&NoteToClear> = part.iter().filter(|note| note.side == side).collect();
            if here.is_empty() {
                continue;
            }
            let paid = here.iter().flat_map(|note| settled(link, note)).collect();
            own[side].update("keys", paid).await?;
            let forgotten = here.iter().map(|note| forget_paid(link, note)).collect();
            own[side.other()].update("keys", forgotten).await?;
            for side in Side::BOTH {
                let empty = here.iter().map(|note| delete_empty(link, &note.key));
                own[side].delete("keys", empty.collect()).await?;
            }
        }
    }
    Ok(())
}

/// Removes what a former process was about to remove, while nothing is applied yet: notes that were
/// paid, `included` that every lane's checkpoint is past, and notes that say nothing any more.
/// `checkpoints[x]` are the positions on x of the pipeline from x.
///
/// # Errors
/// As the clusters say.
pub(super) async fn clear_leftovers(
    link: &str,
    own: &Pair<Own>,
    rank: Rank,
    checkpoints: &Pair<Vec<AppliedThrough>>,
) -> Result<()> {
    let mut paid = Vec::new();
    for side in Side::BOTH {
        for (key, found) in notes(&own[side], link, rank).await? {
            let Some((value, replaced_through)) = found.paid else {
                continue;
            };
            paid.push(NoteToClear {
                side: side.other(),
                key,
                value: (!value.is_empty()).then(|| value.into()),
                replaced_through,
            });
        }
    }
    settle(link, own, &paid).await?;
    for side in Side::BOTH {
        let Some(lowest) = checkpoints[side.other()].iter().min() else {
            continue;
        };
        let passed = match lowest.0.whole {
            true => doc! { "$lte": lowest.0.time },
            false => doc! { "$lt": lowest.0.time },
        };
        let passed = doc! {
            "q": { "_id.link": link, "included": passed },
            "u": { "$unset": { "included": "" } },
            "multi": true,
        };
        own[side].update("keys", vec![passed]).await?;
        let empty = doc! { "q": empty(doc! { "_id.link": link }), "limit": 0 };
        own[side].delete("keys", vec![empty]).await?;
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

/// A note that says nothing any more.
fn delete_empty(link: &str, key: &DocumentKey) -> Document {
    doc! { "q": empty(doc! { "_id": id(link, key) }), "limit": 1 }
}

fn empty(mut query: Document) -> Document {
    for field in ["owed", "paid", "included", "dead", "local"] {
        query.insert(field, doc! { "$exists": false });
    }
    query
}

fn id(link: &str, key: &DocumentKey) -> Document {
    Document::try_from(key_id(link, key)).expect("an id of our own making")
}
