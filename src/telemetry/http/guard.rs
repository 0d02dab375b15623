//! Who may ask, and what a browser may do with the answer.

use std::net::{IpAddr, SocketAddr};

use hyper::Response;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

/// By which names this server may be called.
///
/// A page of somebody else may resolve its own name to a loopback address and have a browser read
/// from there; the name that it asks for gives it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// It listens on loopback: `localhost` and loopback addresses.
    Loopback,
    /// Others reach it, by names that it does not know.
    Any,
}

impl Names {
    pub fn of(address: SocketAddr) -> Self {
        match address.ip().is_loopback() {
            true => Names::Loopback,
            false => Names::Any,
        }
    }

    pub fn allow(self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(hyper::header::HOST).iter();
        match (self, hosts.next(), hosts.next()) {
            (Names::Any, _, None) => true,
            (Names::Loopback, Some(host), None) => is_loopback(host),
            (Names::Loopback, None, _) | (_, _, Some(_)) => false,
        }
    }
}

fn is_loopback(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else {
        return false;
    };
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    if let Some(address) = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        Some(_) | None => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Nothing but this server's own scripts and styles, in nobody's frame, kept by no cache.
const HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
];

pub fn protect<B>(response: &mut Response<B>) {
    for (name, value) in HEADERS {
        let name = HeaderName::from_static(name);
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(hosts: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(hyper::header::HOST, HeaderValue::from_static(host));
        }
        headers
    }

    #[test]
    fn on_loopback_only_its_own_names_are_answered() {
        for own in [
            "localhost",
            "localhost:9464",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.0.0.1:9464",
            "127.8.8.8:80",
            "[::1]",
            "[::1]:9464",
        ] {
            assert!(Names::Loopback.allow(&headers(&[own])), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:9464",
            "localhost.evil.example",
            "10.0.0.1:9464",
            "127.0.0.1.evil.example",
            "",
            "[::2]:1",
            "localhost:x",
        ] {
            assert!(!Names::Loopback.allow(&headers(&[other])), "{other}");
        }
        assert!(!Names::Loopback.allow(&headers(&[])));
        assert!(!Names::Loopback.allow(&headers(&["localhost", "evil.example"])));
    }

    #[test]
    fn elsewhere_any_one_name_will_do() {
        assert!(Names::Any.allow(&headers(&["tandem.example.com"])));
        assert!(Names::Any.allow(&headers(&[])));
        assert!(!Names::Any.allow(&headers(&["a", "b"])));
    }
}
