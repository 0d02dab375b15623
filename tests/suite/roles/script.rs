//! The script that makes the roles, under a real mongosh.

use std::process::Command;

use bson::{Bson, Document, doc};

use super::{PASSWORD, SOON, link, succeeds, use_it};
use crate::support::access::{KeyFile, role};
use crate::support::compare::assert_converged;
use crate::support::env::TestEnv;
use crate::support::mongod::{Mongod, MongodOptions};
use crate::support::schema::assert_same_schema;

/// `docs/roles/create.js`, by a mongosh that `MONGOSH` names where it is not in the path.
fn create_by_script(server: &Mongod, kind: &str, databases: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/roles/create.js");
    let shell = std::env::var("MONGOSH").unwrap_or_else(|_| "mongosh".to_owned());
    let uri = format!(
        "mongodb://root:root@127.0.0.1:{}/?directConnection=true",
        server.port()
    );
    let output = Command::new(shell)
        .args(["--quiet", &uri, script])
        .env("TANDEM_ROLE", kind)
        .env("TANDEM_DATABASES", databases)
        .env("TANDEM_PASSWORD", PASSWORD)
        .output()
        .expect("mongosh");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// In an order of their own.
fn in_order(privileges: &[Bson]) -> Vec<String> {
    let shown = |privilege: &Bson| {
        let privilege = privilege.as_document().expect("a privilege");
        let actions = privilege.get_array("actions").expect("actions");
        let mut actions: Vec<String> = actions.iter().map(Bson::to_string).collect();
        actions.sort();
        format!("{}: {actions:?}", privilege.get("resource").expect("what"))
    };
    let mut all: Vec<String> = privileges.iter().map(shown).collect();
    all.sort();
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs mongosh"]
async fn the_script_makes_the_roles_of_the_documents_for_every_database() {
    let keys = KeyFile::new();
    let (a, b) = tokio::join!(
        keys.start(MongodOptions::named("eu-set")),
        keys.start(MongodOptions::named("us-set")),
    );
    for (server, kind) in [(&a, "source"), (&b, "target")] {
        create_by_script(server, kind, "shop");
        let role = role(kind);
        let name = role.get_str("createRole").unwrap();
        let info = doc! { "rolesInfo": name, "showPrivileges": true };
        let info = server.admin(info).await;
        let made = info.get_array("roles").unwrap()[0].as_document().unwrap();
        assert_eq!(
            in_order(made.get_array("privileges").unwrap()),
            in_order(role.get_array("privileges").unwrap()),
        );
        // Once more, for a database more.
        create_by_script(server, kind, "shop,bank");
    }
    let env = TestEnv::of(a, b);
    let mut link = link(&env).one_way();
    link.include.push("bank.*".to_owned());
    let mut tandem = env.streaming(&link).await;
    succeeds(&tandem, &["check", "--write-probe"]);
    use_it(&env.a, 20).await;
    let bank = env.a.client().database("bank");
    let accounts = bank.collection::<Document>("accounts");
    accounts.insert_one(doc! { "_id": 1 }).await.unwrap();
    assert_converged(&env, SOON).await;
    assert_same_schema(&env, SOON).await;
    tandem.stop().await;
}
