//! Server-sent events: the dashboard's past at once, and then whatever is new.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Bytes, Frame, SizeHint};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval};

use crate::telemetry::board::Board;
use crate::telemetry::history::SAMPLE_INTERVAL;

/// Pages that are open at once; the other connections are left to probes and scrapers.
const PAGES_MAX: usize = 24;
/// How often a page gets the newest numbers.
const PUSH_INTERVAL: Duration = Duration::from_secs(1);
/// After this a page asks again where its connection broke.
const RETRY_MS: u32 = 2000;
/// What waits for a page that is slow.
const FRAMES_AHEAD_MAX: usize = 2;

/// Where pages come to listen.
pub struct Hall {
    board: Board,
    seats: Arc<Semaphore>,
}

impl Hall {
    pub fn new(board: Board) -> Self {
        Self {
            board,
            seats: Arc::new(Semaphore::new(PAGES_MAX)),
        }
    }

    /// None where too many are there already.
    pub fn enter(&self) -> Option<Body> {
        let seat = self.seats.clone().try_acquire_owned().ok()?;
        let (send, receive) = mpsc::channel(FRAMES_AHEAD_MAX);
        tokio::spawn(tell(self.board.clone(), send, seat));
        Some(Body::Events(receive))
    }
}

/// Tells one page until it has gone.
async fn tell(board: Board, page: mpsc::Sender<Bytes>, _seat: OwnedSemaphorePermit) {
    let mut told = Told::default();
    let mut ticks = interval(PUSH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut news = format!("retry: {RETRY_MS}\n\n{}", greeting(&board));
    loop {
        news += &told.news(&board);
        if page.send(std::mem::take(&mut news).into()).await.is_err() {
            return;
        }
        tokio::select! {
            () = page.closed() => return,
            _ = ticks.tick() => {}
        }
    }
}

/// What a page knows already.
#[derive(Debug, Default)]
struct Told {
    sample_at_ms: i64,
    records: u64,
}

impl Told {
    fn news(&mut self, board: &Board) -> String {
        let mut text = String::new();
        let samples = board.samples_after(self.sample_at_ms);
        if let Some(last) = samples.last() {
            self.sample_at_ms = last.at_ms;
            text += &event("samples", &samples);
        }
        if let Some((generation, records)) = board.records_since(self.records) {
            self.records = generation;
            text += &event("records", &records);
        }
        let now = bson::DateTime::now().timestamp_millis();
        let status = json!({
            "at_ms": now,
            "status": board.status(),
            "last_error": board.last_error(),
            "alerts": board.alerts(),
        });
        text + &event("status", &status)
    }
}

fn greeting(board: &Board) -> String {
    let started_at_ms = board.started_at().timestamp_millis();
    let hello = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_at_ms": started_at_ms,
        "sample_seconds": SAMPLE_INTERVAL.as_secs(),
    });
    event("hello", &hello)
}

/// JSON has no line breaks of its own, so one line of data holds it.
fn event(name: &str, data: &impl Serialize) -> String {
    let data = serde_json::to_string(data).unwrap_or_default();
    format!("event: {name}\ndata: {data}\n\n")
}

/// What a response carries.
#[derive(Debug)]
pub enum Body {
    Whole(Option<Bytes>),
    Events(mpsc::Receiver<Bytes>),
}

impl Body {
    pub fn whole(content: String) -> Self {
        Body::Whole(Some(content.into()).filter(|content: &Bytes| !content.is_empty()))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match self.get_mut() {
            Body::Whole(content) => Poll::Ready(content.take()),
            Body::Events(news) => news.poll_recv(cx),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(content) => {
                SizeHint::with_exact(content.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Body::Events(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{Pair, PipelineId};

    fn board() -> Board {
        Board::new("eu-us", Pair::new("eu", "us"), &PipelineId::BOTH)
    }

    async fn next(body: &mut Body) -> String {
        let Body::Events(news) = body else {
            panic!("no events")
        };
        let bytes = news.recv().await.expect("news");
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_gets_the_past_once_and_then_what_is_new() {
        let board = board();
        let status = board.status();
        board
            .history()
            .push(&status, bson::DateTime::from_millis(5000));
        let hall = Hall::new(board.clone());
        let mut page = hall.enter().expect("a seat");
        let first = next(&mut page).await;
        assert!(
            first.starts_with("retry: 2000\n\nevent: hello\ndata: {"),
            "{first}"
        );
        assert!(
            first.contains("event: samples\ndata: [{\"at_ms\":5000,"),
            "{first}"
        );
        assert!(first.contains("event: status\ndata: {"), "{first}");
        let second = next(&mut page).await;
        assert!(second.starts_with("event: status\n"), "{second}");
        board
            .history()
            .push(&status, bson::DateTime::from_millis(10_000));
        let mut news = next(&mut page).await;
        news += &next(&mut page).await;
        news += &next(&mut page).await;
        assert!(news.contains("data: [{\"at_ms\":10000,"), "{news}");
    }

    #[tokio::test]
    async fn a_page_that_has_gone_gives_its_seat_back() {
        let hall = Hall::new(board());
        let mut pages: Vec<Body> = (0..PAGES_MAX).map(|_| hall.enter().unwrap()).collect();
        assert!(hall.enter().is_none());
        pages.pop();
        while hall.enter().is_none() {
            tokio::task::yield_now().await;
        }
    }
}
