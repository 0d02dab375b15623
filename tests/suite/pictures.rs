//! The dashboard in a real browser: checked, and its pictures taken.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use tokio_util::sync::CancellationToken;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::http::{address, get};
use crate::support::wait::wait_for;

/// Enough of a past for a curve.
const PAST: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and needs a browser: scripts/pictures"]
async fn pictures_of_the_dashboard() {
    let browser = std::env::var("TANDEM_BROWSER").expect("TANDEM_BROWSER names a browser");
    let folder = std::env::var("TANDEM_PICTURES").expect("TANDEM_PICTURES names a folder");
    let env = TestEnv::start().await;
    let link = env.link().extra("[http]\nlisten = \"127.0.0.1:0\"\n");
    let tandem = env.streaming(&link).await;
    let address = address(&tandem).await;
    let stop = CancellationToken::new();
    let applications = [
        tokio::spawn(application(env.orders_a(), 0, stop.clone())),
        tokio::spawn(application(env.orders_b(), 1_000_000, stop.clone())),
    ];
    let races = tokio::spawn(races(env.orders_a(), env.orders_b(), stop.clone()));
    tokio::time::sleep(PAST).await;
    wait_for("conflicts", PAST, || async {
        let metrics = get(&address, "/metrics").await.body;
        let of = |line: &&str| line.starts_with("tandem_conflicts_total") && !line.ends_with(" 0");
        metrics.lines().find(of).map(drop)
    })
    .await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/browser.mjs");
    let looked = Command::new("node")
        .arg(script)
        .args([browser, address, folder])
        .status()
        .expect("node runs");
    assert!(looked.success(), "the browser has something to complain of");
    stop.cancel();
    for application in applications {
        application.await.expect("it ended well");
    }
    races.await.expect("they ended well");
    assert_converged(&env, Duration::from_secs(60)).await;
}

/// Writes orders of its own, now more and now fewer.
async fn application(orders: Collection<Document>, first: i32, stop: CancellationToken) {
    let mut id = first;
    while !stop.is_cancelled() {
        let wave = f64::from(id - first) / 700.0;
        let some = 4 + (3.0 * wave.sin()) as i32;
        let new = (id..id + some).map(|id| doc! { "_id": id, "items": 3, "state": "new" });
        orders.insert_many(new).await.expect("inserted");
        for paid in id..id + some - 1 {
            let set = doc! { "$set": { "state": "paid" } };
            let paid = orders.update_one(doc! { "_id": paid }, set);
            paid.await.expect("updated");
        }
        if id % 3 == 0 {
            let gone = orders.delete_one(doc! { "_id": id - some });
            gone.await.expect("deleted");
        }
        id += some;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// From time to time both sides write the same order at the same moment.
async fn races(a: Collection<Document>, b: Collection<Document>, stop: CancellationToken) {
    for race in 0.. {
        let id = 5_000_000 + race;
        let by = |side: &str| doc! { "_id": id, "taken_by": side };
        if race % 3 > 0 {
            a.insert_one(by("nobody")).await.expect("inserted");
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        let which = doc! { "_id": id };
        let taken = doc! { "$set": { "taken_by": "eu" } };
        match race % 3 {
            0 => drop(tokio::join!(a.insert_one(by("eu")), b.insert_one(by("us")))),
            1 => drop(tokio::join!(
                a.update_one(which.clone(), taken),
                b.update_one(which, doc! { "$set": { "taken_by": "us" } })
            )),
            _ => drop(tokio::join!(
                a.update_one(which.clone(), taken),
                b.delete_one(which)
            )),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
    }
}
