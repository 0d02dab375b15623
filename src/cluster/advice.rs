//! What to do about a connection that does not come about, by what the driver says of it.

const UNKNOWN_CA: &str =
    "name the CA that has signed the server's certificate: tlsCAFile in the connection string";

const REFUSED_HERE: &str = "the server does not accept this side of TLS: is tlsCertificateKeyFile signed by its CA, and not run out?";

/// A part of what is said, and what helps.
const CONNECTION: [(&str, &str); 8] = [
    // Another CA of the same name.
    ("BadSignature", UNKNOWN_CA),
    ("UnknownIssuer", UNKNOWN_CA),
    (
        "certificate expired",
        "the server's certificate has run out: renew it, or correct this host's clock",
    ),
    (
        "certificate not valid for name",
        "connect to a name that the server's certificate is made out to, or renew it for this one",
    ),
    (
        "peer certificate",
        "the server's certificate is not accepted: renew it",
    ),
    ("fatal alert", REFUSED_HERE),
    ("close_notify", REFUSED_HERE),
    (
        "tls handshake eof",
        "the server does not speak TLS here: take tls=true out of the connection string, or start it with TLS",
    ),
];
const UNREACHABLE: &str = "is the cluster up, can this host reach every one of its members, and does the connection string name more than one of them?";

/// A server that wants TLS hangs up on whoever does not speak it.
const HUNG_UP: &str = "unexpected end of file";
const HUNG_UP_HINT: &str =
    "the server hangs up: does it want TLS (tls=true in the connection string)?";

const NOBODY: &str = "requires authentication";
const NOBODY_HINT: &str = "access control is on: give user and password in the connection string, or authMechanism=MONGODB-X509";

/// About a server that cannot be reached.
pub(super) fn on_connection(said: &str) -> &'static str {
    let known = CONNECTION.iter().find(|(part, _)| said.contains(part));
    match known {
        Some((_, hint)) => hint,
        None if said.contains(HUNG_UP) => HUNG_UP_HINT,
        None => UNREACHABLE,
    }
}

/// About a command that is refused because nobody has logged in.
pub(super) fn on_nobody(said: &str) -> Option<&'static str> {
    said.contains(NOBODY).then_some(NOBODY_HINT)
}
