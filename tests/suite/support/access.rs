//! Access control and TLS for the servers of a test: key file, certificates, users and roles.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bson::{Bson, Document, doc};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

use super::mongod::{Mongod, MongodOptions};

/// Longer than any test, and shorter than what a server complains of.
const VALID_FOR: Duration = Duration::from_secs(24 * 3600);

/// A key that only the test and its servers know.
pub struct KeyFile(TempDir);

impl KeyFile {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("key");
        fs::write(&path, "a2V5b2ZhdGVzdA==").expect("the key is written");
        fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("its mode");
        Self(dir)
    }

    /// A server with access control, and with one user: the test's own.
    pub async fn start(&self, mut options: MongodOptions) -> Mongod {
        let path = self.0.path().join("key");
        options.args.push("--keyFile".to_owned());
        options.args.push(path.to_string_lossy().into_owned());
        let mut mongod = Mongod::start(options).await;
        mongod.log_in().await;
        mongod
    }
}

/// Signs certificates, and keeps them in files for as long as it lives.
pub struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut params = params(&[], "authority", "servers", VALID_FOR);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("written");
        let issuer = Issuer::new(params, key);
        Self { dir, issuer }
    }

    /// The certificate that others trust.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Key and certificate in one file, made out to `names`, valid from now on for `lasting`.
    pub fn issue_server_for(&self, names: &[&str], lasting: Duration) -> PathBuf {
        self.issue("server.pem", params(names, "server", "servers", lasting))
    }

    fn issue(&self, file: &str, params: CertificateParams) -> PathBuf {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        let path = self.dir.path().join(file);
        fs::write(&path, key.serialize_pem() + &certificate.pem()).expect("written");
        path
    }

    /// The server's certificate, for the addresses that tests connect to.
    pub fn issue_server(&self) -> PathBuf {
        self.issue_server_for(&["127.0.0.1", "localhost"], VALID_FOR)
    }

    /// A client's certificate; its subject is `CN=…,O=tandem clients`. Of the servers' organisation
    /// it would be one of theirs.
    pub fn issue_client(&self, common: &str) -> PathBuf {
        let params = params(&[], common, "clients", VALID_FOR);
        self.issue(&format!("{common}.pem"), params)
    }

    /// A server takes nothing but TLS.
    pub fn secure(&self, mut options: MongodOptions) -> MongodOptions {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (server, ca) = (text(&self.issue_server()), text(&self.ca_file()));
        let args = [
            "--tlsMode",
            "requireTLS",
            "--tlsAllowConnectionsWithoutCertificates",
            "--tlsCertificateKeyFile",
            &server,
            "--tlsCAFile",
            &ca,
        ];
        options.args.extend(args.map(str::to_owned));
        options.client_query = "&tls=true&tlsAllowInvalidCertificates=true".to_owned();
        options
    }
}

fn params(names: &[&str], common: &str, of: &str, lasting: Duration) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    // In this order: the subject is the account's name.
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, format!("tandem {of}"));
    subject.push(DnType::CommonName, common);
    params.distinguished_name = subject;
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + lasting).into();
    params
}

/// A role of `docs/roles`, as the command that creates it.
pub fn role(name: &str) -> Document {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/roles");
    let text = fs::read_to_string(path.join(format!("{name}.json"))).expect("the role");
    let json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    match Bson::try_from(json).expect("it is a document") {
        Bson::Document(command) => command,
        other => panic!("{other}"),
    }
}

/// Gives a server the role and a user `tandem` who has nothing else.
pub async fn create_user(server: &Mongod, role: &Document, password: &str) {
    server.admin(role.clone()).await;
    let name = role.get_str("createRole").expect("a name");
    server
        .admin(doc! { "createUser": "tandem", "pwd": password, "roles": [name] })
        .await;
}

/// `role` with `privileges` in place of its own.
pub async fn set_privileges(server: &Mongod, role: &Document, privileges: &[Document]) {
    let name = role.get_str("createRole").expect("a name");
    server
        .admin(doc! { "updateRole": name, "privileges": privileges })
        .await;
}

/// A connection string as somebody else.
pub fn uri_as(server: &Mongod, credentials: &str) -> String {
    let with = format!("mongodb://{credentials}@");
    server.uri().replacen("mongodb://", &with, 1)
}
