//! Tells a webhook: a message of JSON by POST, over TLS where the address says so.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::WebhookConfig;
use crate::telemetry::http::Body;

/// One try, from the name's look-up to the answer.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Where messages go. Its path may hold a token, so it is never shown whole.
#[derive(Clone)]
pub struct Webhook {
    uri: Uri,
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Webhook {
    /// # Errors
    /// What of the configuration does not fit; never the address.
    pub fn new(config: &WebhookConfig) -> Result<Self, String> {
        let uri: Uri = config.url.reveal().parse().map_err(|_| "is not a URL")?;
        let host = uri.host().ok_or("names no host")?.to_owned();
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tls = match is_tls {
            true => Some(connector(config.ca_file.as_deref())?),
            false => None,
        };
        Ok(Self {
            uri,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            tls,
        })
    }

    /// The part of the address that may be shown.
    pub fn shown(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// # Errors
    /// Why the message counts as not delivered.
    pub async fn post(&self, message: String) -> Result<(), String> {
        timeout(TIME_MAX, self.post_now(message))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", TIME_MAX.as_secs())))
    }

    /// Whether somebody is there, without telling anything.
    ///
    /// # Errors
    /// Why not.
    pub async fn reach(&self) -> Result<(), String> {
        timeout(TIME_MAX, self.connect())
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", TIME_MAX.as_secs())))
            .map(drop)
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, String> {
        let connected = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = connected.map_err(|cause| format!("cannot be reached: {cause}"))?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name =
            ServerName::try_from(self.host.clone()).map_err(|_| "its name cannot be checked")?;
        let secured = tls.connect(name, stream).await;
        let stream = secured.map_err(|cause| format!("TLS failed: {cause}"))?;
        Ok(Box::new(stream))
    }

    async fn post_now(&self, message: String) -> Result<(), String> {
        let request = self.request(message)?;
        let stream = TokioIo::new(self.connect().await?);
        let broke = |cause: hyper::Error| format!("the connection broke: {cause}");
        let (mut sender, connection) = http1::handshake(stream).await.map_err(broke)?;
        // Ends with this call, whether or not it is answered.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let answer = sender.send_request(request).await.map_err(broke)?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("answered with {}", status.as_u16())),
        }
    }

    fn request(&self, message: String) -> Result<Request<Body>, String> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = self
            .uri
            .authority()
            .map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(authority).map_err(|_| "names no host")?;
        let mut request = Request::new(Body::whole(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().map_err(|_| "has a path that cannot be sent")?;
        let headers = request.headers_mut();
        headers.insert(HOST, host);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let agent = concat!("tandem/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        Ok(request)
    }
}

/// Trusts the CAs that browsers trust, or the ones of a file instead.
fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(file) => {
            let unusable = |_| "alerts.webhook_ca_file holds no certificates that can be read";
            let read = CertificateDer::pem_file_iter(file).map_err(unusable)?;
            for certificate in read {
                let certificate = certificate.map_err(unusable)?;
                let added = roots.add(certificate);
                added.map_err(|_| "alerts.webhook_ca_file holds a certificate of no use")?;
            }
        }
    }
    let provider = Arc::new(default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| "TLS cannot be used")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
