//! Copies what takes no transactions: once, in natural order, and says that it is not followed.

use bson::{Document, RawDocument, RawDocumentBuf, cstr, rawdoc};

use super::InitialSync;
use super::progress::{NotDone, StoredRange, save_range, store_ranges, stored_ranges};
use super::survey::Surveyed;
use crate::change::{Namespace, Selection, Side};
use crate::cluster::{Cluster, CursorKind, errors};
use crate::error::Result;
use crate::pipeline::{Pause, create, insist, list, too_long};
use crate::ranges::{self, Range};
use crate::target::append;

const BATCH_DOCUMENTS_MAX: i64 = 1000;

/// A capped collection may lose what is being read to newer documents: so often it is read anew.
const TRIES_MAX: u32 = 5;

/// Documents of a capped collection were overwritten before the cursor came to them.
const CAPPED_POSITION_LOST: i32 = 136;

/// How the copy of a collection came out.
enum Outcome {
    Copied,
    NotCopied(String),
}

impl InitialSync {
    /// Copies a collection that is not kept in step, unless it has been, and lists it. Gives its
    /// lasting name.
    ///
    /// # Errors
    /// As the clusters say.
    pub(super) async fn copy_once(&self, one: &Surveyed) -> Result<Namespace> {
        let namespace = &one.namespace;
        let why = one.unsupported.unwrap_or("it takes no transactions");
        let lasting = match one.uuid {
            Some(uuid) => {
                let collections = &self.shared.collections;
                collections.identify(Side::A, uuid, namespace)
            }
            None => namespace.clone(),
        };
        insist(|| self.shared.collections.unpair(&lasting, why)).await?;
        self.shared.exchange.ledger().unpair(lasting.clone());
        let reason = match self.copy_at_rest(one, &lasting).await? {
            Outcome::Copied => format!("copied once, later changes are not replicated: {why}"),
            Outcome::NotCopied(reason) => reason,
        };
        tracing::warn!(%namespace, reason, "not kept in step");
        let mut numbers = self.progress.numbers();
        numbers.namespaces_done += 1;
        numbers.not_done.push(NotDone {
            namespace: namespace.to_string(),
            index: None,
            reason,
        });
        Ok(lasting)
    }

    async fn copy_at_rest(&self, one: &Surveyed, lasting: &Namespace) -> Result<Outcome> {
        let link = &self.shared.facts.link;
        let namespace = &one.namespace;
        let stored = insist(|| stored_ranges(&self.own.b, link, lasting)).await?;
        let mut range = match stored.into_iter().next() {
            Some(range) if range.is_done => return Ok(Outcome::Copied),
            Some(range) => range,
            None => {
                if one.counterpart.is_too_long() {
                    return Ok(Outcome::NotCopied(too_long(&self.clusters.b)));
                }
                let there = insist(|| list(&self.clusters.b, &one.counterpart)).await?;
                if there.is_some_and(|there| there.options != one.options) {
                    let target = &self.clusters.b.name;
                    let reason = format!("{target} has its name for something else");
                    return Ok(Outcome::NotCopied(reason));
                }
                let whole = || store_ranges(&self.own.b, link, lasting, vec![Range::whole()]);
                insist(whole).await?.remove(0)
            }
        };
        let mut pause = Pause::of_outages();
        let mut tries = 0;
        loop {
            match self.copy_whole(one, &mut range).await {
                Ok(()) => break,
                Err(error) if errors::code_of(&error) == Some(CAPPED_POSITION_LOST) => {
                    tries += 1;
                    if tries >= TRIES_MAX {
                        let reason = "it is overwritten faster than it can be read".to_owned();
                        return Ok(Outcome::NotCopied(reason));
                    }
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(%namespace, %error, "copying breaks off, beginning anew soon");
                    tokio::time::sleep(pause.wait()).await;
                }
                Err(error) => return Ok(Outcome::NotCopied(error.to_string())),
            }
        }
        range.is_done = true;
        insist(|| save_range(&self.own.b, &range)).await?;
        Ok(Outcome::Copied)
    }

    /// From an empty collection on: what is there of an earlier try has no place to go on from.
    async fn copy_whole(&self, one: &Surveyed, range: &mut StoredRange) -> Result<()> {
        let target = &self.clusters.b;
        let there = &one.counterpart;
        self.uncount(range);
        drop_collection(target, there).await?;
        create(target, there, &one.options).await?;
        let uuid = list(target, there).await?.and_then(|made| made.uuid);
        let doing = format!("copy {}", one.namespace);
        let source = &self.clusters.a;
        let (database, command) = (
            one.namespace.database(),
            find(one, &self.config.filters.selection(&one.namespace)),
        );
        let opened = source.open(database, command, CursorKind::PLAIN, &doing);
        let mut cursor = opened.await?;
        while let Some(batch) = source.within(&doing, cursor.next()).await? {
            let found: Result<Vec<&RawDocument>> = ranges::documents(&batch, &doing)?.collect();
            let found: Vec<RawDocumentBuf> = found?.into_iter().map(ToOwned::to_owned).collect();
            append(target, there, uuid, &found).await?;
            let bytes = found.iter().map(|one| one.as_bytes().len() as u64);
            let bytes: u64 = bytes.sum();
            range.documents += found.len() as u64;
            range.bytes += bytes;
            let mut numbers = self.progress.numbers();
            numbers.documents_done += found.len() as u64;
            numbers.bytes_done += bytes;
        }
        Ok(())
    }

    fn uncount(&self, range: &mut StoredRange) {
        let mut numbers = self.progress.numbers();
        numbers.documents_done = numbers.documents_done.saturating_sub(range.documents);
        numbers.bytes_done = numbers.bytes_done.saturating_sub(range.bytes);
        (range.documents, range.bytes) = (0, 0);
    }
}

async fn drop_collection(target: &Cluster, namespace: &Namespace) -> Result<()> {
    let doing = format!("drop {namespace} on {}", target.name);
    let command = bson::doc! {
        "drop": namespace.collection(),
        "writeConcern": { "w": "majority" },
    };
    match target
        .command(namespace.database(), command, &doing)
        .await
        .and_then(|reply: Document| errors::check_reply(&reply, &doing))
    {
        Err(error) if errors::code_of(&error) != Some(errors::NAMESPACE_NOT_FOUND) => Err(error),
        _ => Ok(()),
    }
}

fn find(one: &Surveyed, selection: &Selection) -> RawDocumentBuf {
    let mut command = RawDocumentBuf::new();
    command.append(cstr!("find"), one.namespace.collection());
    if let Some(uuid) = one.uuid {
        command.append(cstr!("collectionUUID"), bson::Binary::from(uuid));
        command.append(cstr!("hint"), rawdoc! { "$natural": 1 });
    }
    command.append(cstr!("readConcern"), rawdoc! { "level": "majority" });
    command.append(cstr!("batchSize"), BATCH_DOCUMENTS_MAX);
    selection.put_into(&mut command, None);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::Namespace;
    use bson::{Uuid, doc};

    #[test]
    fn a_capped_collection_is_read_in_natural_order_and_a_time_series_as_it_comes() {
        let mut one = Surveyed {
            namespace: Namespace::new("shop", "ring"),
            counterpart: Namespace::new("shop", "ring"),
            kind: "collection".to_owned(),
            uuid: Some(Uuid::new()),
            options: doc! { "capped": true },
            documents: 0,
            bytes: 0,
            indexes: Vec::new(),
            unsupported: Some("capped"),
        };
        assert!(
            find(&one, &Selection::default())
                .get_document("hint")
                .is_ok()
        );
        one.uuid = None;
        assert!(
            find(&one, &Selection::default())
                .get("hint")
                .unwrap()
                .is_none()
        );
    }
}
