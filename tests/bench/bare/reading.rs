//! From the change stream to statements.

use std::borrow::Cow;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use bson::{RawDocument, RawDocumentBuf, Timestamp, cstr, rawdoc};
use futures_util::StreamExt;
use mongodb::Client;
use mongodb::options::CursorType;
use tandem::change::{document_of, each_element, renamed};

use super::{LANES, Operation, Verb};
use crate::backlog::collection_of;

const CURSOR_EVENTS: u32 = 1000;
const AWAIT_TIME: Duration = Duration::from_millis(500);

/// Reads `count` events, and hands over the statements of each of the cursor's batches.
pub async fn read<F: Future<Output = ()>>(
    source: &Client,
    from: Timestamp,
    count: usize,
    mut take: impl FnMut(Vec<Operation>) -> F,
) {
    let stream = rawdoc! {
        "allChangesForCluster": true,
        "showExpandedEvents": true,
        "showRawUpdateDescription": true,
        "startAtOperationTime": from,
    };
    let command = rawdoc! {
        "aggregate": 1,
        "pipeline": [{ "$changeStream": stream }, { "$match": { "ns.db": "shop" } }],
        "cursor": {},
        "readConcern": { "level": "majority" },
    };
    let admin = source.database("admin");
    let mut cursor = admin
        .run_raw_cursor_command(command)
        .cursor_type(CursorType::TailableAwait)
        .max_time(AWAIT_TIME)
        .batch_size(CURSOR_EVENTS)
        .batch()
        .await
        .expect("a cursor");
    let mut seen = 0;
    while seen < count {
        let batch = cursor.next().await.expect("a batch").expect("read");
        let events = batch.doc_slices().expect("events");
        let operations: Vec<Operation> = events
            .into_iter()
            .filter_map(|event| operation_of(event.ok()?.as_document()?))
            .collect();
        seen += operations.len();
        take(operations).await;
    }
}

fn operation_of(event: &RawDocument) -> Option<Operation> {
    let key = event.get_document("documentKey").ok()?;
    let namespace = event.get_document("ns").ok()?;
    let mut statement = RawDocumentBuf::new();
    let verb = match event.get_str("operationType").ok()? {
        "insert" => {
            statement = event.get_document("fullDocument").ok()?.to_owned();
            Verb::Insert
        }
        "update" => {
            statement.append(cstr!("q"), key);
            statement.append(cstr!("u"), operators(event)?);
            Verb::Update
        }
        "delete" => {
            statement.append(cstr!("q"), key);
            statement.append(cstr!("limit"), 1);
            Verb::Delete
        }
        _ => return None,
    };
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key.as_bytes());
    Some(Operation {
        collection: collection_of(namespace.get_str("coll").ok()?),
        verb,
        lane: (hash % LANES as u64) as usize,
        statement,
    })
}

fn operators(event: &RawDocument) -> Option<RawDocumentBuf> {
    let description = event.get_document("rawUpdateDescription").ok()?;
    let mut fields = Vec::new();
    collect(description.get_document("diff").ok()?, "", &mut fields)?;
    let set = document_of(fields.iter().map(AsRef::as_ref));
    let mut operators = RawDocumentBuf::new();
    operators.append(cstr!("$set"), set);
    Some(operators)
}

/// The fields that are set, under their whole paths. No update of a backlog has anything else.
fn collect<'a>(
    difference: &'a RawDocument,
    above: &str,
    fields: &mut Vec<Cow<'a, [u8]>>,
) -> Option<()> {
    for part in each_element(difference) {
        let part = part.ok()?;
        match part.name {
            "u" | "i" if above.is_empty() => {
                for field in each_element(part.document()?) {
                    fields.push(field.ok()?.bytes.into());
                }
            }
            "u" | "i" => {
                for field in each_element(part.document()?) {
                    let field = field.ok()?;
                    let path = format!("{above}.{}", field.name);
                    fields.push(renamed(&field, &path).into());
                }
            }
            name => {
                let below = name.strip_prefix('s')?;
                let below = match above {
                    "" => below.to_owned(),
                    above => format!("{above}.{below}"),
                };
                collect(part.document()?, &below, fields)?;
            }
        }
    }
    Some(())
}
