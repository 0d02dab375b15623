//! HTTP: health, status, metrics and the dashboard, for whoever may reach the port. It only tells.

mod answer;
mod events;
mod guard;
mod patient;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::board::Board;
use super::metrics::Metrics;
use crate::error::{Error, Result};
use answer::Answers;
pub use events::Body;
use guard::Names;
use patient::Patient;

/// A scraper, a probe and some pages at once; more wait for their turn.
const CONNECTIONS_MAX: usize = 64;
/// A request is a few lines.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Somebody who takes nothing for so long has gone.
const STALL_TIME_MAX: Duration = Duration::from_secs(10);
/// After an error of the listener, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// A port that is taken and not served yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    address: SocketAddr,
}

/// Takes the port, so that one that is in use ends a start before anything else happens.
///
/// # Errors
/// A config error (3) that names the address.
pub fn listen(address: SocketAddr) -> Result<Listening> {
    let bound = bind(address).map_err(|cause| {
        let hint = match cause.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens there, another tandem perhaps: each needs a port of its own"
            }
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege",
            _ => "the address must be one of this host",
        };
        Error::config(format!("cannot listen on {address} (http.listen)"))
            .caused_by(cause)
            .hint(hint)
    });
    let listening = bound?;
    tracing::info!(address = %listening.address, "http listens");
    if !listening.address.ip().is_loopback() {
        tracing::warn!(
            address = %listening.address,
            "http can be reached from other hosts: whoever reaches it reads names, keys of conflicts and errors"
        );
    }
    Ok(listening)
}

fn bind(address: SocketAddr) -> io::Result<Listening> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok(Listening { listener, address })
}

/// Serves what `board` shows, as long as the process lives.
pub async fn serve(listening: Listening, board: Board) {
    let listener = match tokio::net::TcpListener::from_std(listening.listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "http cannot be served");
            return;
        }
    };
    let answers = Arc::new(Answers {
        names: Names::of(listening.address),
        metrics: Metrics::new(board.clone()),
        events: events::Hall::new(board.clone()),
        board,
    });
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = answers.clone();
                tokio::spawn(async move {
                    converse(stream, answers).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection to its end. What goes wrong is the caller's affair.
async fn converse(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let answers = answers.clone();
        async move { Ok::<Response<Body>, Infallible>(answers.to(&request)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        // A probe or a scraper asks once; an open connection would hold a slot.
        .keep_alive(false)
        .serve_connection(TokioIo::new(Patient::new(stream, STALL_TIME_MAX)), service);
    if let Err(error) = connection.await {
        tracing::trace!(%error, "an http connection broke");
    }
}
