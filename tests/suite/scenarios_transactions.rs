//! Transactions of every size, over collections and databases.

use bson::doc;
use mongodb::ClientSession;

use crate::scenarios_writes::{numbered, one};
use crate::support::scenario::Scene;

pub async fn session(scene: &Scene) -> ClientSession {
    let mut session = scene.client.start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    session
}

pub async fn a_transaction_over_collections_and_databases(scene: Scene) {
    let second = format!("{}2", scene.database.name());
    let other = scene.client.database(&second).collection("other");
    let (left, right) = (scene.collection("left"), scene.collection("right"));
    for round in 0..10 {
        let mut session = session(&scene).await;
        for collection in [&left, &right, &other] {
            let whole = doc! { "_id": round, "round": round };
            collection
                .insert_one(whole)
                .session(&mut session)
                .await
                .unwrap();
            collection
                .update_one(one(round / 2), doc! { "$inc": { "n": 1 } })
                .session(&mut session)
                .await
                .unwrap();
        }
        session.commit_transaction().await.unwrap();
    }
}

pub async fn a_transaction_of_ten_thousand_documents(scene: Scene) {
    let many = scene.collection("many");
    let mut session = session(&scene).await;
    for part in 0..10 {
        many.insert_many(numbered(part * 1000..(part + 1) * 1000))
            .session(&mut session)
            .await
            .unwrap();
    }
    many.update_many(doc! { "_id": { "$lt": 3000 } }, doc! { "$inc": { "v": 1 } })
        .session(&mut session)
        .await
        .unwrap();
    session.commit_transaction().await.unwrap();
}

pub async fn a_transaction_larger_than_a_message(scene: Scene) {
    let large = scene.collection("large");
    scene.run(doc! { "create": "large" }).await;
    let mut session = session(&scene).await;
    for id in 0..3 {
        // As large as a document can be.
        let whole = doc! { "_id": id, "x": "x".repeat(16 * 1024 * 1024 - 27) };
        large.insert_one(whole).session(&mut session).await.unwrap();
    }
    session.commit_transaction().await.unwrap();
}

pub async fn an_aborted_transaction(scene: Scene) {
    let all = scene.collection("all");
    all.insert_many(numbered(0..5)).await.unwrap();
    let mut session = session(&scene).await;
    all.update_many(doc! {}, doc! { "$set": { "v": "never" } })
        .session(&mut session)
        .await
        .unwrap();
    session.abort_transaction().await.unwrap();
}
