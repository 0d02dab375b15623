//! Renames that cannot hold, and those of a link that exists.

use bson::doc;
use serde_json::Value;

use super::{RENAMES, of, renaming, said};
use crate::support::env::TestEnv;

fn rename(a: &str, b: &str) -> String {
    format!("[[renames]]\na = {a:?}\nb = {b:?}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn renames_that_cannot_hold_are_refused_all_at_once() {
    let env = TestEnv::start().await;
    let wrong = rename("crm.*", "crm_eu.*")
        + &rename("shop.*", "eu.*")
        + &rename("shop.orders", "eu.orders")
        + &rename("bank.log", "admin.log");
    let tandem = env.tandem(&env.link().extra(&wrong));
    for command in [&["check"][..], &["run"], &["run", "--dry-run"]] {
        let told = said(&tandem, command, 3);
        for expected in [
            "renames[0].a: \"crm.*\" is nothing that namespaces.include names",
            "renames[2].a: \"shop.orders\" and \"shop.*\" (renames[1].a) may be one collection",
            "renames[2].b: \"eu.orders\" and \"eu.*\" (renames[1].b) may be one collection",
            "renames[3].b: must not be admin, which belongs to the server",
        ] {
            assert!(told.contains(expected), "{expected}: {told}");
        }
    }
    let taken = env.tandem(&env.link().extra(&rename("shop.*", "bank.*")));
    let told = said(&taken, &["check"], 3);
    assert!(
        told.contains("may be the name of another collection too"),
        "{told}"
    );

    let long = "x".repeat(245);
    of(env.a.client(), &format!("shop.{long}"))
        .insert_one(doc! { "_id": 1 })
        .await
        .unwrap();
    let longer = env.tandem(&env.link().extra(&rename("shop.*", "shop_of_europe.*")));
    let told = said(&longer, &["check"], 4);
    assert!(told.contains("260 bytes, more than the 255"), "{told}");
    let told = said(&longer, &["run", "--dry-run"], 0);
    assert!(told.contains("too long on the other cluster"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn renames_of_a_link_that_exists_stay_as_they_are() {
    let env = TestEnv::start().await;
    let link = renaming(&env);
    let mut tandem = env.streaming(&link).await;
    let told = said(&tandem, &["check"], 0);
    assert!(told.contains("bank.log -> audit.bank_log"), "{told}");

    let mut other = link.clone();
    other.extra = RENAMES.replace("shop_eu", "shop_us");
    let changed = env.tandem(&other);
    tandem.sighup();
    let refused = |status: &Value| {
        let refused = status["last_reload"]["refused"].to_string();
        refused.contains("renames") && refused.contains("it cannot be changed later")
    };
    tandem
        .wait_status("it is refused", super::SOON, refused)
        .await;
    tandem.stop().await;
    let told = said(&changed, &["run"], 3);
    let expected = "renames: cannot be changed on an existing link (it was bank.accounts -> \
                    bank.accounts_eu, bank.log -> audit.bank_log, left.* -> right.*, right.* -> left.*, \
                    shop.* -> shop_eu.*)";
    assert!(told.contains(expected), "{told}");
    other.extra = String::new();
    other.state_dir = "other-state".to_owned();
    let without = env.tandem(&other);
    assert!(said(&without, &["run"], 3).contains("renames: cannot be changed"));

    // Another link on the same collections of b, under another name on a.
    let mut second = env.link();
    second.name = "second".to_owned();
    second.state_dir = "second-state".to_owned();
    second.include = vec!["shop_eu.*".to_owned()];
    let second = env.tandem_named("second.toml", &second);
    let told = said(&second, &["run"], 3);
    assert!(told.contains("already replicates shop_eu.*"), "{told}");
    // A check only looks, and knows it before any start.
    let lines = second.run(&["check"]);
    assert_eq!(lines.status.code(), Some(4));
    let lines = String::from_utf8_lossy(&lines.stdout).into_owned();
    let refused = |line: &&str| line.starts_with("FAIL") && line.contains("already replicates");
    assert_eq!(lines.lines().filter(refused).count(), 1, "{lines}");
}
