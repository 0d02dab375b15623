//! What is answered to which path.

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::events::{Body, Hall};
use super::guard::{Names, protect};
use crate::telemetry::board::Board;
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::ready::not_ready;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const EVENTS: &str = "text/event-stream";

/// The files of the dashboard.
const ASSETS: [(&str, &str, &str); 6] = [
    ("/", HTML, include_str!("../assets/dashboard.html")),
    (
        "/dashboard.css",
        CSS,
        include_str!("../assets/dashboard.css"),
    ),
    (
        "/dashboard.js",
        SCRIPT,
        include_str!("../assets/dashboard.js"),
    ),
    ("/chart.js", SCRIPT, include_str!("../assets/chart.js")),
    ("/show.js", SCRIPT, include_str!("../assets/show.js")),
    ("/icon.svg", SVG, include_str!("../assets/icon.svg")),
];

const PATHS: &str = "/ (the dashboard), /healthz, /readyz, /status, /metrics, /events";

/// Everything an answer is made of.
pub struct Answers {
    pub names: Names,
    pub board: Board,
    pub metrics: Metrics,
    pub events: Hall,
}

impl Answers {
    pub fn to<B>(&self, request: &Request<B>) -> Response<Body> {
        let mut response = if !self.names.allow(request.headers()) {
            let what =
                "ask for localhost: this server listens on loopback and answers to no other name";
            text(StatusCode::MISDIRECTED_REQUEST, what)
        } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD: it only tells",
            );
            let allowed = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(ALLOW, allowed);
            refused
        } else {
            self.found(request)
        };
        protect(&mut response);
        response
    }

    fn found<B>(&self, request: &Request<B>) -> Response<Body> {
        match request.uri().path() {
            "/healthz" => self.health(),
            "/readyz" => match not_ready(&self.board.status()) {
                None => text(StatusCode::OK, "ready"),
                Some(why) => text(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &format!("not ready: {why}"),
                ),
            },
            "/status" => self.status(),
            "/metrics" => full(StatusCode::OK, metrics::CONTENT_TYPE, self.metrics.render()),
            "/events" if *request.method() == Method::HEAD => {
                full(StatusCode::OK, EVENTS, String::new())
            }
            "/events" => match self.events.enter() {
                Some(body) => with(StatusCode::OK, EVENTS, body),
                None => text(StatusCode::SERVICE_UNAVAILABLE, "too many pages are open"),
            },
            path => match ASSETS.iter().find(|(known, _, _)| *known == path) {
                Some((_, kind, content)) => full(StatusCode::OK, kind, (*content).to_owned()),
                None => text(
                    StatusCode::NOT_FOUND,
                    &format!("nothing is here; see {PATHS}"),
                ),
            },
        }
    }

    /// Whether starting the process again could help.
    fn health(&self) -> Response<Body> {
        match self.board.silent_for() {
            None => text(StatusCode::OK, "ok"),
            Some(silent) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                &format!("the link has told nothing for {} s", silent.as_secs()),
            ),
        }
    }

    fn status(&self) -> Response<Body> {
        match serde_json::to_string_pretty(&self.board.status()) {
            Ok(json) => full(StatusCode::OK, JSON, json + "\n"),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the status is no JSON"),
        }
    }
}

/// A line for people. A terminal that shows it obeys no name in it.
fn text(status: StatusCode, line: &str) -> Response<Body> {
    full(status, TEXT, crate::report::escaped(line) + "\n")
}

fn full(status: StatusCode, kind: &'static str, content: String) -> Response<Body> {
    with(status, kind, Body::whole(content))
}

fn with(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Pair, PipelineId};
    use crate::telemetry::status::{LinkState, Phase};

    fn answers() -> Answers {
        let board = Board::new("eu-us", Pair::new("eu", "us"), &PipelineId::BOTH);
        Answers {
            names: Names::Loopback,
            metrics: Metrics::new(board.clone()),
            events: Hall::new(board.clone()),
            board,
        }
    }

    fn request(method: Method, path: &str) -> Request<()> {
        let request = Request::builder().method(method).uri(path);
        request.header("host", "localhost").body(()).unwrap()
    }

    #[tokio::test]
    async fn every_path_is_answered_with_its_kind_and_protected() {
        let answers = answers();
        for (path, status, kind) in [
            ("/", 200, HTML),
            ("/dashboard.css", 200, CSS),
            ("/dashboard.js", 200, SCRIPT),
            ("/chart.js", 200, SCRIPT),
            ("/show.js", 200, SCRIPT),
            ("/icon.svg", 200, SVG),
            ("/healthz", 200, TEXT),
            ("/readyz", 503, TEXT),
            ("/status", 200, JSON),
            ("/metrics", 200, metrics::CONTENT_TYPE),
            ("/events", 200, EVENTS),
            ("/../etc/passwd", 404, TEXT),
            ("/status/", 404, TEXT),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let response = answers.to(&request(method, path));
                assert_eq!(response.status().as_u16(), status, "{path}");
                assert_eq!(response.headers()[CONTENT_TYPE], kind, "{path}");
                assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            }
        }
    }

    #[test]
    fn other_methods_and_other_names_are_refused() {
        let answers = answers();
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let response = answers.to(&request(method, "/status"));
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        }
        let foreign = Request::builder()
            .uri("/status")
            .header("host", "evil.example");
        let response = answers.to(&foreign.body(()).unwrap());
        assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
        assert!(response.headers().contains_key("content-security-policy"));
    }

    #[test]
    fn it_is_ready_once_everything_streams() {
        let answers = answers();
        let mut status = answers.board.status();
        status.state = LinkState::Running;
        for pipeline in &mut status.pipelines {
            pipeline.phase = Phase::Streaming;
        }
        answers.board.show(status);
        let response = answers.to(&request(Method::GET, "/readyz"));
        assert_eq!(response.status(), StatusCode::OK);
    }
}
