//! A receiver of alerts: a small HTTPS server that remembers what it was told.

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::access::Authority;

/// What was asked, and what was told in it.
#[derive(Debug, Clone)]
pub struct Told {
    pub head: String,
    pub message: Value,
}

/// Listens on localhost until dropped.
pub struct Receiver {
    pub port: u16,
    told: Arc<Mutex<Vec<Told>>>,
    refusals: Arc<Mutex<usize>>,
    serves: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serves.abort();
    }
}

impl Receiver {
    /// Its certificate is signed by `authority`.
    pub async fn start(authority: &Authority) -> Self {
        let acceptor = acceptor(&authority.issue_server());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (told, refusals) = <(Arc<Mutex<Vec<Told>>>, Arc<Mutex<usize>>)>::default();
        let (tells, refuses) = (told.clone(), refusals.clone());
        let serves = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let Some(heard) = hear(&mut stream).await else {
                    continue;
                };
                let refused = {
                    let mut left = refuses.lock().unwrap();
                    let refused = *left > 0;
                    *left = left.saturating_sub(1);
                    refused
                };
                let answer = match refused {
                    true => "500 Internal Server Error",
                    false => "204 No Content",
                };
                if !refused {
                    tells.lock().unwrap().push(heard);
                }
                let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self {
            port,
            told,
            refusals,
            serves,
        }
    }

    /// Refuses the next messages.
    pub fn refuse(&self, count: usize) {
        *self.refusals.lock().unwrap() = count;
    }

    pub fn is_refusing(&self) -> bool {
        *self.refusals.lock().unwrap() > 0
    }

    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    /// Events and names of the alerts, in their order.
    pub fn events(&self) -> Vec<String> {
        let text = |told: &Told, name: &str| told.message[name].as_str().map(str::to_owned);
        let event =
            |told: &Told| Some(format!("{} {}", text(told, "alert")?, text(told, "event")?));
        self.told().iter().filter_map(event).collect()
    }
}

fn acceptor(pem: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(pem).expect("certificates");
    let chain = chain.collect::<Result<_, _>>().expect("certificates");
    let key = PrivateKeyDer::from_pem_file(pem).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a server's configuration");
    TlsAcceptor::from(Arc::new(config))
}

async fn hear(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Option<Told> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length?.trim().parse().ok()?;
            if body.len() >= length {
                let message = serde_json::from_str(body).ok()?;
                return Some(Told { head, message });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}
