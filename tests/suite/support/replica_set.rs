//! A replica set of three members, of which one can be taken away at a time.

use std::time::Duration;

use bson::{Document, doc};

use super::mongod::{Mongod, MongodOptions};
use super::wait::wait_for;

const ELECTION_TIMEOUT_MS: i32 = 2000;
const ELECTION_TIME_MAX: Duration = Duration::from_secs(40);
const ASK_TIME_MAX: Duration = Duration::from_millis(500);

/// The two members beside the one that stands for the set in a `TestEnv`.
pub struct Others {
    members: [Mongod; 2],
}

/// One of the three, by the order in which they were started.
pub type Member = usize;

/// Starts three members and waits until one is primary and two follow it.
pub async fn start_three(options: MongodOptions) -> (Mongod, Others) {
    let (mut first, second, third) = tokio::join!(
        Mongod::start_standalone(options.clone()),
        Mongod::start_standalone(options.clone()),
        Mongod::start_standalone(options.clone()),
    );
    let ports = [first.port(), second.port(), third.port()];
    let members: Vec<Document> = (0..).zip(ports).map(member).collect();
    tokio::join!(
        first.wait_answering(),
        second.wait_answering(),
        third.wait_answering()
    );
    let settings = doc! {
        "electionTimeoutMillis": ELECTION_TIMEOUT_MS,
        "heartbeatIntervalMillis": 500,
    };
    let config = doc! { "_id": &options.set_name, "members": members, "settings": settings };
    first.admin(doc! { "replSetInitiate": config }).await;
    first.stand_for(&ports).await;
    let others = Others {
        members: [second, third],
    };
    others.wait_whole(&first).await;
    (first, others)
}

fn member((number, port): (i32, u16)) -> Document {
    doc! { "_id": number, "host": format!("127.0.0.1:{port}") }
}

impl Others {
    fn all<'t>(&'t self, first: &'t Mongod) -> [&'t Mongod; 3] {
        [first, &self.members[0], &self.members[1]]
    }

    pub fn member<'t>(&'t self, first: &'t Mongod, member: Member) -> &'t Mongod {
        self.all(first)[member]
    }

    pub fn member_mut<'t>(&'t mut self, first: &'t mut Mongod, member: Member) -> &'t mut Mongod {
        match member {
            0 => first,
            other => &mut self.members[other - 1],
        }
    }

    /// Waits until one of the members other than `but` is a writable primary.
    pub async fn primary(&self, first: &Mongod, but: Option<Member>) -> Member {
        wait_for("a member is primary", ELECTION_TIME_MAX, || async {
            for (number, mongod) in self.all(first).into_iter().enumerate() {
                if Some(number) != but && is_primary(mongod).await {
                    return Some(number);
                }
            }
            None
        })
        .await
    }

    /// Waits until all three are there, and two of them follow the third.
    pub async fn wait_whole(&self, first: &Mongod) {
        wait_for("all members are there", ELECTION_TIME_MAX, || async {
            let mut primaries = 0;
            for mongod in self.all(first) {
                let hello = hello(mongod).await?;
                let writes = hello.get_bool("isWritablePrimary").ok()?;
                let follows = hello.get_bool("secondary").ok()?;
                if !writes && !follows {
                    return None;
                }
                primaries += usize::from(writes);
            }
            (primaries == 1).then_some(())
        })
        .await;
    }
}

async fn hello(mongod: &Mongod) -> Option<Document> {
    if !mongod.is_running() {
        return None;
    }
    let hello = mongod.try_admin(doc! { "hello": 1 });
    tokio::time::timeout(ASK_TIME_MAX, hello).await.ok()?.ok()
}

async fn is_primary(mongod: &Mongod) -> bool {
    let hello = hello(mongod).await;
    hello.is_some_and(|hello| hello.get_bool("isWritablePrimary").unwrap_or(false))
}
