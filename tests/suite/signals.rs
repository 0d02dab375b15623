//! What an operator or the host does to the process: asked to stop, frozen, starved.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};

use crate::support::compare::{assert_converged_by, contents};
use crate::support::env::TestEnv;
use crate::support::oracle::History;
use crate::support::random::seed;
use crate::support::strace;
use crate::support::tandem::Tandem;
use crate::support::workload::{Workload, documents_of};

const SOON: Duration = Duration::from_secs(30);

/// A load on both sides that goes on while `meanwhile` runs, and an account of it and what was
/// `before` in the end.
async fn under_load(
    env: &TestEnv,
    tandem: &mut Tandem,
    before: History,
    meanwhile: impl AsyncFnOnce(&mut Tandem),
) -> History {
    let stop = Arc::new(AtomicBool::new(false));
    let load = Workload::new(seed("signals"), 1)
        .keys(100)
        .pause(Duration::from_millis(2))
        .ids_from(1_000_000 * usize::from(!before.writes.is_empty()))
        .until(stop.clone());
    let (a, b) = (env.a.client().clone(), env.b.client().clone());
    let writers = tokio::spawn(async move { load.run(&a, &b).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    meanwhile(tandem).await;
    stop.store(true, Ordering::SeqCst);
    let history = before.merge(writers.await.expect("the writers end well"));
    assert_converged_by(tandem, env, SOON).await;
    let documents = documents_of(&contents(env.a.client()).await);
    history.assert_accounted(&documents, &tandem.all_conflicts(env).await);
    history
}

fn shell(script: &str) -> Vec<String> {
    let script = format!("{script}; exec \"$@\"");
    ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_stop_under_load_or_frozen_past_its_lease_it_loses_nothing() {
    let env = TestEnv::start().await;
    let mut link = env.link();
    link.lease_duration = "2s".to_owned();
    let mut tandem = env.streaming(&link).await;
    let history = under_load(&env, &mut tandem, History::default(), async |tandem| {
        let asked = Instant::now();
        tandem.sigterm();
        assert_eq!(tandem.wait_exit(SOON).await, 0);
        println!("it stopped after {:?}", asked.elapsed());
        assert_eq!(tandem.status()["state"], "stopped");
        tandem.start();
        tandem.wait_until_streaming().await;
    })
    .await;
    let pid = tandem.pid();
    under_load(&env, &mut tandem, history, async |tandem| {
        tandem.sigstop();
        // Twice the lease, and nobody has taken it.
        tokio::time::sleep(Duration::from_secs(4)).await;
        tandem.sigcont();
    })
    .await;
    assert!(tandem.is_running() && tandem.pid() == pid);
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_log_and_few_files_stop_nothing() {
    let env = TestEnv::start().await;
    let mut tandem = env.tandem(&env.link());
    // On one processor, too.
    let script = "ulimit -n 64; exec 2>/dev/full; taskset -pc 0 $$ >/dev/null";
    tandem.under(&shell(script));
    tandem.start();
    tandem.wait_until_streaming().await;
    under_load(&env, &mut tandem, History::default(), async |_| {}).await;
    assert!(tandem.is_running());
    let status = std::fs::read_to_string(format!("/proc/{}/status", tandem.pid())).unwrap();
    let of = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    assert_eq!(of("Cpus_allowed_list:").map(str::trim), Some("0"));
    let peak = of("VmHWM:").and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    println!("{peak:?} kB at most");
    assert!(peak.expect("its memory") < 128 * 1024, "{peak:?} kB");
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_files_threads_or_memory_are_named_and_are_no_damage() {
    let env = TestEnv::start().await;
    // Where files are missing for a connection, it is tried for that long.
    let link = env.link().extra("[timeouts]\nconnect = \"5s\"");
    let mut tandem = env.streaming(&link).await;
    tandem.stop().await;
    for (limit, hints) in [
        ("ulimit -n 14", &["ulimit -n", "Too many open files"][..]),
        ("ulimit -v 262144", &["ulimit -a"]),
        // An allocation that fails where nobody can answer for it aborts, and says so.
        ("ulimit -v 60000", &["ulimit -a", "memory allocation of"]),
    ] {
        let mut starved = env.tandem_named("starved.toml", &link);
        starved.under(&shell(limit));
        starved.run_with(&["--until-caught-up"]);
        starved.start();
        let code = starved.wait_exit(SOON).await;
        let log = starved.log();
        assert!(!log.contains("damaged"), "{limit}: {log}");
        // Where the limit is not one on this machine, nothing fails.
        let named = hints.iter().any(|hint| log.contains(hint));
        assert!(code == 0 || named, "{limit}: {code} {log}");
        std::fs::remove_file(starved.log_path()).unwrap();
    }
    tandem.start();
    tandem.wait_until_streaming().await;
    tandem.stop().await;
}

/// From some thread on no other one can be started: the process either goes on or says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_gets_none_of_its_threads_ends_the_process_by_name() {
    if !strace::is_usable() {
        return;
    }
    let env = TestEnv::start().await;
    let link = env.link();
    let mut tandem = env.streaming(&link).await;
    tandem.stop().await;
    for first in 2..7 {
        let mut starved = env.tandem_named("starved.toml", &link);
        starved.env(strace::WORKERS.0, strace::WORKERS.1);
        starved.under(&strace::failing_from("clone,clone3", "EAGAIN", first));
        starved.run_with(&["--until-caught-up"]);
        starved.start();
        let code = starved.wait_exit(2 * SOON).await;
        let log = starved.log();
        assert!(!log.contains("damaged"), "{first}: {log}");
        let named = code == 7 && log.contains("ulimit -a");
        assert!(code == 0 || named, "{first}: {code} {log}");
        std::fs::remove_file(starved.log_path()).unwrap();
    }
    tandem.start();
    tandem.wait_until_streaming().await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_state_that_a_later_index_forbids_is_passed_again_after_a_kill() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.streaming(&env.link()).await;
    tandem.sigstop();
    let orders = env.orders_a();
    for id in 0..20 {
        orders
            .insert_one(doc! { "_id": id, "name": "one" })
            .await
            .unwrap();
    }
    orders
        .delete_many(doc! { "_id": { "$gt": 0 } })
        .await
        .unwrap();
    let shop = env.a.client().database("shop");
    let unique = doc! { "key": { "name": 1 }, "name": "name", "unique": true };
    let command: Document = doc! { "createIndexes": "orders", "indexes": [unique] };
    shop.run_command(command).await.unwrap();
    // What it has begun is cut off at another moment each time.
    for pause in [0, 40, 150, 400] {
        tandem.kill9();
        tandem.start();
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    assert_converged_by(&tandem, &env, SOON).await;
    tandem.wait_until_streaming().await;
    assert_eq!(tandem.total("dead_letters_total"), 0);
    assert!(tandem.conflicts(&[]).is_empty());
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_4_the_connection_strings_are_swapped() {
    let env = TestEnv::start().await;
    let link = env.link();
    env.streaming(&link).await.stop().await;
    let mut swapped = link.clone();
    std::mem::swap(&mut swapped.uri_a, &mut swapped.uri_b);
    let output = env.tandem(&swapped).run(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("is not the cluster of last time"), "{said}");
}

/// The same address and the same name of the set, and not the same history.
#[tokio::test(flavor = "multi_thread")]
async fn code_4_a_cluster_was_made_anew_under_its_address() {
    let mut env = TestEnv::start().await;
    let link = env.link();
    env.streaming(&link).await.stop().await;
    env.b.begin_anew().await;
    let output = env.tandem(&link).run(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(
        said.contains("us is not the cluster of last time"),
        "{said}"
    );
    let databases = env.b.client().list_database_names().await.unwrap();
    assert!(!databases.contains(&"__tandem".to_owned()), "{databases:?}");
}
