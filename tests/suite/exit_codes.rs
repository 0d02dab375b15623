//! Each exit code that scripts rely on, by the cause that an operator would meet.

use std::process::Output;
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;

use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::mongod::{Mongod, MongodOptions};
use crate::support::oplog::roll_over;
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(30);

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs the link, expects the code, and that nothing was written to either cluster.
async fn refused(env: &TestEnv, link: &LinkConfig, expected: i32) -> String {
    let output = env.tandem(link).run(&["run"]);
    assert_eq!(code(&output), expected, "{}", stderr(&output));
    assert!(stderr(&output).contains("hint: "), "{}", stderr(&output));
    for client in [env.a.client(), env.b.client()] {
        let names = client.list_database_names().await.unwrap();
        assert!(
            !names.contains(&"__tandem".to_owned()),
            "it wrote before it had checked"
        );
    }
    stderr(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn code_0_it_stopped_when_asked_and_goes_on_where_it_was() {
    let env = TestEnv::start().await;
    let link = env.link();
    let mut tandem = env.streaming(&link).await;
    tandem.sigint();
    assert_eq!(tandem.wait_exit(SOON).await, 0);
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    tandem.start();
    assert_converged(&env, SOON).await;
    tandem.stop().await;
    let status = tandem.status();
    assert_eq!(status["state"], "stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn code_0_it_is_asked_to_stop_before_it_has_found_its_clusters() {
    const SIGTERM_IS_CAUGHT: u64 = 1 << 14;
    let env = TestEnv::start().await;
    env.b.sigstop();
    let mut tandem = env.tandem(&env.link());
    tandem.start();
    let process = format!("/proc/{}/status", tandem.pid());
    wait_for("it listens for signals", SOON, async || {
        let status = std::fs::read_to_string(&process).ok()?;
        let caught = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught & SIGTERM_IS_CAUGHT != 0).then_some(())
    })
    .await;
    tandem.sigterm();
    assert_eq!(tandem.wait_exit(Duration::from_secs(5)).await, 0);
    env.b.sigcont();
}

#[tokio::test(flavor = "multi_thread")]
async fn code_1_a_server_answers_what_nobody_knows() {
    const NOBODY_KNOWS: i32 = 7777;
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let odd = doc! { "failCommands": ["getMore"], "errorCode": NOBODY_KNOWS };
    env.b.fail_command("alwaysOn", odd).await;
    assert_eq!(tandem.wait_exit(SOON).await, 1);
    let log = tandem.log();
    assert!(log.contains("us") && log.contains("7777"), "{log}");
}

#[tokio::test]
async fn code_2_a_command_line_that_nobody_can_mean() {
    let env = TestEnv::start().await;
    let tandem = env.tandem(&env.link());
    for arguments in [
        &["fly"][..],
        &["run", "--no-such-flag"],
        &["conflict", "restore"],
    ] {
        assert_eq!(code(&tandem.run(arguments)), 2, "{arguments:?}");
    }
}

#[tokio::test]
async fn code_3_a_bad_config_lists_all_its_problems_with_their_keys() {
    let env = TestEnv::start().await;
    let mut link = env
        .link()
        .fence("hope")
        .extra("[conflicts]\ntie = \"c\"\n[nonsense]\nx = 1");
    link.mode = "three-way".to_owned();
    link.lease_duration = "-5s".to_owned();
    link.include = Vec::new();
    let message = refused(&env, &link, 3).await;
    for key in [
        "link.mode",
        "namespaces.include",
        "link.lease_duration",
        "apply.fence",
        "conflicts.tie",
        "nonsense",
    ] {
        assert!(message.contains(key), "{key} is not named in:\n{message}");
    }
}

#[tokio::test]
async fn code_3_the_same_uri_twice() {
    let env = TestEnv::start().await;
    let mut link = env.link();
    link.uri_b = link.uri_a.clone();
    refused(&env, &link, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_3_a_change_of_an_existing_link_and_a_second_link_over_the_same_names() {
    let env = TestEnv::start().await;
    let link = env.link();
    env.streaming(&link).await.stop().await;
    let one_way = link.clone().one_way();
    assert_eq!(code(&env.tandem(&one_way).run(&["run"])), 3);
    let tie = link.clone().extra("[conflicts]\ntie = \"b\"");
    assert_eq!(code(&env.tandem(&tie).run(&["run"])), 3);
    let mut renamed = link.clone();
    renamed.name = "another".to_owned();
    renamed.state_dir = "another-state".to_owned();
    assert_eq!(code(&env.tandem(&renamed).run(&["run"])), 3);
}

#[tokio::test]
async fn code_4_one_cluster_behind_two_uris() {
    let env = TestEnv::start().await;
    let mut link = env.link();
    link.uri_b = link.uri_a.replace("127.0.0.1", "localhost");
    refused(&env, &link, 4).await;
}

#[tokio::test]
async fn code_4_a_standalone_server() {
    let env = TestEnv::start().await;
    let standalone = Mongod::start_without_set().await;
    let mut link = env.link().extra("[timeouts]\nconnect = \"3s\"");
    link.uri_b = format!("mongodb://127.0.0.1:{}/", standalone.port());
    refused(&env, &link, 4).await;
}

#[tokio::test]
async fn code_4_a_set_of_another_name() {
    let env = TestEnv::start().await;
    let mut link = env.link().extra("[timeouts]\nconnect = \"2s\"");
    link.uri_b = link.uri_b.replace("us-set", "them-set");
    let said = refused(&env, &link, 4).await;
    assert!(said.contains("us"), "{said}");
    println!("{said}");
}

/// The servers are new enough, and were told to behave like older ones.
#[tokio::test]
async fn code_4_an_older_feature_compatibility_version() {
    let env = TestEnv::start().await;
    let older = doc! { "setFeatureCompatibilityVersion": "5.0" };
    env.b.admin(older).await;
    let said = refused(&env, &env.link(), 4).await;
    println!("{said}");
    assert!(said.contains("us"), "{said}");
}

#[tokio::test]
async fn passwords_never_appear_in_any_output() {
    let env = TestEnv::start().await;
    let mut link = env.link().extra("[timeouts]\nconnect = \"2s\"");
    link.uri_b = link
        .uri_b
        .replace("mongodb://", "mongodb://someone:s3cret-w0rd@");
    let tandem = env.tandem(&link);
    for (arguments, expected) in [
        (&["run", "-v"][..], 4),
        (&["check"], 4),
        (&["status", "--json"], 0),
    ] {
        let output = tandem.run(arguments);
        assert_eq!(code(&output), expected, "{}", stderr(&output));
        let all = String::from_utf8_lossy(&output.stdout).into_owned() + &stderr(&output);
        assert!(!all.contains("s3cret-w0rd"), "{arguments:?}");
    }
}

async fn drop_tandem(client: &Client) {
    client.database("__tandem").drop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn code_5_state_is_missing_on_one_side() {
    let env = TestEnv::start().await;
    let link = env.link();
    env.streaming(&link).await.stop().await;
    drop_tandem(env.b.client()).await;
    let tandem = env.tandem(&link);
    assert_eq!(code(&tandem.run(&["run"])), 5);
}

/// Its own writes could not be told from an application's any more.
#[tokio::test(flavor = "multi_thread")]
async fn code_5_the_ids_of_its_sessions_are_lost() {
    let env = TestEnv::start().await;
    let link = env.link();
    env.streaming(&link).await.stop().await;
    let own = env.a.client().database("__tandem");
    let sessions = own.collection::<Document>("sessions");
    sessions.delete_many(doc! {}).await.unwrap();
    let output = env.tandem(&link).run(&["run"]);
    assert_eq!(code(&output), 5);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("ids of tandem's sessions"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn code_5_a_store_that_knows_more_than_both_clusters() {
    let env = TestEnv::start().await;
    let link = env.link();
    let mut tandem = env.streaming(&link).await;
    tandem.stop().await;
    drop_tandem(env.a.client()).await;
    drop_tandem(env.b.client()).await;
    assert_eq!(code(&tandem.run(&["run"])), 5);
    tandem.run_with(&["--first-start"]).start();
    tandem.wait_until_streaming().await;
    tandem.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_5_the_resume_point_has_left_the_oplog() {
    let small = MongodOptions::named("eu-set").with_small_oplog();
    let env = TestEnv::start_with(small, MongodOptions::named("us-set")).await;
    let link = env.link();
    env.streaming(&link).await.stop().await;
    roll_over(env.a.client()).await;
    let output = env.tandem(&link).run(&["run"]);
    assert_eq!(code(&output), 5);
    assert!(stderr(&output).contains("eu"), "{}", stderr(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn code_7_a_newer_tandem_has_written_the_link_on_a_cluster() {
    let env = TestEnv::start().await;
    let link = env.link();
    env.streaming(&link).await.stop().await;
    let links = env.b.client().database("__tandem");
    let links = links.collection::<Document>("links");
    let newer = doc! { "$set": { "format": 99_i64 } };
    links.update_one(doc! {}, newer).await.unwrap();
    let output = env.tandem(&link).run(&["run"]);
    assert_eq!(code(&output), 7, "{}", stderr(&output));
    assert!(stderr(&output).contains("us has link eu-us in format 99"));
}

#[tokio::test(flavor = "multi_thread")]
async fn code_6_a_conflict_is_on_record() {
    let env = TestEnv::start().await;
    let mut tandem = env.streaming(&env.link()).await;
    let fail = ["conflict-report", "--fail-if-any"];
    assert_eq!(code(&tandem.run(&fail)), 0);
    tandem.sigstop();
    env.orders_a()
        .insert_one(doc! { "_id": 1, "x": 1 })
        .await
        .unwrap();
    env.orders_b()
        .insert_one(doc! { "_id": 1, "x": 2 })
        .await
        .unwrap();
    tandem.sigcont();
    assert_converged(&env, SOON).await;
    assert_eq!(code(&tandem.run(&fail)), 6);
    tandem.stop().await;
    assert_eq!(code(&tandem.run(&fail)), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn code_7_a_state_directory_that_cannot_be_used() {
    let env = TestEnv::start().await;
    let mut link = env.link();
    std::fs::write(env.path("a-file"), "in the way").unwrap();
    link.state_dir = "a-file".to_owned();
    refused(&env, &link, 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_124_the_time_is_over_before_it_has_caught_up() {
    let env = TestEnv::start().await;
    let link = env.link();
    env.streaming(&link).await.stop().await;
    env.orders_a().insert_one(doc! { "_id": 1 }).await.unwrap();
    let never = doc! { "failCommands": ["commitTransaction"], "errorCode": 24 };
    env.b.fail_command("alwaysOn", never).await;
    let tandem = env.tandem(&link);
    let output = tandem.run(&["run", "--until-caught-up", "--timeout", "3s"]);
    assert_eq!(code(&output), 124, "{}", stderr(&output));
}

/// Its commit waits for so long once the server has it.
async fn hold_a_commit(env: &TestEnv, tandem: &Tandem, ids: std::ops::Range<i32>, held_ms: i32) {
    let block = doc! {
        "failCommands": ["commitTransaction"], "blockConnection": true, "blockTimeMS": held_ms,
        "appName": "tandem",
    };
    env.b.fail_command(doc! { "times": 1 }, block).await;
    tandem.sigstop();
    // With one lane, what comes in one transaction goes in one.
    let mut session = env.a.client().start_session().await.unwrap();
    session.start_transaction().await.unwrap();
    let rows = ids.map(|id| doc! { "_id": id });
    let rows = env.orders_a().insert_many(rows).session(&mut session).await;
    rows.unwrap();
    session.commit_transaction().await.unwrap();
    tandem.sigcont();
    // The commit is under way once the server counts it.
    wait_for("a commit is held", SOON, async || {
        let op = doc! { "currentOp": 1, "command.commitTransaction": 1 };
        let held = env.b.admin(op).await;
        (!held.get_array("inprog").unwrap().is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn code_0_the_batch_under_way_is_on_the_target_once_it_has_stopped() {
    const ROWS: i32 = 50;
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.tandem(&env.link().lanes(1));
    for (round, signal) in ["TERM", "INT"].into_iter().enumerate() {
        tandem.start();
        tandem.wait_until_streaming().await;
        let first = round as i32 * ROWS;
        hold_a_commit(&env, &tandem, first..first + ROWS, 2000).await;
        let there = async || env.orders_b().count_documents(doc! {}).await.unwrap();
        assert_eq!(there().await, first as u64, "it is not there yet");
        tandem.signal(signal);
        assert_eq!(tandem.wait_exit(SOON).await, 0, "{}", tandem.tail());
        assert_eq!(there().await, (first + ROWS) as u64, "{}", tandem.tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn code_130_a_second_interrupt_stops_without_draining() {
    let env = TestEnv::start().await;
    env.create_on_both("shop", "orders").await;
    let mut tandem = env.tandem(&env.link());
    let each = [("INT", "INT"), ("TERM", "TERM"), ("TERM", "INT")];
    for (id, (first, second)) in (1..).zip(each) {
        let _ = std::fs::remove_file(tandem.log_path());
        tandem.start();
        tandem.wait_until_streaming().await;
        hold_a_commit(&env, &tandem, id..id + 1, 6000).await;
        tandem.signal(first);
        wait_for("the first signal is heard", SOON, async || {
            (tandem.log().to_lowercase().contains("stop")).then_some(())
        })
        .await;
        assert!(tandem.is_running());
        tandem.signal(second);
        let code = tandem.wait_exit(Duration::from_secs(3)).await;
        assert_eq!(code, 130, "{first} {second}");
    }
}
