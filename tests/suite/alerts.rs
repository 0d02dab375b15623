//! Somebody is told when the link needs them, once, and when it no longer does.

use std::path::Path;
use std::time::Duration;

use crate::support::access::Authority;
use crate::support::env::TestEnv;
use crate::support::wait::wait_for;
use crate::support::webhook::Receiver;

const SOON: Duration = Duration::from_secs(30);
const TOKEN: &str = "T0KEN-OF-THE-HOOK";

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_once_over_tls_and_its_end_too_and_a_failed_start_at_once() {
    let mut env = TestEnv::start().await;
    let authority = Authority::new();
    let receiver = Receiver::start(&authority).await;
    let (port, file) = (receiver.port, env.path("told"));
    let ca_file = authority.ca_file();
    let link = env.link().extra(&format!(
        "[timeouts]\nconnect = \"2s\"\n[alerts]\nlink_stopped = \"5s\"\n\
         webhook = \"https://localhost:{port}/hooks/{TOKEN}\"\nwebhook_ca_file = {ca_file:?}\n\
         command = [\"sh\", \"-c\", \"cat >> {0}; env > {0}.env\"]\n",
        file.display()
    ));
    let mut tandem = env.tandem(&link);
    tandem.env("URI_OF_SOMETHING", TOKEN);
    let checked = tandem.run(&["check"]);
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.contains(&format!("localhost:{port}")), "{checked}");
    assert!(receiver.told().is_empty());

    tandem.start();
    tandem.wait_until_streaming().await;
    receiver.refuse(1);
    env.b.sigkill();
    let events = ["link_stopped firing".to_owned()];
    wait_for("the outage is told", SOON, || async {
        (receiver.events() == events).then_some(())
    })
    .await;
    assert!(
        !receiver.is_refusing(),
        "it was refused once and told again"
    );
    let told = &receiver.told()[0];
    assert!(
        told.head
            .starts_with(&format!("post /hooks/{}", TOKEN.to_lowercase()))
    );
    assert_eq!(told.message["link"], "eu-us");
    let text = told.message["text"].as_str().expect("a text");
    assert!(text.contains("us: "), "{text}");

    env.b.restart().await;
    let events = ["link_stopped firing", "link_stopped recovered"];
    wait_for("its end is told", SOON, || async {
        (receiver.events() == events).then_some(())
    })
    .await;
    tandem.stop().await;

    env.b.sigkill();
    tandem.start();
    assert_eq!(tandem.wait_exit(SOON).await, 4);
    assert_eq!(receiver.events().len(), 3, "{:?}", receiver.told());
    env.b.restart().await;
    tandem.start();
    tandem.wait_until_streaming().await;
    wait_for(
        "the restart ends what the last process told",
        SOON,
        || async { (receiver.events().len() == 4).then_some(()) },
    )
    .await;
    let (at_command, given) = told_to_command(&file, 4).await;
    assert_eq!(at_command.lines().count(), 4, "{at_command}");
    assert!(!given.contains(TOKEN), "{given}");
    assert!(!tandem.log().contains(TOKEN), "{}", tandem.log());
    tandem.stop().await;
}

/// What the command got once it has been told so often, and its environment.
async fn told_to_command(file: &Path, often: usize) -> (String, String) {
    wait_for("the command is told", SOON, || async {
        let told = std::fs::read_to_string(file).ok()?;
        let given = std::fs::read_to_string(file.with_extension("env")).ok()?;
        (told.lines().count() >= often && given.contains("PATH=")).then_some((told, given))
    })
    .await
}

#[tokio::test]
async fn a_receiver_that_cannot_be_used_is_told_of_by_check_and_never_shown() {
    let env = TestEnv::start().await;
    let free = crate::support::mongod::free_port();
    let link = env.link().extra(&format!(
        "[alerts]\nwebhook = \"http://127.0.0.1:{free}/{TOKEN}\"\ncommand = [\"/no/such/program\"]\n"
    ));
    let checked = env.tandem(&link).run(&["check"]);
    let shown = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(shown.matches("WARN  alerts").count(), 2, "{shown}");
    assert!(shown.contains("/no/such/program is no program"), "{shown}");
    for refused in [
        "webhook = \"ftp://example.com/T0KEN-OF-THE-HOOK\"",
        "webhook = \"https://user:T0KEN-OF-THE-HOOK@example.com/\"",
        "webhook_env = \"T0KEN-OF-THE-HOOK\"",
        "webhook = \"https://example.com/T0KEN-OF-THE-HOOK\"\nwebhook_file = \"x\"",
    ] {
        let link = env.link().extra(&format!("[alerts]\n{refused}\n"));
        let output = env.tandem(&link).run(&["check"]);
        assert_eq!(output.status.code(), Some(3), "{refused}");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            told.contains("alerts.webhook") && !told.contains(TOKEN),
            "{told}"
        );
    }
}
