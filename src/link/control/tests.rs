//! Both ends of a real socket.

use bson::{Uuid, rawdoc};

use super::*;
use crate::change::{Pair, PipelineId};
use crate::telemetry::status::LinkState;

/// A state directory that goes away with the test.
pub(in crate::link) struct Dir(pub PathBuf);

impl Dir {
    pub(in crate::link) fn new() -> Self {
        Self::named(&format!("tandem-link-{}", Uuid::new()))
    }

    fn named(name: &str) -> Self {
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Answers without a link behind it.
#[derive(Default)]
pub(in crate::link) struct Canned {
    pub records: Vec<RawDocumentBuf>,
    /// Said after the records.
    pub error: Option<&'static str>,
    /// Told when a request came that is never answered.
    pub unanswered: Arc<tokio::sync::Notify>,
}

impl Handler for Canned {
    fn handle(&self, request: Request) -> ReplyFuture<'_> {
        Box::pin(async move {
            match request {
                Request::Status => {
                    let names = Pair::new("eu", "us");
                    let pipelines = &PipelineId::BOTH;
                    let status = LinkStatus::new("eu-us", LinkState::Running, names, pipelines);
                    let status = Box::new(status);
                    Ok(Reply::Line(Response::Status { status }))
                }
                Request::Runs => Ok(Reply::Line(Response::Runs { runs: Vec::new() })),
                Request::Records { filter, .. } => {
                    let records = self.records.clone().into_iter();
                    let matching = records.filter(move |record| filter.matches(record)).map(Ok);
                    let error = self
                        .error
                        .map(|text| Err(Error::store(text).hint("a hint")));
                    Ok(Reply::Records {
                        link: "eu-us".into(),
                        complete_since: Some(DateTime::from_millis(5)),
                        records: Box::new(matching.chain(error)),
                    })
                }
                Request::DeadLetterRetry { id } => Ok(Reply::Line(Response::Done {
                    message: format!("retried {id}"),
                })),
                Request::DeadLetterDiscard { id } => {
                    Err(Error::usage(format!("no record {id}")).hint("a hint"))
                }
                Request::Resync { .. } | Request::SyncProgress | Request::Repair { .. } => {
                    Err(Error::usage("not here"))
                }
                Request::PutRun { .. }
                | Request::Turn
                | Request::Reload
                | Request::Pause { .. } => Ok(Reply::Line(Response::Done {
                    message: "done".into(),
                })),
                Request::Prune { .. } | Request::ConflictRestored { .. } => {
                    self.unanswered.notify_one();
                    std::future::pending().await
                }
            }
        })
    }
}

/// Serves until it is dropped.
pub(in crate::link) struct Serving {
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Serving {
    pub(in crate::link) fn start(dir: &Path, handler: Canned) -> Self {
        let shutdown = CancellationToken::new();
        let socket = bind(dir).unwrap();
        let task = tokio::spawn(serve(socket, Arc::new(handler), shutdown.clone()));
        Self { shutdown, task }
    }

    pub(in crate::link) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

fn canned(records: usize) -> Canned {
    let record = |n| rawdoc! { "_id": format!("{n:05}"), "text": "x".repeat(1000) };
    Canned {
        records: (0..records).map(record).collect(),
        ..Canned::default()
    }
}

async fn ask_records(dir: &Path, filter: RecordFilter) -> RecordStream {
    let answer = ask(
        dir,
        &Request::Records {
            filter,
            page: Page::default(),
        },
    )
    .await
    .unwrap();
    match answer {
        Some(Answer::Records(records)) => records,
        Some(Answer::Line(line)) => panic!("{line:?}"),
        None => panic!("nobody answers"),
    }
}

async fn line(dir: &Path, request: Request) -> Response {
    match ask(dir, &request).await.unwrap() {
        Some(Answer::Line(line)) => line,
        Some(Answer::Records(_)) => panic!("records"),
        None => panic!("nobody answers"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_link_answers_and_a_stopped_one_does_not() {
    let dir = Dir::new();
    assert!(ask(&dir.0, &Request::Status).await.unwrap().is_none());
    let serving = Serving::start(&dir.0, canned(0));
    let Response::Status { status } = line(&dir.0, Request::Status).await else {
        panic!("not a status");
    };
    assert_eq!(
        (status.link.as_str(), status.state),
        ("eu-us", LinkState::Running)
    );
    let retry = Request::DeadLetterRetry { id: "0a".into() };
    let done = Response::Done {
        message: "retried 0a".into(),
    };
    assert_eq!(line(&dir.0, retry).await, done);
    serving.stop().await;
    assert!(ask(&dir.0, &Request::Status).await.unwrap().is_none());
    assert!(!dir.0.join(SOCKET).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_arrive_byte_for_byte_and_in_order() {
    let dir = Dir::new();
    let mut handler = canned(3000);
    let mut bytes = rawdoc! { "_id": "03000", "s": "ab?" }.into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xFF;
    handler
        .records
        .push(RawDocumentBuf::from_bytes(bytes).unwrap());
    let expected = handler.records.clone();
    let _serving = Serving::start(&dir.0, handler);
    let mut records = ask_records(&dir.0, RecordFilter::default()).await;
    assert_eq!(records.complete_since, Some(DateTime::from_millis(5)));
    let mut found = Vec::new();
    while let Some(record) = records.next().await.unwrap() {
        found.push(record);
    }
    assert!(found == expected);
    let mut one = ask_records(&dir.0, RecordFilter::of_id("00007")).await;
    assert_eq!(one.next().await.unwrap(), Some(expected[7].clone()));
    assert_eq!(one.next().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_keeps_its_exit_code_and_hint() {
    let dir = Dir::new();
    let mut handler = canned(1);
    handler.error = Some("the disk is gone");
    let _serving = Serving::start(&dir.0, handler);
    let discard = Request::DeadLetterDiscard { id: "0a".into() };
    let error = ask(&dir.0, &discard).await.err().unwrap();
    assert_eq!(
        (error.exit, error.to_string().as_str()),
        (ExitCode::Usage, "no record 0a")
    );
    assert_eq!(error.hint.as_deref(), Some("a hint"));
    let mut records = ask_records(&dir.0, RecordFilter::default()).await;
    assert!(records.next().await.unwrap().is_some());
    let error = records.next().await.unwrap_err();
    assert_eq!(
        (error.exit, error.to_string().as_str()),
        (ExitCode::Store, "the disk is gone")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_ends_before_it_answers_is_an_error_where_something_was_to_change() {
    let dir = Dir::new();
    let handler = canned(0);
    let unanswered = Arc::clone(&handler.unanswered);
    let serving = Serving::start(&dir.0, handler);
    let path = dir.0.clone();
    let asked = tokio::spawn(async move {
        let by = crate::link::restorer::Restorer {
            at: DateTime::from_millis(1),
            user: "ann".into(),
            host: "here".into(),
            account: "ann@admin".into(),
        };
        let request = Request::ConflictRestored {
            id: "0a".into(),
            by,
        };
        ask(&path, &request).await.map(|answer| answer.is_some())
    });
    unanswered.notified().await;
    serving.stop().await;
    assert_eq!(asked.await.unwrap().unwrap_err().exit, ExitCode::Store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_known_is_told_so() {
    let dir = Dir::new();
    let _serving = Serving::start(&dir.0, canned(0));
    let mut stream = UnixStream::connect(dir.0.join(SOCKET)).await.unwrap();
    stream
        .write_all(b"{\"command\":\"dance\"}\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let Response::Failed { exit_code, .. } = serde_json::from_str(&answer).unwrap() else {
        panic!("{answer}");
    };
    assert_eq!(exit_code, ExitCode::Usage as i32);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_keep_others_out_for_ever() {
    let dir = Dir::new();
    let _serving = Serving::start(&dir.0, canned(0));
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(UnixStream::connect(dir.0.join(SOCKET)).await.unwrap());
    }
    line(&dir.0, Request::Status).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_user_may_use_the_socket_and_a_dead_one_is_replaced() {
    let dir = Dir::new();
    let mode = || {
        fs::metadata(dir.0.join(SOCKET))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    drop(std::os::unix::net::UnixListener::bind(dir.0.join(SOCKET)).unwrap());
    assert!(ask(&dir.0, &Request::Status).await.unwrap().is_none());
    let _serving = Serving::start(&dir.0, canned(0));
    assert_eq!(mode(), 0o600);
    line(&dir.0, Request::Status).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_file_of_the_sockets_name_is_left_alone() {
    let dir = Dir::new();
    fs::write(dir.0.join(SOCKET), "mine").unwrap();
    assert_eq!(bind(&dir.0).err().unwrap().exit, ExitCode::Store);
    assert_eq!(fs::read(dir.0.join(SOCKET)).unwrap(), b"mine");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_may_have_a_long_path() {
    let dir = Dir::named(&format!("tandem-link-{}-{}", Uuid::new(), "x".repeat(150)));
    let serving = Serving::start(&dir.0, canned(0));
    line(&dir.0, Request::Status).await;
    serving.stop().await;
    assert!(ask(&dir.0, &Request::Status).await.unwrap().is_none());
}

#[test]
fn requests_read_as_they_are_documented() {
    for (request, json) in [
        (Request::Status, r#"{"command":"status"}"#),
        (
            Request::DeadLetterRetry { id: "0a".into() },
            r#"{"command":"dead_letter_retry","id":"0a"}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&request).unwrap(), json);
        assert_eq!(serde_json::from_str::<Request>(json).unwrap(), request);
    }
    let short = r#"{"command":"records","filter":{"kinds":["ddl"]}}"#;
    assert!(serde_json::from_str::<Request>(short).is_ok());
}
