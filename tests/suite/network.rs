//! A network that loses, cuts, damages or delays what goes between tandem and the clusters.

use std::time::Duration;

use bson::doc;

use crate::support::compare::assert_converged_by;
use crate::support::load::Load;
use crate::support::proxy::{Cut, Network, Proxy};
use crate::support::random::{scaled, seed};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;
use crate::support::wired::Wired;

const SOON: Duration = Duration::from_secs(60);

/// The state of the link is as wanted on `side`.
async fn wait_reachable(tandem: &Tandem, side: &str, wanted: bool) {
    let what = format!("{side} is {}reachable", if wanted { "" } else { "un" });
    let is = |status: &serde_json::Value| status["clusters"][side]["reachable"] == wanted;
    tandem.wait_status(&what, SOON, is).await;
}

/// Returns once it has happened.
async fn cut_one(proxy: &Proxy, cut: Cut) {
    let before = proxy.cuts();
    proxy.cut(cut);
    wait_for("a reply is cut or damaged", SOON, || async {
        (proxy.cuts() > before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_half_open_or_deaf_on_one_side_lose_nothing() {
    let wired = Wired::start().await;
    let mut tandem = wired.env.streaming(&wired.link()).await;
    let load = Load::start(&wired.env, Load::steady(seed("connections")));
    for proxy in [&wired.a, &wired.b] {
        for cut in [
            Cut::HalfOfReplyTo("getMore"),
            Cut::NextReplyTo("getMore"),
            Cut::HalfOfReplyTo("commitTransaction"),
            Cut::NextReplyTo("update"),
            Cut::NextReplyTo("abortTransaction"),
            Cut::NextReplyTo("find"),
        ] {
            cut_one(proxy, cut).await;
        }
    }
    for (proxy, side) in [(&wired.a, "a"), (&wired.b, "b")] {
        for network in [
            Network::BlackHole,
            Network::CommandsLost,
            Network::RepliesLost,
        ] {
            proxy.set(network);
            wait_reachable(&tandem, side, false).await;
            proxy.heal();
            wait_reachable(&tandem, side, true).await;
        }
    }
    load.settle(&wired.env, &tandem, SOON).await;
    assert!(tandem.is_running());
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_and_a_flapping_network_with_writes_on_both_sides_heal() {
    let wired = Wired::start().await;
    let mut tandem = wired.env.streaming(&wired.link()).await;
    let load = Load::start(&wired.env, Load::steady(seed("partition")));
    wired.both(Network::BlackHole);
    wait_reachable(&tandem, "a", false).await;
    wait_reachable(&tandem, "b", false).await;
    wired.both(Network::Fine);
    wait_reachable(&tandem, "a", true).await;
    for _ in 0..scaled(50) {
        wired.both(Network::Severed);
        tokio::time::sleep(Duration::from_millis(200)).await;
        wired.both(Network::Fine);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    load.settle(&wired.env, &tandem, SOON).await;
    assert!(tandem.is_running());
    tandem.stop().await;
}

/// Many megabytes, and conflicts, which take the most round trips.
async fn distant(latency: Duration, apply: &str) {
    let wired = Wired::start().await;
    let link = wired.env.link().extra(apply);
    let link = link.extra("[limits]\nqueue_bytes_max = 8388608");
    let mut tandem = wired.env.streaming(&link).await;
    wired.a.set(slow(latency));
    wired.b.set(slow(latency));
    let load = Load::start(&wired.env, Load::steady(seed("slow")).keys(3000));
    let text = "x".repeat(50_000);
    for id in 0..scaled(500) as i32 {
        let row = doc! { "_id": 100_000 + id, "seen": [], "name": &text };
        wired.env.orders_a().insert_one(row).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.settle(&wired.env, &tandem, SOON * 4).await;
    assert_eq!(tandem.status()["state"], "running");
    tandem.stop().await;
}

fn slow(latency: Duration) -> Network {
    Network::Slow {
        latency,
        bytes_per_second: 1_000_000,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_and_little_bandwidth_cost_time_and_nothing_else() {
    distant(Duration::from_millis(25), "").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: 200 ms each way, with the longer transactions that this needs"]
async fn long_a_latency_of_200_ms_each_way_needs_longer_transactions_and_costs_only_time() {
    distant(Duration::from_millis(200), "transaction_time_max = \"20s\"").await;
}

/// Ends with a reason, or goes on; never a panic, never the memory that a message promises.
#[tokio::test(flavor = "multi_thread")]
async fn messages_that_mean_nothing_end_in_an_error_and_lose_nothing() {
    let wired = Wired::start().await;
    let mut tandem = wired.env.streaming(&wired.link()).await;
    let seed = seed("garbage");
    let load = Load::start(&wired.env, Load::steady(seed));
    let mut ends = Vec::new();
    // Which side meets what is another one with the next seed.
    let commands = ["getMore", "update", "commitTransaction", "find", "hello"];
    for (turn, command) in (seed as usize % 2..).zip(commands) {
        for (turn, cut) in (turn..).zip([
            Cut::GarbageFor(command),
            Cut::RandomFor(command, seed),
            Cut::HugeReplyTo(command),
            Cut::NegativeReplyTo(command),
        ]) {
            if !tandem.is_running() {
                tandem.start();
                tandem.wait_until_streaming().await;
            }
            let logged = tandem.log().len();
            cut_one([&wired.a, &wired.b][turn % 2], cut).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
            if tandem.log()[logged..].contains("stopping") {
                let code = tandem.wait_exit(SOON).await;
                ends.push(format!("{cut:?}: {code}"));
                assert!(code == 1 || code == 4, "{cut:?} ended with {code}");
            }
        }
    }
    println!("ended by {ends:?}");
    assert!(!tandem.log().contains("panicked"), "{}", tandem.log());
    if !tandem.is_running() {
        tandem.start();
        tandem.wait_until_streaming().await;
    }
    load.settle(&wired.env, &tandem, SOON).await;
    tandem.stop().await;
}

/// Everything that a reader holds back for a slow target must fit into its bounds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute: a backlog of 200 MB against a target of 2 MB a second"]
async fn long_a_slow_target_holds_the_source_back_and_memory_flat() {
    const MEGABYTES_MAX: u64 = 250;
    let wired = Wired::start().await;
    let link = wired
        .env
        .link()
        .extra("[limits]\nqueue_bytes_max = 16777216");
    let mut tandem = wired.env.streaming(&link).await;
    wired.b.set(Network::Slow {
        latency: Duration::from_millis(50),
        bytes_per_second: 2_000_000,
    });
    let text = "x".repeat(100_000);
    let mut largest = 0;
    for id in 0..2000 {
        let row = doc! { "_id": id, "text": &text };
        wired.env.orders_a().insert_one(row).await.unwrap();
        largest = largest.max(resident_megabytes(tandem.pid()));
    }
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        largest = largest.max(resident_megabytes(tandem.pid()));
    }
    println!("{largest} MB at most");
    assert!(largest < MEGABYTES_MAX, "{largest} MB");
    wired.b.heal();
    assert_converged_by(&tandem, &wired.env, SOON).await;
    tandem.stop().await;
}

fn resident_megabytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
    kilobytes.expect("VmRSS").parse::<u64>().expect("a number") / 1024
}
