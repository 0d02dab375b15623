//! The two replica sets and the link between them.

use std::time::Duration;

use bson::{Document, Timestamp, doc};
use mongodb::{Client, Collection};

use crate::link::Link;
use crate::mongod::{Mongod, MongodOptions};
use crate::narrate::Narrator;
use crate::{Arguments, Outcome, POLL};

pub const OPLOG_MEGABYTES: u32 = 1024;
const CHECK_LINES_MAX: usize = 40;
const SETTLED_TIME_MAX: Duration = Duration::from_secs(60);

pub struct Stage {
    // Before the servers: fields are dropped in this order, and tandem writes there.
    pub link: Link,
    pub eu: Mongod,
    pub us: Mongod,
}

impl Stage {
    pub async fn set_up(arguments: &Arguments, narrator: &mut Narrator) -> Outcome<Self> {
        narrator.heading("Two replica sets");
        let options = |name| MongodOptions {
            oplog_megabytes: OPLOG_MEGABYTES,
            ..MongodOptions::named(name)
        };
        let (eu, us) = tokio::join!(Mongod::start(options("eu")), Mongod::start(options("us")));
        let build = eu.admin(doc! { "buildInfo": 1 }).await;
        let version = build.get_str("version").unwrap_or("unknown");
        narrator.say(&format!(
            "eu and us: unmodified mongod {version}, one member each."
        ));
        narrator.say(&format!("  {}", eu.uri()));
        narrator.say(&format!("  {}", us.uri()));

        narrator.heading("One process between them");
        let toml = configuration(&eu, &us);
        narrator.say("tandem.toml:");
        narrator.output(&toml, usize::MAX);
        narrator.say("Can this link work? `check` only reads.");
        let mut link = Link::new(&arguments.tandem, &arguments.dir, &toml)?;
        link.show(narrator, &["check"], CHECK_LINES_MAX)?;
        narrator.command("tandem run &");
        link.start().await?;
        narrator.say(&format!(
            "Both directions stream; tandem is process {}.",
            link.pid()?
        ));
        Ok(Self { link, eu, us })
    }

    pub fn cities(&self) -> [Collection<Document>; 2] {
        [&self.eu, &self.us].map(|side| cities_of(side.client()))
    }

    /// Returns once everything written so far has been applied on the other side.
    pub async fn settle(&self) -> Outcome<Duration> {
        let started = tokio::time::Instant::now();
        let times = [
            milestone(&self.eu, "eu").await?,
            milestone(&self.us, "us").await?,
        ];
        while !self.link.has_applied(times) {
            if started.elapsed() > SETTLED_TIME_MAX {
                return Err(format!("not settled after {SETTLED_TIME_MAX:?}").into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(started.elapsed())
    }

    /// Stops tandem and one of the servers, and removes what it wrote. Gives the other one.
    pub async fn strike(mut self, narrator: &mut Narrator) -> Outcome<Mongod> {
        narrator.heading("The link stops");
        let code = self.link.stop().await?;
        if code != Some(0) {
            let said = self.link.log_tail();
            return Err(format!("tandem ended with {code:?} instead of 0\n{said}").into());
        }
        narrator.say("Asked to stop, tandem finished its work and ended with exit code 0.");
        Ok(self.eu)
    }
}

pub fn cities_of(client: &Client) -> Collection<Document> {
    client.database("geo").collection("cities")
}

fn configuration(eu: &Mongod, us: &Mongod) -> String {
    format!(
        "[link]\nname = \"eu-us\"\n\n\
         [clusters.a]\nname = \"eu\"\nuri = {:?}\n\n\
         [clusters.b]\nname = \"us\"\nuri = {:?}\n\n\
         [namespaces]\ninclude = [\"geo.*\"]\n",
        eu.uri(),
        us.uri()
    )
}

/// A write of its own after all others; gives its time in the cluster's history.
async fn milestone(side: &Mongod, name: &str) -> Outcome<Timestamp> {
    let mut session = side.client().start_session().await?;
    let milestones = side
        .client()
        .database("geo")
        .collection::<Document>("milestones");
    let step = doc! { "$inc": { "n": 1 } };
    milestones
        .update_one(doc! { "_id": name }, step)
        .upsert(true)
        .session(&mut session)
        .await?;
    Ok(session.operation_time().ok_or("a write without a time")?)
}
