//! The last word of every scenario: both clusters hold the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bson::{Document, RawDocument, RawDocumentBuf, doc};
use futures_util::TryStreamExt;
use mongodb::Client;

use super::env::TestEnv;
use super::tandem::Tandem;

const DIFFERENCES_SHOWN: usize = 3;
const POLL: Duration = Duration::from_millis(50);
const NOT_REPLICATED: [&str; 4] = ["admin", "config", "local", "__tandem"];

/// Namespace, then the bytes of `_id`, then the document.
pub type Contents = BTreeMap<String, BTreeMap<Vec<u8>, RawDocumentBuf>>;

/// Waits until both clusters hold the same documents byte for byte; gives the time it took.
///
/// Panics after `deadline` with the first differences. Empty and missing collections are equal.
pub async fn assert_converged(env: &TestEnv, deadline: Duration) -> Duration {
    let converged = converge(env, deadline).await;
    converged.unwrap_or_else(|differences| panic!("{differences}"))
}

/// The same, with what tandem says of itself where they do not become equal.
pub async fn assert_converged_by(tandem: &Tandem, env: &TestEnv, deadline: Duration) {
    if let Err(differences) = converge(env, deadline).await {
        let (status, log) = (tandem.status(), tandem.tail());
        panic!("{differences}\n{status:#}\n{log}");
    }
}

/// The same, with the differences as an answer.
pub async fn converge(env: &TestEnv, deadline: Duration) -> Result<Duration, String> {
    let start = Instant::now();
    loop {
        let (a, b) = tokio::join!(contents(env.a.client()), contents(env.b.client()));
        let differences = differences(&a, &b);
        if differences.is_empty() {
            return Ok(start.elapsed());
        }
        if start.elapsed() > deadline {
            let total = differences.len();
            let shown: Vec<String> = differences.into_iter().take(DIFFERENCES_SHOWN).collect();
            return Err(format!(
                "{total} documents differ after {deadline:?}:\n{}",
                shown.join("\n")
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Every document of every user namespace.
pub async fn contents(client: &Client) -> Contents {
    let mut all = Contents::new();
    for database in client.list_database_names().await.expect("databases") {
        if NOT_REPLICATED.contains(&database.as_str()) {
            continue;
        }
        let database = client.database(&database);
        for name in database.list_collection_names().await.expect("collections") {
            if name.starts_with("system.") {
                continue;
            }
            let collection = database.collection::<RawDocumentBuf>(&name);
            let cursor = collection.find(doc! {}).await.expect("find");
            let documents: Vec<RawDocumentBuf> = cursor.try_collect().await.expect("documents");
            if !documents.is_empty() {
                let keyed = documents.into_iter().map(|found| (id_bytes(&found), found));
                all.insert(format!("{}.{name}", database.name()), keyed.collect());
            }
        }
    }
    all
}

fn id_bytes(document: &RawDocument) -> Vec<u8> {
    let id = document.get("_id").expect("a document").expect("an _id");
    let mut alone = RawDocumentBuf::new();
    alone.append(bson::cstr!("_id"), id);
    alone.into_bytes()
}

pub fn differences(a: &Contents, b: &Contents) -> Vec<String> {
    let none = BTreeMap::new();
    let mut found = Vec::new();
    let namespaces: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    for namespace in namespaces {
        let (in_a, in_b) = (
            a.get(namespace).unwrap_or(&none),
            b.get(namespace).unwrap_or(&none),
        );
        let keys: BTreeSet<&Vec<u8>> = in_a.keys().chain(in_b.keys()).collect();
        for key in keys {
            let (one, other) = (in_a.get(key), in_b.get(key));
            if one.map(|d| d.as_bytes()) != other.map(|d| d.as_bytes()) {
                found.push(format!(
                    "{namespace}\n  a: {}\n  b: {}",
                    shown(one),
                    shown(other)
                ));
            }
        }
    }
    found
}

fn shown(document: Option<&RawDocumentBuf>) -> String {
    match document.map(|raw| Document::try_from(raw.as_ref())) {
        None => "absent".to_owned(),
        Some(Ok(document)) => document.to_string(),
        Some(Err(_)) => format!("{document:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    fn one(document: RawDocumentBuf) -> Contents {
        let keyed = [(id_bytes(&document), document)].into();
        [("shop.orders".to_owned(), keyed)].into()
    }

    #[test]
    fn another_field_order_or_type_is_a_difference() {
        let base = one(rawdoc! { "_id": 1, "x": 1, "y": 2 });
        assert!(differences(&base, &base.clone()).is_empty());
        for other in [
            rawdoc! { "_id": 1, "y": 2, "x": 1 },
            rawdoc! { "_id": 1, "x": 1, "y": 2.0 },
            rawdoc! { "_id": 1, "x": 1 },
        ] {
            assert_eq!(differences(&base, &one(other)).len(), 1);
        }
        assert_eq!(differences(&base, &Contents::new()).len(), 1);
    }
}
