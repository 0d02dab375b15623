//! The test environment: two replica sets and the link between them.

use std::fmt::Write as _;
use std::path::PathBuf;

use bson::{Document, RawDocumentBuf, doc};
use mongodb::Collection;
use tempfile::TempDir;

use super::mongod::{Mongod, MongodOptions};
use super::pool::replica_set;
use super::tandem::Tandem;

/// What stands in tandem.toml. The values are the ones of the file, unchecked.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    pub name: String,
    pub mode: String,
    pub fence: String,
    /// None: as many as the machine makes them.
    pub lanes: Option<u32>,
    pub lease_duration: String,
    pub include: Vec<String>,
    pub state_dir: String,
    /// Tables or keys of tables that are not among the above, such as `[conflicts]`.
    pub extra: String,
    pub uri_a: String,
    pub uri_b: String,
}

impl LinkConfig {
    pub fn two_way(mut self) -> Self {
        self.mode = "two-way".to_owned();
        self
    }

    pub fn one_way(mut self) -> Self {
        self.mode = "one-way".to_owned();
        self
    }

    pub fn fence(mut self, fence: &str) -> Self {
        self.fence = fence.to_owned();
        self
    }

    pub fn lanes(mut self, lanes: u32) -> Self {
        self.lanes = Some(lanes);
        self
    }

    pub fn lanes_of_the_machine(mut self) -> Self {
        self.lanes = None;
        self
    }

    /// Adds TOML after the tables that are there.
    pub fn extra(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self.extra.push('\n');
        self
    }

    pub fn to_toml(&self) -> String {
        let include: Vec<String> = self.include.iter().map(|ns| format!("{ns:?}")).collect();
        let mut toml = String::new();
        writeln!(
            toml,
            "[link]\nname = {:?}\nmode = {:?}\nstate_dir = {:?}\nlease_duration = {:?}\n",
            self.name, self.mode, self.state_dir, self.lease_duration
        )
        .unwrap();
        writeln!(
            toml,
            "[clusters.a]\nname = \"eu\"\nuri = {:?}\n\n[clusters.b]\nname = \"us\"\nuri = {:?}\n",
            self.uri_a, self.uri_b
        )
        .unwrap();
        writeln!(
            toml,
            "[namespaces]\ninclude = [{}]\n\n[apply]\nfence = {:?}",
            include.join(", "),
            self.fence
        )
        .unwrap();
        if let Some(lanes) = self.lanes {
            writeln!(toml, "lanes = {lanes}").unwrap();
        }
        toml + &self.extra
    }
}

/// Two replica sets and a directory for configuration and state.
pub struct TestEnv {
    pub a: Mongod,
    pub b: Mongod,
    dir: TempDir,
}

impl TestEnv {
    /// Two empty replica sets, which may have served another test before.
    pub async fn start() -> Self {
        let (a, b) = tokio::join!(
            replica_set(MongodOptions::named("eu-set")),
            replica_set(MongodOptions::named("us-set")),
        );
        Self::of(a, b)
    }

    pub async fn start_with(a: MongodOptions, b: MongodOptions) -> Self {
        let (a, b) = tokio::join!(Mongod::start(a), Mongod::start(b));
        Self::of(a, b)
    }

    /// Two servers that were started in some special way.
    pub fn of(a: Mongod, b: Mongod) -> Self {
        Self {
            a,
            b,
            dir: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// A two-way link over every user database, with the defaults of DESIGN.
    pub fn link(&self) -> LinkConfig {
        LinkConfig {
            name: "eu-us".to_owned(),
            mode: "two-way".to_owned(),
            fence: "snapshot".to_owned(),
            lanes: Some(4),
            lease_duration: "15s".to_owned(),
            include: vec!["shop.*".to_owned(), "bank.*".to_owned()],
            state_dir: "tandem-state".to_owned(),
            extra: String::new(),
            uri_a: self.a.uri(),
            uri_b: self.b.uri(),
        }
    }

    /// Writes the configuration and gives a handle to the built binary; nothing runs yet.
    pub fn tandem(&self, link: &LinkConfig) -> Tandem {
        self.tandem_named("tandem.toml", link)
    }

    /// The same with a configuration file of another name, for a second process.
    pub fn tandem_named(&self, file: &str, link: &LinkConfig) -> Tandem {
        let path = self.dir.path().join(file);
        // Another command may be reading the one that is there.
        let file = tempfile::NamedTempFile::new_in(self.dir.path()).expect("a file can be made");
        std::fs::write(&file, link.to_toml()).expect("the configuration can be written");
        file.persist(&path)
            .expect("the configuration can take its place");
        Tandem::new(path)
    }

    /// Writes the configuration, starts `tandem run` and waits until it streams.
    pub async fn streaming(&self, link: &LinkConfig) -> Tandem {
        let mut tandem = self.tandem(link);
        tandem.start();
        tandem.wait_until_streaming().await;
        tandem
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn orders_a(&self) -> Collection<Document> {
        self.a.client().database("shop").collection("orders")
    }

    pub fn orders_b(&self) -> Collection<Document> {
        self.b.client().database("shop").collection("orders")
    }

    /// Creates a collection on both sides, as an operator who vouches that both are equal.
    pub async fn create_on_both(&self, database: &str, collection: &str) {
        for client in [self.a.client(), self.b.client()] {
            let database = client.database(database);
            database
                .create_collection(collection)
                .await
                .expect("created");
        }
    }
}

/// The document with this `_id`, byte for byte, or none.
pub fn raw_by_id<I: Into<bson::Bson>>(
    collection: &Collection<Document>,
    id: I,
) -> impl Future<Output = Option<RawDocumentBuf>> + use<I> {
    let raw: Collection<RawDocumentBuf> = collection.clone_with_type();
    let filter = doc! { "_id": id.into() };
    async move { raw.find_one(filter).await.expect("find_one") }
}
