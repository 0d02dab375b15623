//! A client of the process's own HTTP server, as plain as a probe.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tandem::Tandem;
use super::wait::wait_for;

const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// An answer: status, headers in lower case, content.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: String,
    pub body: String,
}

/// Where the running process listens, from the newest line of its log that tells.
pub async fn address(tandem: &Tandem) -> String {
    wait_for("http listens", ANSWER_TIME_MAX, || async {
        let log = tandem.log();
        let told = log
            .lines()
            .rev()
            .find(|line| line.contains("http listens"))?;
        let (_, address) = told.split_once("address=")?;
        Some(address.trim().to_owned())
    })
    .await
}

pub async fn get(address: &str, path: &str) -> Answer {
    ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"),
    )
    .await
}

/// Sends these bytes and reads to the end.
pub async fn ask(address: &str, request: &str) -> Answer {
    let mut stream = connect(address, request).await;
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    let read = tokio::time::timeout(ANSWER_TIME_MAX, read).await;
    read.expect("an answer in time").expect("an answer");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        status: status.expect("a status"),
        headers: head.to_lowercase(),
        body: body.to_owned(),
    }
}

async fn connect(address: &str, request: &str) -> TcpStream {
    // A process that has just been started may not listen yet.
    let connected = || async { TcpStream::connect(address).await.ok() };
    let mut stream = wait_for("a connection", ANSWER_TIME_MAX, connected).await;
    stream.write_all(request.as_bytes()).await.expect("asked");
    stream
}

/// A page that listens for events.
pub struct Page {
    stream: TcpStream,
    heard: String,
}

impl Page {
    pub async fn open(address: &str) -> Self {
        let request = format!("GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n");
        Self {
            stream: connect(address, &request).await,
            heard: String::new(),
        }
    }

    /// Everything heard up to where `part` first comes.
    pub async fn hear(&mut self, part: &str) -> &str {
        let hears = async {
            while !self.heard.contains(part) {
                let mut bytes = [0; 16 * 1024];
                let count = self.stream.read(&mut bytes).await.expect("events");
                assert!(count > 0, "the page was closed: {}", self.heard);
                self.heard += &String::from_utf8_lossy(&bytes[..count]);
            }
        };
        let heard = tokio::time::timeout(ANSWER_TIME_MAX, hears).await;
        assert!(heard.is_ok(), "{part:?} was not heard: {}", self.heard);
        &self.heard
    }
}
