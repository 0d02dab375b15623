//! What collections, views and indexes a cluster has, with every option, to be compared.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Client;

use super::env::TestEnv;
use super::mongod::Mongod;

/// Databases of the tests.
const DATABASES: [&str; 2] = ["shop", "bank"];

/// Type, options and indexes by namespace.
pub type Schema = BTreeMap<String, (String, Document, BTreeMap<String, Document>)>;

/// Runs a command on the database of the tests, say one that changes a definition.
pub async fn run(cluster: &Mongod, command: Document) {
    let shown = command.to_string();
    let shop = cluster.client().database("shop");
    if let Err(error) = shop.run_command(command).await {
        panic!("{shown}: {error}");
    }
}

/// All collections and views as they are now.
pub async fn schema(client: &Client) -> Schema {
    schema_in(client, &DATABASES.map(str::to_owned)).await
}

/// The same of some databases.
pub async fn schema_in(client: &Client, databases: &[String]) -> Schema {
    let mut schema = Schema::new();
    for database in databases.iter().map(|name| client.database(name)) {
        let command = doc! { "listCollections": 1, "cursor": { "batchSize": 1000 } };
        let cursor = database.run_cursor_command(command).await.expect("listed");
        let listed: Vec<Document> = cursor.try_collect().await.expect("listed");
        for entry in listed {
            let name = entry.get_str("name").expect("a name");
            if name.starts_with("system.") {
                continue;
            }
            let kind = entry.get_str("type").expect("a type").to_owned();
            let mut indexes = BTreeMap::new();
            if kind == "collection" {
                let command = doc! { "listIndexes": name };
                // It may have been dropped since.
                let Ok(cursor) = database.run_cursor_command(command).await else {
                    continue;
                };
                let found: Vec<Document> = cursor.try_collect().await.expect("indexes");
                for mut index in found {
                    // Documents are equal whatever their order, and a key's order counts.
                    let order = index.get_document("key").expect("a key").to_string();
                    index.insert("order", order);
                    indexes.insert(index.get_str("name").expect("a name").to_owned(), index);
                }
            }
            let mut options = entry.get_document("options").cloned().unwrap_or_default();
            // A server spells these out once they have been changed.
            for (name, preset) in [("validationLevel", "strict"), ("validationAction", "error")] {
                if options.get_str(name).is_ok_and(|given| given == preset) {
                    options.remove(name);
                }
            }
            let full = format!("{}.{name}", database.name());
            schema.insert(full, (kind, options, indexes));
        }
    }
    schema
}

/// Waits until both sides have the same collections, views, options and indexes.
pub async fn assert_same_schema(env: &TestEnv, deadline: Duration) {
    assert_same_schema_in(env, &DATABASES.map(str::to_owned), deadline).await;
}

/// The same in other databases than the usual ones.
pub async fn assert_same_schema_in(env: &TestEnv, databases: &[String], deadline: Duration) {
    let started = Instant::now();
    loop {
        let a = schema_in(env.a.client(), databases).await;
        let b = schema_in(env.b.client(), databases).await;
        if a == b {
            return;
        }
        if started.elapsed() > deadline {
            let differing: Vec<String> = a
                .keys()
                .chain(b.keys())
                .filter(|name| a.get(*name) != b.get(*name))
                .map(|name| format!("{name}\n  a: {:?}\n  b: {:?}", a.get(name), b.get(name)))
                .collect();
            panic!("the schemas differ:\n{}", differing.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
