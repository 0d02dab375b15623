//! A connection that gives up on a peer who takes nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// Fails a write that has made no progress for a while, which frees what stands behind it.
pub struct Patient<S> {
    stream: S,
    stall_time_max: Duration,
    stalled: Pin<Box<Sleep>>,
    waits: Waits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    ForNothing,
    ForTheReader,
}

impl<S> Patient<S> {
    pub fn new(stream: S, stall_time_max: Duration) -> Self {
        Self {
            stream,
            stall_time_max,
            stalled: Box::pin(sleep(stall_time_max)),
            waits: Waits::ForNothing,
        }
    }

    fn watched<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waits = Waits::ForNothing;
            return outcome;
        }
        if self.waits == Waits::ForNothing {
            self.waits = Waits::ForTheReader;
            let until = Instant::now() + self.stall_time_max;
            self.stalled.as_mut().reset(until);
        }
        ready!(self.stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(cx, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.watched(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watched(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_takes_nothing_is_given_up() {
        let (near, _far) = duplex(8);
        let mut near = Patient::new(near, PATIENCE);
        let began = Instant::now();
        let error = near.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), PATIENCE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_gets_everything() {
        let (near, mut far) = duplex(8);
        let mut near = Patient::new(near, PATIENCE);
        let reads = tokio::spawn(async move {
            let mut got = 0;
            while got < 100 {
                tokio::time::sleep(PATIENCE / 2).await;
                got += far.read(&mut [0; 8]).await.unwrap();
            }
        });
        near.write_all(&[0; 100]).await.unwrap();
        reads.await.unwrap();
    }
}
