//! What a run shows while it goes on: bars on a terminal, lines on a pipe.

use bson::{Document, doc};
use mongodb::IndexModel;

use crate::support::env::TestEnv;
use crate::support::terminal::on_a_terminal;

const ESCAPE: char = '\u{1b}';

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_shows_bars_on_a_terminal_and_plain_lines_on_a_pipe() {
    let env = TestEnv::start().await;
    let items = env.a.client().database("shop").collection("stock");
    for thousand in 0..20 {
        let document = |id: i32| doc! { "_id": thousand * 1000 + id, "text": "x".repeat(500) };
        let some = (0..1000).map(document);
        items.insert_many(some).await.unwrap();
    }
    for field in ["text", "size"] {
        let index = IndexModel::builder().keys(doc! { field: 1 }).build();
        items.create_index(index).await.unwrap();
    }
    let link = env
        .link()
        .one_way()
        .extra("[initial_sync]\nmode = \"copy\"");
    let tandem = env.tandem(&link);
    let output = on_a_terminal(&tandem, &["run", "--until-caught-up"])
        .output()
        .expect("script, of util-linux");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains(ESCAPE), "{shown}");
    for part in [
        "copy    [",
        "of 20000 documents, ",
        "/s",
        "a-to-b  lag 0.0 s",
        "caught up",
    ] {
        assert!(shown.contains(part), "{part:?} is missing: {shown}");
    }
    let there = env
        .b
        .client()
        .database("shop")
        .collection::<Document>("stock");
    assert_eq!(there.count_documents(doc! {}).await.unwrap(), 20_000);

    let piped = tandem.run(&["run", "--until-caught-up"]);
    let log = String::from_utf8_lossy(&piped.stderr).into_owned();
    assert!(piped.status.success(), "{log}");
    assert!(!log.contains(ESCAPE) && log.contains("INFO"), "{log}");
}
