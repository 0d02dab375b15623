//! A real Prometheus reads a running link: the rules, and what the Grafana dashboard asks, have answers.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bson::doc;
use serde_json::Value;

use crate::support::env::TestEnv;
use crate::support::http::{Answer, address, ask};
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(60);
/// What has an answer only now and then.
const SELDOM: [&str; 2] = ["tandem_initial_sync_", "tandem_start_time_seconds"];

struct Prometheus {
    process: Child,
    address: String,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Prometheus {
    /// One that watches this address as docs/alerts.yml asks for it.
    fn start(env: &TestEnv, watched: &str) -> Self {
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alerts.yml");
        let config = env.path("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs: [{{ job_name: tandem, static_configs: [{{ targets: [{watched:?}] }}] }}]\n"
        );
        std::fs::write(&config, text).expect("a configuration");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("its address").to_string();
        drop(free);
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                env.path("series").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus starts; on Debian: apt-get install prometheus");
        Self { process, address }
    }

    /// In the old protocol an answer comes in one piece and ends the connection.
    async fn get(&self, path: &str) -> Answer {
        let host = &self.address;
        ask(
            host,
            &format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n"),
        )
        .await
    }

    async fn data(&self, path: &str) -> Value {
        let answer = self.get(&format!("/api/v1/{path}")).await;
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        assert_eq!(answer.status, 200, "{path}: {body}");
        body["data"].clone()
    }

    async fn series(&self, query: &str) -> usize {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.data(&format!("query?query={encoded}")).await;
        data["result"].as_array().map_or(0, Vec::len)
    }
}

/// What the panels and annotations of the dashboard ask, for any link.
fn queries() -> Vec<String> {
    let text = include_str!("../../docs/grafana/dashboard.json");
    let dashboard: Value = serde_json::from_str(text).expect("JSON");
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let panels = list(&dashboard["panels"]);
    let targets = panels.iter().flat_map(|panel| list(&panel["targets"]));
    let all = targets.chain(list(&dashboard["annotations"]["list"]));
    all.map(|one| {
        let query = one["expr"].as_str().expect("a query");
        query
            .replace("$link", ".*")
            .replace("$__rate_interval", "10s")
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a Prometheus: cargo test --test suite prometheus -- --ignored"]
async fn prometheus_evaluates_every_rule_and_answers_what_the_dashboard_asks() {
    let env = TestEnv::start().await;
    let link = env.link().extra("[http]\nlisten = \"127.0.0.1:0\"\n");
    let tandem = env.streaming(&link).await;
    let prometheus = Prometheus::start(&env, &address(&tandem).await);
    wait_for("it is up", SOON, || async {
        (prometheus.get("/-/ready").await.status == 200).then_some(())
    })
    .await;
    let queries = queries();
    assert!(queries.len() > 15, "{queries:?}");
    env.orders_a()
        .insert_one(doc! { "_id": 1 })
        .await
        .expect("inserted");
    for query in &queries {
        let seldom = SELDOM.iter().any(|name| query.contains(name));
        wait_for(query, SOON, || async {
            (prometheus.series(query).await > 0 || seldom).then_some(())
        })
        .await;
    }
    let rules = wait_for("the rules are evaluated", SOON, || async {
        let groups = prometheus.data("rules").await["groups"].clone();
        let rules = groups[0]["rules"].as_array()?.clone();
        let all = rules.iter().all(|rule| rule["health"] != "unknown");
        all.then_some(rules)
    })
    .await;
    assert!(rules.len() >= 10, "{rules:#?}");
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
    }
    drop(tandem);
    wait_for("the rules notice that it is gone", SOON, || async {
        let alerts = prometheus.data("alerts").await;
        let alerts = alerts["alerts"].as_array()?.clone();
        let names: BTreeSet<_> = alerts
            .iter()
            .filter_map(|one| one["labels"]["alertname"].as_str())
            .collect();
        names.contains("TandemDown").then_some(())
    })
    .await;
}
