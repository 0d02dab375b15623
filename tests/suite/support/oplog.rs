//! What a cluster's oplog says was written, and by which session.

use std::time::Duration;

use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, Timestamp, deserialize_from_document, doc};
use futures_util::TryStreamExt;
use mongodb::{Client, ClusterTime};

use super::wait::wait_for;

/// One data or DDL operation; those of a transaction are taken out of their `applyOps`.
#[derive(Debug, Clone)]
pub struct OplogEntry {
    /// `i`, `u`, `d` or `c`.
    pub op: String,
    pub namespace: String,
    /// The session's UUID: of the transaction, or of a retryable write.
    pub session: Option<Vec<u8>>,
    pub in_transaction: bool,
    pub entry: Document,
}

/// The cluster's present operation time, as a start for [`entries_after`].
pub async fn now(client: &Client) -> Timestamp {
    let admin = client.database("admin");
    let hello = admin.run_command(doc! { "hello": 1 }).await.expect("hello");
    hello.get_timestamp("operationTime").expect("operationTime")
}

/// Writes until nothing of now is left in the oplog; for servers with a small one
/// (`MongodOptions::with_small_oplog`).
pub async fn roll_over(client: &Client) {
    const ROLL_TIME_MAX: Duration = Duration::from_secs(60);
    let end = now(client).await;
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let rows = client.database("elsewhere").collection::<Document>("rows");
    wait_for("the oplog has rolled over", ROLL_TIME_MAX, || async {
        let row = doc! { "text": "x".repeat(500_000) };
        rows.insert_many(vec![row; 8]).await.expect("rows");
        // The server keeps what its last checkpoint needs, and makes one a minute unless asked.
        let admin = client.database("admin");
        admin
            .run_command(doc! { "fsync": 1 })
            .await
            .expect("a checkpoint");
        let oldest = oplog.find_one(doc! {}).sort(doc! { "$natural": 1 });
        let oldest = oldest.await.expect("the oplog")?;
        (oldest.get_timestamp("ts").ok()? > end).then_some(())
    })
    .await;
}

/// The entries past `after` outside `__tandem` and the server's own databases.
pub async fn entries_after(client: &Client, after: Timestamp) -> Vec<OplogEntry> {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let filter = doc! { "ts": { "$gt": after }, "op": { "$in": ["i", "u", "d", "c"] } };
    let raw: Vec<Document> = oplog
        .find(filter)
        .await
        .expect("the oplog")
        .try_collect()
        .await
        .expect("its entries");
    raw.into_iter()
        .flat_map(flatten)
        .filter(|entry| is_user(&entry.namespace))
        .collect()
}

/// What was written past `after`, but for what servers write for themselves.
pub async fn namespaces_after(client: &Client, after: Timestamp) -> Vec<String> {
    let oplog = client.database("local").collection::<Document>("oplog.rs");
    let filter = doc! { "ts": { "$gt": after }, "op": { "$ne": "n" } };
    let found = oplog.distinct("ns", filter).await.expect("the oplog");
    let names = found
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned));
    names.filter(|name| !name.starts_with("config.")).collect()
}

/// The entries that neither of the application's `sessions` nor a plain write made.
///
/// tandem writes data in transactions alone, so an entry in the transaction of a session that
/// the application does not know is tandem's.
pub fn from_tandem(entries: &[OplogEntry], sessions: &[Vec<u8>]) -> Vec<OplogEntry> {
    let foreign = |entry: &&OplogEntry| {
        entry.in_transaction
            && entry
                .session
                .as_ref()
                .is_none_or(|session| !sessions.contains(session))
    };
    entries.iter().filter(foreign).cloned().collect()
}

fn is_user(namespace: &str) -> bool {
    let database = namespace.split('.').next().unwrap_or_default();
    !["", "admin", "config", "local", "__tandem"].contains(&database)
}

fn flatten(entry: Document) -> Vec<OplogEntry> {
    let session = session_of(&entry);
    let apply = entry.get_document("o").ok();
    if let Some(Bson::Array(inner)) = apply.and_then(|o| o.get("applyOps")) {
        let inner = inner.iter().filter_map(Bson::as_document);
        return inner
            .map(|inner| to_entry(session.clone(), true, inner.clone()))
            .collect();
    }
    vec![to_entry(session, false, entry)]
}

fn to_entry(session: Option<Vec<u8>>, in_transaction: bool, entry: Document) -> OplogEntry {
    let text = |name: &str| entry.get_str(name).unwrap_or_default().to_owned();
    OplogEntry {
        op: text("op"),
        namespace: text("ns"),
        session,
        in_transaction,
        entry,
    }
}

fn session_of(entry: &Document) -> Option<Vec<u8>> {
    session_bytes(entry.get_document("lsid").ok()?)
}

/// The UUID's bytes of a session id `{ id: … }`.
pub fn session_bytes(lsid: &Document) -> Option<Vec<u8>> {
    match lsid.get("id")? {
        Bson::Binary(binary) if binary.subtype == BinarySubtype::Uuid => Some(binary.bytes.clone()),
        _ => None,
    }
}

/// Writes what nobody else has so many seconds later, by the cluster's time and not by its clock.
pub async fn push_ahead(client: &Client, seconds: u32) {
    let mut later = now(client).await;
    later.time += seconds;
    let unsigned = Binary {
        subtype: BinarySubtype::Generic,
        bytes: vec![0; 20],
    };
    let time = doc! { "clusterTime": later, "signature": { "hash": unsigned, "keyId": 0_i64 } };
    let time: ClusterTime = deserialize_from_document(time).expect("a time");
    let mut session = client.start_session().await.expect("a session");
    session.advance_cluster_time(&time);
    let orders = client.database("shop").collection("orders");
    let row = doc! { "_id": "pushed ahead" };
    let written = orders.insert_one(row).session(&mut session);
    written.await.expect("it is written");
}
