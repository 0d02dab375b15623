//! Health, status, metrics and events over HTTP.

use std::time::Duration;

use bson::doc;
use serde_json::Value;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::http::{Page, address, ask, get};
use crate::support::openmetrics;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(20);

fn listening(link: LinkConfig, address: &str) -> LinkConfig {
    link.extra(&format!("[http]\nlisten = {address:?}\n"))
}

async fn wait_ready(address: &str) {
    wait_for("it is ready", SOON, || async {
        let answer = get(address, "/readyz").await;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_alive_at_once_ready_when_it_streams_and_says_why_it_is_not() {
    let mut env = TestEnv::start().await;
    let link = listening(env.link(), "127.0.0.1:0");
    let mut tandem = env.tandem(&link);
    env.b.sigstop();
    tandem.start();
    let address = address(&tandem).await;
    assert_eq!(get(&address, "/healthz").await.status, 200);
    let early = get(&address, "/readyz").await;
    assert_eq!(early.status, 503);
    assert!(
        early.body.contains("the link is starting"),
        "{}",
        early.body
    );
    openmetrics::parse(&get(&address, "/metrics").await.body);
    env.b.sigcont();
    wait_ready(&address).await;

    let refused = ask(
        &address,
        "GET /status HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    )
    .await;
    assert_eq!(refused.status, 421);
    let post = format!("POST /status HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(ask(&address, &post).await.status, 405);
    assert_eq!(ask(&address, "nonsense\r\n\r\n").await.status, 400);
    let page = get(&address, "/").await;
    assert_eq!(page.status, 200);
    for header in ["content-security-policy: default-src 'none'", "nosniff"] {
        assert!(page.headers.contains(header), "{}", page.headers);
    }

    env.b.sigkill();
    let why = wait_for("it is no longer ready", SOON, || async {
        let answer = get(&address, "/readyz").await;
        (answer.status == 503).then_some(answer.body)
    })
    .await;
    env.b.restart().await;
    assert!(why.contains("us: "), "{why}");
    assert_eq!(get(&address, "/healthz").await.status, 200);
    wait_ready(&address).await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_metrics_and_events_tell_what_the_link_does_and_a_restart_is_told_on_the_same_port()
{
    let env = TestEnv::start().await;
    let mut tandem = env.tandem(&listening(env.link(), "127.0.0.1:0"));
    tandem.start();
    let address = address(&tandem).await;
    wait_ready(&address).await;
    let documents = (0..50).map(|id| doc! { "_id": id });
    env.orders_a().insert_many(documents).await.unwrap();
    assert_converged(&env, SOON).await;
    let insert = [("pipeline", "a-to-b"), ("operation", "insert")];
    wait_for("the inserts are counted", SOON, || async {
        let families = openmetrics::parse(&get(&address, "/metrics").await.body);
        (families["tandem_operations_applied"].value(&insert) == 50.0).then_some(())
    })
    .await;
    let families = openmetrics::parse(&get(&address, "/metrics").await.body);
    assert_eq!(families["tandem_ready"].value(&[]), 1.0);
    assert_eq!(
        families["tandem_lag_seconds"].unit.as_deref(),
        Some("seconds")
    );
    assert!(families["tandem_oplog_left_seconds"].value(&[("side", "a")]) > 0.0);
    wait_for("status is what the command tells", SOON, || async {
        let served: Value = serde_json::from_str(&get(&address, "/status").await.body).ok()?;
        (served == tandem.status()).then_some(())
    })
    .await;

    tandem.stop().await;
    for (orders, side) in [(env.orders_a(), "a"), (env.orders_b(), "b")] {
        let set = doc! { "$set": { "side": side } };
        orders.update_one(doc! { "_id": 7 }, set).await.unwrap();
    }
    let mut tandem = env.tandem(&listening(env.link(), &address));
    tandem.start();
    wait_ready(&address).await;
    let mut page = Page::open(&address).await;
    let heard = page
        .hear("\"namespace\":\"shop.orders\",\"key\":\"7\"")
        .await;
    for part in ["event: hello\n", "event: samples\n", "event: status\n"] {
        assert!(heard.contains(part), "{heard}");
    }

    let mut of_others = listening(env.link(), &address);
    of_others.state_dir = "other-state".to_owned();
    let mut other = env.tandem_named("other.toml", &of_others);
    other.start();
    assert_eq!(other.wait_exit(SOON).await, 3);
    assert!(other.log().contains("cannot listen on"), "{}", other.log());
    let same = tandem.run(&["run"]);
    let said = String::from_utf8_lossy(&same.stderr);
    assert_eq!(same.status.code(), Some(7), "the link runs already: {said}");
    assert!(said.contains("another tandem runs on"), "{said}");
    assert_eq!(get(&address, "/healthz").await.status, 200);
    tandem.stop().await;
}

/// Ports on which a process listens, as the system tells them: hexadecimal address and port.
fn ports_of(pid: u32) -> Vec<String> {
    let sockets: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its files")
        .filter_map(|file| std::fs::read_link(file.ok()?.path()).ok())
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?;
            Some(inode.trim_end_matches(']').to_owned())
        })
        .collect();
    assert!(!sockets.is_empty(), "it is connected to its clusters");
    let of_family = |family: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{family}"));
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(|family| of_family(family).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    rows.filter_map(|row| {
        const LISTENING: &str = "0A";
        const UNCONNECTED: &str = "07";
        let words: Vec<&str> = row.split_whitespace().collect();
        let is_open = [LISTENING, UNCONNECTED].contains(words.get(3)?);
        let is_ours = sockets
            .iter()
            .any(|inode| words.get(9) == Some(&inode.as_str()));
        (is_open && is_ours).then(|| words[1].to_owned())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_listens_only_where_it_is_told_to_and_warns_where_others_reach_it() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    assert_eq!(ports_of(tandem.pid()), [""; 0]);
    tandem.stop().await;
    for (listen, host, others_reach_it) in [
        ("127.0.0.1:0", "0100007F:", false),
        ("0.0.0.0:0", "00000000:", true),
    ] {
        let _ = std::fs::remove_file(tandem.log_path());
        let mut tandem = env.tandem(&listening(env.link(), listen));
        tandem.start();
        tandem.wait_until_streaming().await;
        let ports = ports_of(tandem.pid());
        assert_eq!(ports.len(), 1, "{ports:?}");
        assert!(ports[0].starts_with(host), "{ports:?}");
        let log = tandem.log();
        let warned = log.lines().any(|line| {
            line.contains("WARN") && line.contains("http can be reached from other hosts")
        });
        assert_eq!(warned, others_reach_it, "{log}");
        tandem.stop().await;
    }
}
