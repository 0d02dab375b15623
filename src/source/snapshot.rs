//! Documents of a cluster exactly as of a moment of its history.

use std::collections::{BTreeMap, HashMap};

use bson::{RawArrayBuf, RawDocument, RawDocumentBuf, Timestamp, Uuid, cstr, rawdoc};

use crate::change::{DocumentKey, Namespace, Selection};
use crate::cluster::Cluster;
use crate::error::Result;

/// Documents asked for in one `find`.
const FIND_KEYS_MAX: usize = 500;

/// What a collection is called on the cluster.
#[derive(Debug, Clone)]
pub struct Place {
    pub name: Namespace,
    pub uuid: Option<Uuid>,
    /// A key may find a document of another `_id`, which is the same under the collation. It stands
    /// under the key that was asked for.
    pub collated: bool,
    pub selection: Selection,
}

/// Reads documents by key at `time` (`readConcern: { level: "snapshot", atClusterTime }`).
///
/// `place_of` gives what a collection is called there and its UUID: where another one has taken
/// its name, the server refuses instead of showing an empty one. A missing document is not in the
/// result.
///
/// # Errors
/// Retryable where the collection has changed or the snapshot is too old: decide again.
pub async fn read_at(
    cluster: &Cluster,
    time: Timestamp,
    keys: &[DocumentKey],
    place_of: impl Fn(&Namespace) -> Option<Place>,
) -> Result<HashMap<DocumentKey, RawDocumentBuf>> {
    let mut by_namespace: BTreeMap<&Namespace, Vec<&DocumentKey>> = BTreeMap::new();
    for key in keys {
        by_namespace.entry(key.namespace()).or_default().push(key);
    }
    let mut found = HashMap::with_capacity(keys.len());
    for (namespace, keys) in by_namespace {
        let place = place_of(namespace).unwrap_or_else(|| Place {
            name: namespace.clone(),
            uuid: None,
            collated: false,
            selection: Selection::default(),
        });
        let at_once = if place.collated { 1 } else { FIND_KEYS_MAX };
        for some in keys.chunks(at_once) {
            let command = find_command(&place, some, time);
            let key_of = |document: &RawDocument| match (place.collated, some) {
                (true, [asked]) => Some((*asked).clone()),
                _ => DocumentKey::of(namespace, document),
            };
            read_all(cluster, &place.name, key_of, command, &mut found).await?;
        }
    }
    Ok(found)
}

fn find_command(place: &Place, keys: &[&DocumentKey], time: Timestamp) -> RawDocumentBuf {
    let mut ids = RawArrayBuf::new();
    for key in keys {
        if let Ok(Some(id)) = key.raw().get("_id") {
            ids.push(id);
        }
    }
    let mut command = RawDocumentBuf::new();
    command.append(cstr!("find"), place.name.collection());
    if let Some(uuid) = place.uuid {
        command.append(cstr!("collectionUUID"), bson::Binary::from(uuid));
    }
    let by_key = rawdoc! { "_id": { "$in": ids } };
    place.selection.put_into(&mut command, Some(by_key));
    command.append(cstr!("batchSize"), keys.len() as i64);
    command.append(
        cstr!("readConcern"),
        rawdoc! { "level": "snapshot", "atClusterTime": time },
    );
    command
}

async fn read_all(
    cluster: &Cluster,
    name: &Namespace,
    key_of: impl Fn(&RawDocument) -> Option<DocumentKey>,
    command: RawDocumentBuf,
    found: &mut HashMap<DocumentKey, RawDocumentBuf>,
) -> Result<()> {
    let doing = format!("read {name} on {}", cluster.name);
    let take = |document: &RawDocument| {
        if let Some(key) = key_of(document) {
            found.insert(key, document.to_owned());
        }
    };
    cluster.each(name.database(), command, &doing, take).await
}
