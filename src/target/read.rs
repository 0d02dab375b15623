//! Reading the target's documents inside the transaction that will write them.

use std::collections::{BTreeMap, HashMap};

use bson::{RawArrayBuf, RawDocumentBuf, cstr, rawdoc};

use super::reply::{Refusal, refusal};
use super::transaction::Transaction;
use super::write_set::CollectionInfo;
use crate::change::{DocumentKey, Namespace, Selection};

/// Documents asked for in one `find`.
const FIND_KEYS_MAX: usize = 200;

impl Transaction<'_> {
    /// The documents of `keys` as of the snapshot, those that `selections` select; a missing one is
    /// not in the result.
    ///
    /// # Errors
    /// The refusal of a read; another collection under the name counts as unseen.
    pub async fn read(
        &mut self,
        keys: &[DocumentKey],
        collections: &HashMap<Namespace, CollectionInfo>,
        selections: &HashMap<Namespace, Selection>,
    ) -> std::result::Result<HashMap<DocumentKey, RawDocumentBuf>, Refusal> {
        let mut found = HashMap::new();
        let mut by_namespace: BTreeMap<&Namespace, Vec<&DocumentKey>> = BTreeMap::new();
        for key in keys {
            by_namespace.entry(key.namespace()).or_default().push(key);
        }
        for (namespace, keys) in by_namespace {
            let collated = collections.get(namespace).is_some_and(|info| info.collated);
            let at_once = if collated { 1 } else { FIND_KEYS_MAX };
            let wanted = Wanted {
                namespace,
                collection: collections.get(namespace),
                selection: selections.get(namespace),
            };
            for some in keys.chunks(at_once) {
                self.read_some(&wanted, some, &mut found).await?;
            }
        }
        Ok(found)
    }

    async fn read_some(
        &mut self,
        wanted: &Wanted<'_>,
        keys: &[&DocumentKey],
        found: &mut HashMap<DocumentKey, RawDocumentBuf>,
    ) -> std::result::Result<(), Refusal> {
        let Wanted {
            namespace,
            collection,
            ..
        } = *wanted;
        let name = wanted.name();
        let mut left: Vec<&DocumentKey> = keys.to_vec();
        loop {
            let command = find_command(wanted, &left);
            let doing = format!("read {name} on {}", self.session.cluster().name);
            let batch = self
                .session
                .first_batch(name.database(), command)
                .await
                .map_err(|error| refusal(error, &doing))?;
            let Some(batch) = batch else { return Ok(()) };
            let documents = batch.doc_slices().map_err(|error| refusal(error, &doing))?;
            for document in documents.into_iter().flatten() {
                let Some(document) = document.as_document() else {
                    continue;
                };
                let key = match (collection.is_some_and(|info| info.collated), keys) {
                    (true, [asked]) => Some((*asked).clone()),
                    _ => DocumentKey::of(namespace, document),
                };
                if let Some(key) = key {
                    left.retain(|other| **other != key);
                    found.insert(key, document.to_owned());
                }
            }
            let cursor = batch.as_raw_document().get_document("cursor");
            let open = cursor.and_then(|cursor| cursor.get_i64("id")).unwrap_or(0);
            if open == 0 || left.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Where documents are asked for, and what they must be like.
struct Wanted<'a> {
    namespace: &'a Namespace,
    collection: Option<&'a CollectionInfo>,
    selection: Option<&'a Selection>,
}

impl<'a> Wanted<'a> {
    fn name(&self) -> &'a Namespace {
        self.collection.map_or(self.namespace, |found| &found.name)
    }
}

fn find_command(wanted: &Wanted<'_>, keys: &[&DocumentKey]) -> RawDocumentBuf {
    let mut ids = RawArrayBuf::new();
    for key in keys {
        if let Ok(Some(id)) = key.raw().get("_id") {
            ids.push(id);
        }
    }
    let mut command = RawDocumentBuf::new();
    command.append(cstr!("find"), wanted.name().collection());
    if let Some(collection) = wanted.collection {
        command.append(cstr!("collectionUUID"), bson::Binary::from(collection.uuid));
    }
    let by_key = rawdoc! { "_id": { "$in": ids } };
    match wanted.selection {
        Some(selection) => selection.put_into(&mut command, Some(by_key)),
        None => command.append(cstr!("filter"), by_key),
    }
    command.append(cstr!("batchSize"), keys.len() as i64);
    command
}
