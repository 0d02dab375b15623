//! Connections that cannot be trusted are refused, and no secret shows anywhere.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use bson::{Document, doc};
use futures_util::TryStreamExt;

use crate::support::access::{Authority, KeyFile, create_user, role, uri_as};
use crate::support::compare::assert_converged;
use crate::support::env::{LinkConfig, TestEnv};
use crate::support::http::{Page, get};
use crate::support::mongod::MongodOptions;
use crate::support::tandem::Tandem;

const SOON: Duration = Duration::from_secs(30);
/// Everything that has a meaning in a connection string, a shell or TOML.
const PASSWORD: &str = "p@ss:w/rd?#[]%&= \"'\\ü€";
const ENCODED: &str = "p%40ss%3Aw%2Frd%3F%23%5B%5D%25%26%3D%20%22%27%5C%C3%BC%E2%82%AC";

/// `a` takes TLS and certificates only, `b` passwords.
struct Secured {
    env: TestEnv,
    authority: Authority,
    link: LinkConfig,
}

impl Secured {
    async fn start() -> Self {
        let (keys, authority) = (KeyFile::new(), Authority::new());
        let secure = authority.secure(MongodOptions::named("eu-set"));
        let (a, b) = tokio::join!(
            keys.start(secure),
            keys.start(MongodOptions::named("us-set")),
        );
        let role = role("target");
        a.admin(role.clone()).await;
        let user = doc! {
            "createUser": "CN=tandem,O=tandem clients",
            "roles": [{ "role": "tandem_target", "db": "admin" }],
        };
        let external = a.client().database("$external");
        external.run_command(user).await.expect("a user");
        create_user(&b, &role, PASSWORD).await;
        let env = TestEnv::of(a, b);
        let mut link = env.link().extra("[timeouts]\nconnect = \"700ms\"");
        link.include = vec!["shop.*".to_owned()];
        link.uri_a = format!(
            "{}&tls=true&tlsCAFile={}&tlsCertificateKeyFile={}&authMechanism=MONGODB-X509&authSource=%24external",
            env.a.uri(),
            authority.ca_file().display(),
            authority.issue_client("tandem").display(),
        );
        link.uri_b = uri_as(&env.b, &format!("tandem:{ENCODED}")) + "&authMechanism=SCRAM-SHA-256";
        Self {
            env,
            authority,
            link,
        }
    }

    /// Starting is refused in one line that names the cluster and the cause, with a hint.
    fn refused(&self, link: &LinkConfig, cluster: &str, cause: &str, hint: &str) {
        let output = self.env.tandem(link).run(&["run"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{cause}: {said}");
        let find = |start: &str| said.lines().filter(|l| l.starts_with(start)).collect();
        let (errors, hints): (Vec<&str>, Vec<&str>) = (find("error:"), find("hint:"));
        assert_eq!((errors.len(), hints.len()), (1, 1), "{cause}: {said}");
        let error = errors[0].to_lowercase();
        assert!(error.contains(cluster), "{said}");
        assert!(error.contains(&cause.to_lowercase()), "{cause}: {said}");
        assert!(hints[0].contains(hint), "{hint}: {said}");
    }

    /// The server shows another certificate to every new connection.
    async fn show(&self, names: &[&str], lasting: Duration) {
        self.authority.issue_server_for(names, lasting);
        self.env.a.admin(doc! { "rotateCertificates": 1 }).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_cannot_be_trusted_is_refused_and_its_cause_named() {
    let secured = Secured::start().await;
    let of_a = |change: &dyn Fn(&str) -> String| LinkConfig {
        uri_a: change(&secured.link.uri_a),
        ..secured.link.clone()
    };
    let of_b = |change: &dyn Fn(&str) -> String| LinkConfig {
        uri_b: change(&secured.link.uri_b),
        ..secured.link.clone()
    };

    let stranger = Authority::new();
    let ca = |authority: &Authority| authority.ca_file().display().to_string();
    let other_ca = |uri: &str| uri.replace(&ca(&secured.authority), &ca(&stranger));
    secured.refused(&of_a(&other_ca), "eu", "certificate", "tlsCAFile");

    let no_ca = |uri: &str| uri.replace(&format!("&tlsCAFile={}", ca(&secured.authority)), "");
    secured.refused(&of_a(&no_ca), "eu", "UnknownIssuer", "tlsCAFile");

    let plain = |_: &str| secured.env.a.uri();
    secured.refused(&of_a(&plain), "eu", "end of file", "tls=true");
    let tls = |uri: &str| format!("{uri}&tls=true");
    secured.refused(&of_b(&tls), "us", "tls handshake eof", "TLS");

    let nobody = secured.authority.issue_client("nobody");
    let known = secured.authority.issue_client("tandem");
    let (nobody, known) = (nobody.display().to_string(), known.display().to_string());
    let as_nobody = |uri: &str| uri.replace(&known, &nobody);
    secured.refused(&of_a(&as_nobody), "eu", "failure", "user");
    let forged = stranger.issue_client("tandem").display().to_string();
    let as_forged = |uri: &str| uri.replace(&known, &forged);
    secured.refused(
        &of_a(&as_forged),
        "eu",
        "I/O error",
        "tlsCertificateKeyFile",
    );

    let wrong = |uri: &str| uri.replace(ENCODED, "wrong");
    secured.refused(&of_b(&wrong), "us", "Authentication failed", "password");
    let nobody_at_all = |_: &str| secured.env.b.uri();
    secured.refused(&of_b(&nobody_at_all), "us", "authentication", "user");

    secured.show(&["elsewhere.example"], SOON).await;
    secured.refused(&secured.link, "eu", "not valid for", "name");

    let short = Duration::from_secs(2);
    secured.show(&["127.0.0.1"], short).await;
    // Certificates count in whole seconds.
    tokio::time::sleep(short + Duration::from_secs(1)).await;
    secured.refused(&secured.link, "eu", "expired", "run out");
}

/// Nothing below a folder may be readable for others, nor hold any of the secrets.
fn inspect(folder: &Path, secrets: &[&str]) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let mode = fs::metadata(&path).expect("its mode").permissions().mode() & 0o777;
        if path.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            inspect(&path, secrets);
            continue;
        }
        assert_eq!(mode, 0o600, "{}", path.display());
        // A socket cannot be read.
        let content = fs::read(&path).unwrap_or_default();
        for secret in secrets {
            assert!(!holds(&content, secret), "{} shows it", path.display());
        }
    }
}

fn holds(content: &[u8], secret: &str) -> bool {
    content
        .windows(secret.len())
        .any(|part| part == secret.as_bytes())
}

/// Where it listens, of a log of JSON.
fn json_address(log: &str) -> String {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let mut told =
        lines.filter(|line: &serde_json::Value| line.to_string().contains("http listens"));
    let line = told.next().expect("http listens");
    let address = line["address"]
        .as_str()
        .or(line["fields"]["address"].as_str());
    address.expect("an address").to_owned()
}

fn shown(tandem: &Tandem, arguments: &[&str]) -> Vec<u8> {
    let mut output = tandem.run(arguments);
    output.stdout.append(&mut output.stderr);
    output.stdout
}

/// Whatever a running link can be asked for.
async fn everything_it_tells(tandem: &Tandem) -> Vec<(&'static str, Vec<u8>)> {
    let process = format!("/proc/{}", tandem.pid());
    let cmdline = fs::read(format!("{process}/cmdline")).expect("its arguments");
    let mut texts = vec![("arguments", cmdline)];
    for command in [
        &["status"][..],
        &["status", "--json"],
        &["check"],
        &["runs", "--json"],
        &["conflict-report"],
        &["conflict-report", "--format", "json"],
        &["conflict-report", "--format", "ndjson"],
        &["conflict-report", "--format", "csv"],
        &["conflict-report", "--format", "html"],
        &["verify"],
        &["verify", "--json"],
        &["check", "--json"],
        &["dead-letter", "list"],
        &["cutover", "--timeout", "1ms", "--yes"],
        &[
            "cutover",
            "--yes",
            "--log-format",
            "json",
            "--timeout",
            "1ms",
        ],
    ] {
        let text = shown(tandem, command);
        assert!(!text.is_empty(), "{command:?} says something");
        texts.push((command[0], text));
    }
    let address = json_address(&tandem.log());
    for path in ["/", "/status", "/metrics", "/readyz", "/nothing"] {
        let answer = get(&address, path).await;
        texts.push((path, (answer.headers + &answer.body).into_bytes()));
    }
    let mut page = Page::open(&address).await;
    let heard = page.hear("event: status").await.to_owned();
    texts.push(("events", heard.into_bytes()));
    texts
}

/// What lies in tandem's own database.
async fn own_state(client: &mongodb::Client) -> String {
    let own = client.database("__tandem");
    let mut text = String::new();
    for name in own.list_collection_names().await.unwrap() {
        let found = own.collection::<Document>(&name).find(doc! {}).await;
        let found: Vec<Document> = found.unwrap().try_collect().await.unwrap();
        text += &format!("{name}: {found:?}\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_by_certificate_and_password_runs_and_shows_no_secret_anywhere() {
    let secured = Secured::start().await;
    let env = &secured.env;
    env.create_on_both("shop", "orders").await;
    let link = secured
        .link
        .clone()
        .extra("[http]\nlisten = \"127.0.0.1:0\"");
    let mut tandem = env.tandem(&link);
    tandem.run_with(&["-vv", "--log-format", "json"]);
    tandem.start();
    tandem.wait_until_streaming().await;
    let secret_document = "4111-1111-secret";
    tandem.sigstop();
    for (side, orders) in [("a", env.orders_a()), ("b", env.orders_b())] {
        let row = doc! { "_id": 1, "by": side, "card": secret_document };
        orders.insert_one(row).await.unwrap();
    }
    tandem.sigcont();
    assert_converged(env, SOON).await;
    assert_eq!(tandem.all_conflicts(env).await.len(), 1);

    let secrets = [PASSWORD, ENCODED, "mongodb://", "BEGIN PRIVATE KEY"];
    let mut texts = everything_it_tells(&tandem).await;
    inspect(&env.path("tandem-state"), &secrets);
    // Its connections are cut and its password is gone: the errors hold no secret either.
    let gone = doc! { "dropUser": "tandem" };
    env.b.admin(gone).await;
    let cut = doc! { "failCommands": ["getMore"], "closeConnection": true, "appName": "tandem" };
    env.b.fail_command(doc! { "times": 2 }, cut).await;
    assert_eq!(tandem.wait_exit(SOON).await, 4);
    let log = tandem.log();
    let of_trace = [r#""level":"TRACE""#, r#""level":"DEBUG""#];
    assert!(of_trace.iter().any(|level| log.contains(level)), "{log}");
    assert!(!log.contains(secret_document), "documents are not logged");
    texts.push(("log", log.into_bytes()));
    texts.push(("run", shown(&tandem, &["run", "-vv"])));
    for (what, text) in &texts {
        for secret in secrets {
            assert!(!holds(text, secret), "{what} shows {secret}");
        }
    }
    inspect(&env.path("tandem-state"), &secrets);
    for client in [env.a.client(), env.b.client()] {
        let text = own_state(client).await;
        assert!(!text.contains(ENCODED) && !text.contains("mongodb://"));
    }
}
