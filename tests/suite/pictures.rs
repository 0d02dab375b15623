//! The dashboard and the report of a real link in a real browser: checked, and their pictures taken.

mod shop;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::http::{address, get};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

/// Enough of a past for a curve.
const PAST: Duration = Duration::from_secs(120);
const SOON: Duration = Duration::from_secs(60);
const EXTRA: &str = "[http]\nlisten = \"127.0.0.1:0\"\n[conflicts]\nredact = [\"card\"]\n";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and needs a browser: scripts/pictures"]
async fn pictures_of_the_dashboard_and_of_the_report() {
    let env = TestEnv::start().await;
    shop::open(&env).await;
    let tandem = env.streaming(&env.link().extra(EXTRA)).await;
    let address = address(&tandem).await;
    let stop = CancellationToken::new();
    let writers = shop::writers(&env, &stop);
    tokio::time::sleep(PAST).await;
    wait_for("conflicts", PAST, || async {
        let metrics = get(&address, "/metrics").await.body;
        let of = |line: &&str| line.starts_with("tandem_conflicts_total") && !line.ends_with(" 0");
        metrics.lines().find(of).map(drop)
    })
    .await;
    let [pictures, others] = ["TANDEM_PICTURES", "TANDEM_PICTURES_OTHERS"].map(folder);
    look("dashboard.mjs", &[&pictures, Path::new(&address), &others]);
    stop.cancel();
    for writer in writers {
        writer.await.expect("it ended well");
    }
    assert_converged(&env, SOON).await;

    let page = |name: &str, filters: &[&str]| write_page(&tandem, &others.join(name), filters);
    shop::trouble(&env, &tandem).await;
    page("report.html", &[]);
    shop::end_trouble(&env).await;
    shop::hostile(&env, &tandem).await;
    shop::many(&env, &tandem).await;
    let first = tandem.conflicts(&["--limit", "1"]);
    let id = first[0]["id"].as_str().expect("an id");
    page("none.html", &["--namespace", "shop.nothing"]);
    page("one.html", &["--id", id]);
    page("many.html", &["--namespace", shop::MANY]);
    page("hostile.html", &["--namespace", shop::HOSTILE]);
    look("report.mjs", &[&pictures, &others]);
}

fn write_page(tandem: &Tandem, file: &Path, filters: &[&str]) {
    let report = [&["conflict-report", "--format", "html"], filters].concat();
    let output = tandem.run(&report);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    std::fs::write(file, output.stdout).expect("the page is written");
}

fn folder(variable: &str) -> PathBuf {
    let folder = std::env::var(variable);
    folder
        .unwrap_or_else(|_| panic!("{variable} names a folder"))
        .into()
}

/// Has a script of tests/pictures look at what it is given.
fn look(script: &str, arguments: &[&Path]) {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures");
    let looked = Command::new("node")
        .arg(scripts.join(script))
        .arg(folder("TANDEM_BROWSER"))
        .args(arguments)
        .status()
        .expect("node runs");
    assert!(looked.success(), "{script} has something to complain of");
}
