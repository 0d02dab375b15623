//! The control socket: how commands talk to a running link, through a Unix socket in its state directory.
//!
//! One request a connection: a line of JSON, answered by a line of JSON. Records follow as raw BSON
//! documents, since JSON would lose text that is not UTF-8; four zero bytes and a closing line of
//! JSON end them.

use std::fs::{self, File, Permissions};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bson::{DateTime, RawDocumentBuf};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::merge::{Job, RepairKey};
use super::pausing::Wanted;
use super::restorer::Restorer;
use crate::change::{PipelineId, Side};
use crate::error::{Class, Error, ExitCode, Result};
use crate::resolve::Tally;
use crate::store::{Page, RecordFilter, Run};
use crate::telemetry::status::LinkStatus;

pub use super::control_client::{Answer, RecordStream, ask};

const SOCKET: &str = "control.sock";
const SOCKET_MODE: u32 = 0o600;
/// Linux keeps 108 bytes for a socket's path, the closing zero byte included.
const PATH_BYTES_MAX: usize = 107;
const CONNECTIONS_MAX: usize = 16;
/// A filter may name many ids.
pub(super) const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// A request is written at once by whoever connects.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(5);
/// Somebody may read a report page by page; past this the connection is given to others.
const STALL_TIME_MAX: Duration = Duration::from_secs(600);
const RECORDS_AHEAD_MAX: usize = 4;
/// Where a document's length would stand: no document is this short.
pub(super) const RECORDS_END: [u8; 4] = [0; 4];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    Status,
    Runs,
    Records {
        filter: RecordFilter,
        #[serde(default)]
        page: Page,
    },
    DeadLetterRetry {
        id: String,
    },
    DeadLetterDiscard {
        id: String,
    },
    /// Puts a cutover, or what it has come to since, among the runs.
    PutRun {
        run: Box<Run>,
    },
    /// A cutover has decided something: begin again with it.
    Turn,
    /// The losing version of this record was written back.
    ConflictRestored {
        id: String,
        by: Restorer,
    },
    /// Removes some of the records logged before a time.
    Prune {
        before: DateTime,
    },
    Pause {
        /// None: every one that the link has.
        pipeline: Option<PipelineId>,
        wanted: Wanted,
        /// Who asks for it.
        by: String,
    },
    /// Read the configuration again.
    Reload,
    /// Accepted at once; [`Request::SyncProgress`] tells of it.
    Resync {
        job: Job,
    },
    /// How far the last initial sync or resync is.
    SyncProgress,
    Repair {
        keys: Vec<RepairKey>,
        from: Option<Side>,
    },
}

impl Request {
    /// Whether asking changes nothing, so that a link that ends meanwhile is as good as none.
    pub(super) fn only_reads(&self) -> bool {
        match self {
            Request::Status | Request::Runs | Request::Records { .. } | Request::SyncProgress => {
                true
            }
            Request::Pause { .. }
            | Request::Reload
            | Request::Resync { .. }
            | Request::Repair { .. }
            | Request::DeadLetterRetry { .. }
            | Request::DeadLetterDiscard { .. }
            | Request::PutRun { .. }
            | Request::Turn
            | Request::Prune { .. }
            | Request::ConflictRestored { .. } => false,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum Response {
    Status {
        status: Box<LinkStatus>,
    },
    Runs {
        runs: Vec<Run>,
    },
    /// Records follow.
    Records {
        link: String,
        complete_since: Option<DateTime>,
    },
    /// `initial_sync` of the status at this moment; null where there was none.
    SyncProgress {
        numbers: serde_json::Value,
    },
    Repaired {
        tally: Tally,
    },
    Pruned {
        removed: u64,
        /// There may be more of them.
        more: bool,
    },
    /// What was asked is done, in words for people.
    Done {
        message: String,
    },
    Failed {
        message: String,
        hint: Option<String>,
        exit_code: i32,
    },
}

impl From<&Error> for Response {
    fn from(error: &Error) -> Self {
        Response::Failed {
            message: error.to_string(),
            hint: error.hint.clone(),
            exit_code: error.exit as i32,
        }
    }
}

/// An error as the running link told it.
pub(super) fn told(message: String, hint: Option<String>, exit_code: i32) -> Error {
    let exit = [
        ExitCode::Usage,
        ExitCode::Config,
        ExitCode::Cluster,
        ExitCode::History,
        ExitCode::Found,
        ExitCode::Store,
        ExitCode::Fenced,
        ExitCode::TimedOut,
        ExitCode::Interrupted,
    ]
    .into_iter()
    .find(|exit| *exit as i32 == exit_code)
    .unwrap_or(ExitCode::Unexpected);
    let error = Error::new(exit, Class::Operator, message);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// What a handler answers with.
pub enum Reply {
    Line(Response),
    Records {
        link: String,
        complete_since: Option<DateTime>,
        /// Read on a thread where blocking is allowed.
        records: Box<dyn Iterator<Item = Result<RawDocumentBuf>> + Send>,
    },
}

pub type ReplyFuture<'a> = Pin<Box<dyn Future<Output = Result<Reply>> + Send + 'a>>;

/// The running link, as far as the socket knows it. It bounds its own time.
pub trait Handler: Send + Sync + 'static {
    fn handle(&self, request: Request) -> ReplyFuture<'_>;
}

/// The socket of a state directory; its file goes with it.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens the socket. Only whoever holds the store may call this: a socket that is there is then a
/// dead process's, and is replaced.
///
/// # Errors
/// Exit 7 where the directory is not writable or another file has the socket's name.
pub fn bind(state_dir: &Path) -> Result<ControlSocket> {
    let path = state_dir.join(SOCKET);
    let failed = |cause: io::Error| {
        Error::store(format!("cannot open the control socket {}", path.display())).caused_by(cause)
    };
    match fs::symlink_metadata(&path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(&path).map_err(failed)?,
        Ok(_) => return Err(failed(io::Error::from(ErrorKind::AlreadyExists))),
        Err(cause) if cause.kind() == ErrorKind::NotFound => {}
        Err(cause) => return Err(failed(cause)),
    }
    let reached = Reached::by(state_dir).map_err(failed)?;
    let listener = UnixListener::bind(&reached.path).map_err(failed)?;
    fs::set_permissions(&path, Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
    Ok(ControlSocket { listener, path })
}

/// A path to the socket that is short enough for the kernel.
pub(super) struct Reached {
    pub path: PathBuf,
    /// Keeps the short path alive.
    _dir: Option<File>,
}

impl Reached {
    pub(super) fn by(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(SOCKET);
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { path, _dir: None });
        }
        let dir = File::open(state_dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", dir.as_raw_fd()));
        let known = path.parent().is_some_and(Path::exists);
        if !known {
            let message = format!("its path is longer than {PATH_BYTES_MAX} bytes");
            return Err(io::Error::new(ErrorKind::InvalidInput, message));
        }
        Ok(Self {
            path,
            _dir: Some(dir),
        })
    }
}

/// Answers requests until `shutdown`; a few connections at a time, the others wait.
pub async fn serve(socket: ControlSocket, handler: Arc<dyn Handler>, shutdown: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => return,
            slot = Arc::clone(&slots).acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = socket.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (handler, shutdown) = (Arc::clone(&handler), shutdown.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    tokio::select! {
                        () = shutdown.cancelled() => {}
                        answered = answer(stream, handler) => if let Err(error) = answered {
                            tracing::debug!(%error, "control connection ended early");
                        },
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Without it, a process out of file descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

async fn answer(stream: UnixStream, handler: Arc<dyn Handler>) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let mut out = BufWriter::new(write);
    let mut line = String::new();
    let mut lines = BufReader::new(read.take(LINE_BYTES_MAX));
    timeout(REQUEST_TIME_MAX, lines.read_line(&mut line)).await??;
    let reply = match serde_json::from_str::<Request>(&line) {
        Ok(request) => handler.handle(request).await,
        Err(cause) => Err(
            Error::usage("the running tandem does not know this request")
                .caused_by(cause)
                .hint("use the same version of tandem as the running one"),
        ),
    };
    match reply {
        Ok(Reply::Line(response)) => write_line(&mut out, &response).await?,
        Err(error) => write_line(&mut out, &Response::from(&error)).await?,
        Ok(Reply::Records {
            link,
            complete_since,
            records,
        }) => {
            let head = Response::Records {
                link,
                complete_since,
            };
            write_line(&mut out, &head).await?;
            let end = write_records(&mut out, records).await?;
            write_all(&mut out, &RECORDS_END).await?;
            write_line(&mut out, &end).await?;
        }
    }
    timeout(STALL_TIME_MAX, out.flush()).await?
}

async fn write_records(
    out: &mut (impl AsyncWriteExt + Unpin),
    records: Box<dyn Iterator<Item = Result<RawDocumentBuf>> + Send>,
) -> io::Result<Response> {
    let (send, mut receive) = mpsc::channel(RECORDS_AHEAD_MAX);
    tokio::task::spawn_blocking(move || {
        for record in records {
            if send.blocking_send(record).is_err() {
                return;
            }
        }
    });
    let mut sent: u64 = 0;
    while let Some(record) = receive.recv().await {
        match record {
            Ok(record) => write_all(out, record.as_bytes()).await?,
            Err(error) => return Ok(Response::from(&error)),
        }
        sent += 1;
    }
    Ok(Response::Done {
        message: format!("{sent} records"),
    })
}

async fn write_line(out: &mut (impl AsyncWriteExt + Unpin), line: &Response) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    write_all(out, &bytes).await
}

async fn write_all(out: &mut (impl AsyncWriteExt + Unpin), bytes: &[u8]) -> io::Result<()> {
    timeout(STALL_TIME_MAX, out.write_all(bytes)).await?
}

#[cfg(test)]
pub(super) mod tests;
