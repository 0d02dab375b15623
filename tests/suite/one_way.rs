//! Writes on one side arrive on the other, and nothing of them comes back.

use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};
use futures_util::TryStreamExt;

use crate::support::compare::{assert_converged, assert_converged_by};
use crate::support::env::{TestEnv, raw_by_id};
use crate::support::fail_points::FailPoint;
use crate::support::oplog::{entries_after, from_tandem, now};
use crate::support::oracle::Side;
use crate::support::random::{scaled, seed};
use crate::support::wait::wait_for;
use crate::support::workload::Workload;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_load_on_one_side_arrives_and_leaves_no_entry_of_tandem_there() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let start = now(env.a.client()).await;
    let load = Workload::new(seed("one_sided"), scaled(20_000));
    let history = load.run_side(Side::A, env.a.client()).await;
    assert_converged(&env, Duration::from_secs(30)).await;
    let entries = entries_after(env.a.client(), start).await;
    assert!(entries.len() >= history.writes.len());
    let echoes = from_tandem(&entries, &history.sessions);
    let first = echoes.first().map(|echo| &echo.entry);
    assert_eq!(first, None, "{} entries of tandem", echoes.len());
    assert!(tandem.conflicts(&[]).is_empty());
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_right_after_tandem_touched_a_document_is_no_echo() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    for id in 0..3 {
        a.insert_one(doc! { "_id": id, "x": 1, "y": 1 })
            .await
            .unwrap();
        wait_for("the insert arrives", SOON, || raw_by_id(&b, id)).await;
        match id {
            0 => drop(b.delete_one(doc! { "_id": id }).await.unwrap()),
            1 => drop(
                b.update_one(doc! { "_id": id }, doc! { "$unset": { "y": "" } })
                    .await
                    .unwrap(),
            ),
            _ => drop(
                b.replace_one(doc! { "_id": id }, doc! { "z": 1 })
                    .await
                    .unwrap(),
            ),
        }
    }
    let expected = [
        None,
        Some(rawdoc! { "_id": 1, "x": 1 }),
        Some(rawdoc! { "_id": 2, "z": 1 }),
    ];
    for (id, expected) in (0..).zip(expected) {
        wait_for("the edit arrives", SOON, || async {
            (raw_by_id(&a, id).await == expected).then_some(())
        })
        .await;
    }
    assert_converged(&env, SOON).await;
    assert!(tandem.conflicts(&[]).is_empty());
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_way_mode_a_wins_over_local_writes_on_b_and_keeps_them_on_record() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link().one_way()).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    let start = now(env.a.client()).await;
    b.insert_one(doc! { "_id": 1, "from": "b" }).await.unwrap();
    b.insert_one(doc! { "_id": 2, "from": "b" }).await.unwrap();
    a.insert_one(doc! { "_id": 1, "from": "a" }).await.unwrap();
    wait_for("a wins", SOON, || async {
        let found = raw_by_id(&b, 1).await;
        (found == Some(rawdoc! { "_id": 1, "from": "a" })).then_some(())
    })
    .await;
    assert_eq!(
        raw_by_id(&b, 2).await,
        Some(rawdoc! { "_id": 2, "from": "b" })
    );
    let logged = || async {
        let records = tandem.conflicts(&[]);
        (!records.is_empty()).then_some(records)
    };
    let records = wait_for("the loser is on record", SOON, logged).await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["policy"], "one-way");
    assert_eq!(records[0]["losing"]["document"]["from"], "b");
    let entries = entries_after(env.a.client(), start).await;
    assert_eq!(entries.iter().filter(|entry| entry.op == "i").count(), 1);
    tandem.stop().await;
}

const COPY: &str = "[initial_sync]\nmode = \"copy\"";

/// Cuts off what tandem puts on record of how far its copy has come.
async fn cut_progress(env: &TestEnv, mode: impl Into<Bson>) {
    let cut = doc! {
        "failCommands": ["update"], "namespace": "__tandem.ranges", "appName": "tandem",
        "closeConnection": true,
    };
    env.b.fail_command(mode, cut).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_b_writes_on_top_of_a_copy_beats_nothing_where_the_copy_comes_again() {
    let env = TestEnv::start().await;
    let row = doc! { "_id": 1, "v": "a" };
    env.orders_a().insert_one(row).await.unwrap();
    // Its ranges go on record, and not that they are done.
    cut_progress(&env, doc! { "skip": 1 }).await;
    let mut tandem = env.tandem(&env.link().one_way().extra(COPY));
    tandem.start();
    wait_for("the copy", SOON, || raw_by_id(&env.orders_b(), 1)).await;
    let (only, set) = (doc! { "_id": 1 }, doc! { "$set": { "v": "b" } });
    env.orders_b().update_one(only, set).await.unwrap();
    tandem.kill9();
    cut_progress(&env, "off").await;
    tandem.start();
    let is_done = |status: &serde_json::Value| status["initial_sync"]["state"] == "done";
    tandem.wait_status("the copy is done", SOON, is_done).await;
    assert_eq!(tandem.conflicts(&[]), Vec::<serde_json::Value>::new());
    let (only, set) = (doc! { "_id": 1 }, doc! { "$set": { "v": "a2" } });
    env.orders_a().update_one(only, set).await.unwrap();
    let logged = || async {
        let records = tandem.conflicts(&[]);
        (!records.is_empty()).then_some(records)
    };
    let records = wait_for("the loser is on record", SOON, logged).await;
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["losing"]["document"]["v"], "b");
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_lane_a_source_transaction_arrives_all_or_nothing() {
    const ACCOUNTS: i32 = 10;
    let env = TestEnv::start().await;
    env.create_on_both("bank", "accounts").await;
    let accounts = env
        .a
        .client()
        .database("bank")
        .collection::<Document>("accounts");
    let rows = (0..ACCOUNTS).map(|id| doc! { "_id": id, "balance": 100 });
    let mut tandem = env.streaming(&env.link().lanes(1)).await;
    accounts.insert_many(rows).await.unwrap();
    assert_converged(&env, SOON).await;
    let transfers = async {
        let mut session = env.a.client().start_session().await.unwrap();
        for round in 0..scaled(3000) as i32 {
            let (from, to) = (round % ACCOUNTS, (round * 7 + 3) % ACCOUNTS);
            session.start_transaction().await.unwrap();
            for (id, by) in [(from, -1), (to, 1)] {
                let inc = doc! { "$inc": { "balance": by } };
                let update = accounts.update_one(doc! { "_id": id }, inc);
                update.session(&mut session).await.unwrap();
            }
            session.commit_transaction().await.unwrap();
        }
    };
    tokio::pin!(transfers);
    let mut sums = 0;
    loop {
        tokio::select! {
            () = &mut transfers => break,
            sum = sum_on_b(&env) => {
                assert_eq!(sum, ACCOUNTS * 100, "half a transfer is visible");
                sums += 1;
            }
        }
    }
    assert!(sums > 10, "the reader looked {sums} times");
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

async fn sum_on_b(env: &TestEnv) -> i32 {
    let client = env.b.client();
    let mut session = client.start_session().snapshot(true).await.unwrap();
    let accounts = client.database("bank").collection::<Document>("accounts");
    let mut cursor = accounts.find(doc! {}).session(&mut session).await.unwrap();
    let rows: Vec<Document> = cursor.stream(&mut session).try_collect().await.unwrap();
    rows.iter().map(|row| row.get_i32("balance").unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_collection_is_created_with_its_options_first() {
    let env = TestEnv::start().await;
    let validator = doc! { "x": { "$type": "int" } };
    let shop = env.a.client().database("shop");
    let create = shop
        .create_collection("orders")
        .validator(validator.clone());
    create.await.unwrap();
    let mut tandem = env.streaming(&env.link()).await;
    env.orders_a()
        .insert_one(doc! { "_id": 1, "x": 1 })
        .await
        .unwrap();
    wait_for("the insert arrives", SOON, || raw_by_id(&env.orders_b(), 1)).await;
    let specs = env
        .b
        .client()
        .database("shop")
        .list_collections()
        .await
        .unwrap();
    let specs: Vec<_> = specs.try_collect().await.unwrap();
    let orders = specs.iter().find(|spec| spec.name == "orders").unwrap();
    assert_eq!(orders.options.validator, Some(validator));
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_documents_arrive_byte_for_byte() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let raw = env.orders_a().clone_with_type::<RawDocumentBuf>();
    let documents = [
        rawdoc! { "_id": 1, "b": 1, "a": 2i64, "": 3.0, "$x": 1, "a.b": 2 },
        rawdoc! { "_id": 2, "nan": f64::NAN, "zero": -0.0, "list": [1, { "1": 2 }, []] },
        rawdoc! { "_id": 3, "date": bson::DateTime::from_millis(-1), "null": null },
    ];
    for document in documents {
        raw.insert_one(document).await.unwrap();
    }
    let zero = Bson::Timestamp(bson::Timestamp {
        time: 0,
        increment: 0,
    });
    let orders = env.orders_a();
    let set = doc! { "$set": { "ts": zero, "list.1.1": 3, "list.2": [1] } };
    orders.update_one(doc! { "_id": 2 }, set).await.unwrap();
    for id in [2, 3] {
        wait_for("it arrives", SOON, || raw_by_id(&env.orders_b(), id)).await;
    }
    assert_converged(&env, SOON).await;
    tandem.stop().await;
}

/// For the server a field that gets another one before it moves to the end. No operator does that,
/// so the update matches nothing and full state is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_put_before_others_in_the_transaction_of_the_insert_arrives() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let orders = env.orders_a();
    let mut session = env.a.client().start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    // A short document would be sent whole.
    let long = "x".repeat(500);
    let insert = orders.insert_one(doc! { "_id": 1, "long": &long, "b": 1 });
    insert.session(&mut session).await.unwrap();
    let moved = vec![doc! { "$replaceWith": { "_id": 1, "long": long, "a": 1, "b": 1 } }];
    let update = orders.update_one(doc! { "_id": 1 }, moved);
    update.session(&mut session).await.unwrap();
    session.commit_transaction().await.unwrap();
    assert_converged_by(&tandem, &env, SOON).await;
    tandem.stop().await;
}

/// From before the first start, in a link whose operator has vouched for equal sides.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_lacks_arrives_whole_with_its_next_update_and_its_delete_is_no_error() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let orders = env.orders_a();
    let rows = (0..4).map(|id| doc! { "_id": id, "n": 1, "list": [1, 2] });
    orders.insert_many(rows).await.unwrap();
    let tandem = env.streaming(&env.link()).await;
    let one = |id: i32| doc! { "_id": id };
    let inc = doc! { "$inc": { "n": 1 } };
    orders.update_one(one(0), inc).await.unwrap();
    let push = doc! { "$push": { "list": { "$each": [3], "$slice": -2 } } };
    orders.update_one(one(1), push).await.unwrap();
    orders
        .replace_one(one(2), doc! { "new": true })
        .await
        .unwrap();
    orders.delete_one(one(3)).await.unwrap();
    assert_converged_by(&tandem, &env, SOON).await;
    let found = env.orders_b().find_one(one(0)).await.unwrap().unwrap();
    assert_eq!(found, doc! { "_id": 0, "n": 2, "list": [1, 2] });
    assert_eq!(tandem.total("conflicts_total"), 0);
    assert_eq!(tandem.total("dead_letters_total"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn until_caught_up_ends_with_0_once_both_are_equal() {
    let env = TestEnv::start().await;
    let link = env.link();
    env.streaming(&link).await.stop().await;
    for id in 0..500 {
        env.orders_a().insert_one(doc! { "_id": id }).await.unwrap();
    }
    let tandem = env.tandem(&link);
    let output = tandem.run(&["run", "--until-caught-up", "--timeout", "30s"]);
    assert_eq!(output.status.code(), Some(0));
    assert_converged(&env, Duration::ZERO).await;
}

/// What is known of b must outlive the process: the write on b is long past when a touches it.
/// What b's stream has not told yet is that the write has lost: it is about to be noted as standing.
#[tokio::test(flavor = "multi_thread")]
async fn in_one_way_mode_a_local_write_that_has_just_lost_is_not_noted_as_standing() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link().one_way()).await;
    let stream = FailPoint::on(&env.b, &["getMore"]);
    for id in 0..5 {
        let row = |by: &str| doc! { "_id": id, "by": by };
        env.orders_b().insert_one(row("b")).await.unwrap();
        stream.fail_always(doc! { "errorCode": 6 }).await;
        env.orders_a().insert_one(row("a")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(700)).await;
        stream.off().await;
        assert_converged(&env, SOON).await;
    }
    let notes = env.b.client().database("__tandem");
    let notes = notes.collection::<Document>("keys");
    wait_for("no write of b stands", SOON, || async {
        let standing = notes.count_documents(doc! { "local": { "$exists": true } });
        (standing.await.unwrap() == 0).then_some(())
    })
    .await;
    wait_for("each is on record", SOON, || async {
        (tandem.conflicts(&[]).len() == 5).then_some(())
    })
    .await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_one_way_mode_a_local_write_on_b_is_still_known_after_a_restart() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link().one_way()).await;
    let (a, b) = (env.orders_a(), env.orders_b());
    a.insert_one(doc! { "_id": 1, "v": "a" }).await.unwrap();
    assert_converged(&env, SOON).await;
    let set = doc! { "$set": { "v": "b" } };
    b.update_one(doc! { "_id": 1 }, set).await.unwrap();
    tandem.stop().await;
    tandem.start();
    tandem.wait_until_streaming().await;
    let set = doc! { "$set": { "w": 1 } };
    a.update_one(doc! { "_id": 1 }, set).await.unwrap();
    assert_converged(&env, SOON).await;
    let records = tandem.conflicts(&[]);
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!(records[0]["policy"], "one-way");
    assert_eq!(records[0]["losing"]["document"]["v"], "b");
    tandem.stop().await;
}
