//! Asking a running link through its control socket.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use bson::{DateTime, RawDocumentBuf};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::control::{LINE_BYTES_MAX, RECORDS_END, Reached, Request, Response, told};
use crate::error::{Error, Result};

/// How long a running link may take for an answer, or for the next record.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);
/// A document has a length, a closing zero byte and nothing between them at least.
const DOCUMENT_BYTES_MIN: usize = 5;
/// A record's documents have 16 MB each; a longer length is not one of ours.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024 * 1024;

type Stream = BufReader<UnixStream>;

pub enum Answer {
    Line(Response),
    Records(RecordStream),
}

/// Records as they come, one at a time in memory.
pub struct RecordStream {
    pub link: String,
    pub complete_since: Option<DateTime>,
    stream: Stream,
}

/// Asks the link that runs on a state directory; none where no link runs there.
///
/// # Errors
/// What the link itself says with its exit code; exit 7 where the socket may not be used or breaks.
pub async fn ask(state_dir: &Path, request: &Request) -> Result<Option<Answer>> {
    let asked = timeout(ANSWER_TIME_MAX, exchange(state_dir, request)).await;
    let failed = |cause: io::Error| {
        let dir = state_dir.display();
        let hint = match cause.kind() {
            ErrorKind::PermissionDenied => "run this as the user that runs tandem",
            _ => "see the log of the running tandem",
        };
        Error::store(format!("cannot ask the tandem that runs on {dir}"))
            .caused_by(cause)
            .hint(hint)
    };
    match asked.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
        Ok(None) => Ok(None),
        Ok(Some((
            Response::Failed {
                message,
                hint,
                exit_code,
            },
            _,
        ))) => Err(told(message, hint, exit_code)),
        Ok(Some((
            Response::Records {
                link,
                complete_since,
            },
            stream,
        ))) => Ok(Some(Answer::Records(RecordStream {
            link,
            complete_since,
            stream,
        }))),
        Ok(Some((response, _))) => Ok(Some(Answer::Line(response))),
        Err(cause) if is_gone(&cause) && request.only_reads() => Ok(None),
        Err(cause) => Err(failed(cause)),
    }
}

async fn exchange(state_dir: &Path, request: &Request) -> io::Result<Option<(Response, Stream)>> {
    let connected = match Reached::by(state_dir) {
        Ok(reached) => UnixStream::connect(&reached.path).await,
        Err(cause) => Err(cause),
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(cause)
            if matches!(
                cause.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(cause) => return Err(cause),
    };
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    let response = read_line(&mut stream).await?;
    Ok(Some((response, stream)))
}

async fn read_line(stream: &mut Stream) -> io::Result<Response> {
    let mut line = String::new();
    let read = stream.take(LINE_BYTES_MAX).read_line(&mut line).await?;
    if read == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

/// The link ended before it answered.
fn is_gone(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
    )
}

impl RecordStream {
    /// The next record; none after the last.
    ///
    /// # Errors
    /// What the link says; exit 7 where it ended before the last record.
    pub async fn next(&mut self) -> Result<Option<RawDocumentBuf>> {
        let failed = |cause: io::Error| {
            Error::store("the running tandem did not send all records").caused_by(cause)
        };
        let next = timeout(ANSWER_TIME_MAX, self.read_next()).await;
        match next.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())) {
            Ok(Ok(record)) => Ok(Some(record)),
            Ok(Err(Response::Failed {
                message,
                hint,
                exit_code,
            })) => Err(told(message, hint, exit_code)),
            Ok(Err(_)) => Ok(None),
            Err(cause) => Err(failed(cause)),
        }
    }

    /// A record, or the line that stands behind the last one.
    async fn read_next(&mut self) -> io::Result<std::result::Result<RawDocumentBuf, Response>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await?;
        if length == RECORDS_END {
            return read_line(&mut self.stream).await.map(Err);
        }
        let bytes_len = u32::from_le_bytes(length) as usize;
        if !(DOCUMENT_BYTES_MIN..=DOCUMENT_BYTES_MAX).contains(&bytes_len) {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; bytes_len];
        bytes[..length.len()].copy_from_slice(&length);
        self.stream.read_exact(&mut bytes[length.len()..]).await?;
        let record = RawDocumentBuf::from_bytes(bytes);
        record
            .map(Ok)
            .map_err(|cause| io::Error::new(ErrorKind::InvalidData, cause))
    }
}
