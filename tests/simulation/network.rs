//! The seam of `src/cluster` over clusters in memory: delays, lost replies, late commits.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bson::{Bson, Document, RawDocumentBuf, Uuid, doc};
use tandem::change::Side;
use tandem::cluster::{
    Answer, Batch, Cluster, Connect, Cursor, CursorKind, Failure, FailureKind, Server, Session,
};
use tandem::config::Config;
use tandem::error::Result;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::checks::{
    check_brought_back, check_charge, check_commits_write, check_given_up_stays, check_record,
    check_write,
};
use crate::commands::{Outcome, run};
use crate::deaths::{kill, outlive_reply, outlive_sending};
use crate::query::sub;
use crate::stream::{Cut, Reading};
use crate::watch::check_commits;
use crate::world::{Process, SharedWorld, is_traced, lock};

/// How often a held write looks whether it may go on.
const HELD_INTERVAL: Duration = Duration::from_millis(3);

/// So much of a command is in a trace.
const COMMAND_CHARS: usize = 1000;

const MAX_TIME_EXPIRED: i32 = 50;
const NOT_WRITABLE_PRIMARY: i32 = 10107;
const INTERRUPTED_DUE_TO_REPL_STATE_CHANGE: i32 = 11602;

/// How one process reaches the clusters.
pub struct Way {
    pub world: SharedWorld,
    pub process: Process,
}

impl Connect for Way {
    fn connect<'a>(
        &'a self,
        config: &'a Config,
        side: Side,
    ) -> Pin<Box<dyn Future<Output = Result<Cluster>> + Send + 'a>> {
        let line = Arc::new(Line {
            world: self.world.clone(),
            process: self.process,
            side,
        });
        let name = config.clusters[side].name.clone();
        let timeout = config.timeouts.operation;
        Box::pin(async move { Ok(Cluster::over(line, side, name, timeout)) })
    }
}

/// A connection to one cluster.
#[derive(Clone)]
struct Line {
    world: SharedWorld,
    process: Process,
    side: Side,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Line({})", self.side.as_str())
    }
}

/// What was asked, for who reads a trace.
fn tell(command: &Document) {
    if is_traced() {
        let text: String = command.to_string().chars().take(COMMAND_CHARS).collect();
        eprintln!("    {text}");
    }
}

fn broken() -> Failure {
    Failure::new(FailureKind::Network, "the connection broke")
}

impl Line {
    async fn call(
        &self,
        database: &str,
        command: RawDocumentBuf,
        session: Option<Uuid>,
    ) -> std::result::Result<Document, Failure> {
        let command = Document::try_from(command).expect("a command");
        self.wait_awake().await;
        let death = outlive_sending(&self.world, self.process, &command).await;
        let fate = lock(&self.world).fate(self.side, self.process, &command);
        let (send, receive) = oneshot::channel();
        let (line, database) = (self.clone(), database.to_owned());
        // On its own, since a command outlives whoever has sent it.
        tokio::spawn(async move {
            sleep(fate.there).await;
            if !lock(&line.world).still_arrives(&fate) {
                return;
            }
            let outcome = line.executed(&database, &command, session).await;
            kill(&line.world, line.process, death);
            sleep(fate.back).await;
            let _ = send.send(outcome);
        });
        let reply = match fate.broken_after {
            Some(after) => {
                sleep(after).await;
                Err(broken())
            }
            None => receive.await.unwrap_or_else(|_| Err(broken())),
        };
        let is_heard = outlive_reply(&self.world, self.process, death).await;
        self.wait_awake().await;
        match is_heard {
            true => reply,
            false => Err(broken()),
        }
    }

    /// A process that was stopped does nothing, whatever comes.
    async fn wait_awake(&self) {
        loop {
            let until = lock(&self.world).asleep_until[self.process.host];
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }

    async fn executed(
        &self,
        database: &str,
        command: &Document,
        session: Option<Uuid>,
    ) -> std::result::Result<Document, Failure> {
        let name = command.keys().next().expect("a command has a name");
        let limit = command.get("maxTimeMS").and_then(Bson::as_i64);
        let until = limit.map(|ms| Instant::now() + Duration::from_millis(ms as u64));
        loop {
            let (outcome, term) = {
                let mut world = lock(&self.world);
                if world.is_electing(self.side) {
                    drop(world);
                    return Err(self.refused(NOT_WRITABLE_PRIMARY, &[]));
                }
                check_write(&mut world, self.side, database, command, session);
                check_given_up_stays(&mut world, self.side, command);
                let entries = world.replicas[self.side].oplog.len();
                let outcome = run(world.replica(self.side), database, command, session);
                let code = match &outcome {
                    Outcome::Reply(_) => 0,
                    Outcome::Refused { code, .. } => *code,
                    Outcome::Held => -1,
                };
                world.note(self.side, name, code);
                check_record(&mut world, name, session, code);
                check_brought_back(&mut world, self.side);
                check_commits_write(&mut world, self.side);
                if let Outcome::Reply(reply) = &outcome {
                    check_charge(&mut world, self.side, self.process, command, reply, entries);
                }
                tell(command);
                if world.replicas[self.side].oplog.len() > entries {
                    check_commits(&mut world, self.side, entries);
                    world.written(self.side);
                }
                (outcome, world.terms[self.side])
            };
            match outcome {
                Outcome::Reply(reply) if is_write(command) => {
                    self.wait_durable(term).await?;
                    if name == "commitTransaction" {
                        lock(&self.world).has_committed(self.side, session);
                    }
                    return Ok(reply);
                }
                Outcome::Reply(reply) => return Ok(reply),
                Outcome::Refused { code, labels } => return Err(self.refused(code, &labels)),
                Outcome::Held if until.is_some_and(|until| until <= Instant::now()) => {
                    return Err(self.refused(MAX_TIME_EXPIRED, &[]));
                }
                Outcome::Held => sleep(HELD_INTERVAL).await,
            }
        }
    }

    /// Every write of tandem, and every commit, asks for a majority.
    async fn wait_durable(&self, term: u32) -> std::result::Result<(), Failure> {
        let written = lock(&self.world).replica(self.side).oplog.len();
        loop {
            let wait = {
                let mut world = lock(&self.world);
                if world.terms[self.side] != term {
                    drop(world);
                    return Err(self.refused(INTERRUPTED_DUE_TO_REPL_STATE_CHANGE, &[]));
                }
                let replica = world.replica(self.side);
                if replica.durable().len() >= written {
                    return Ok(());
                }
                let next = replica.next_durable_at().unwrap_or_default();
                next.saturating_sub(replica.elapsed)
            };
            sleep(wait).await;
        }
    }

    fn refused(&self, code: i32, labels: &[&str]) -> Failure {
        let mut failure = Failure::refused(code, None, "");
        failure.labels = labels.iter().map(|label| (*label).to_owned()).collect();
        failure.operation_time = Some(lock(&self.world).replicas[self.side].time);
        failure
    }
}

impl Server for Line {
    fn run<'a>(&'a self, database: &'a str, command: RawDocumentBuf) -> Answer<'a, Document> {
        Box::pin(self.call(database, command, None))
    }

    fn open<'a>(
        &'a self,
        database: &'a str,
        command: RawDocumentBuf,
        kind: CursorKind,
    ) -> Answer<'a, Box<dyn Cursor>> {
        Box::pin(async move {
            match kind {
                CursorKind::Awaiting { await_time_max, .. } => {
                    self.call("admin", raw(&doc! { "ping": 1 }), None).await?;
                    let command = Document::try_from(command).expect("a command");
                    let (reading, term) = {
                        let mut world = lock(&self.world);
                        let term = world.terms[self.side];
                        (Reading::open(world.replica(self.side), &command), term)
                    };
                    let line = self.clone();
                    Ok(Box::new(Tail {
                        line,
                        reading,
                        term,
                        await_time_max,
                    }) as Box<dyn Cursor>)
                }
                CursorKind::Ending { .. } => {
                    let reply = self.call(database, command, None).await?;
                    let (line, database) = (self.clone(), database.to_owned());
                    Ok(Box::new(Batches {
                        line,
                        database,
                        id: 0,
                        first: Some(reply),
                    }) as Box<dyn Cursor>)
                }
            }
        })
    }

    fn start_session(&self) -> Answer<'_, Box<dyn Session>> {
        let id = lock(&self.world).dice.uuid();
        let session = OnSession {
            line: self.clone(),
            id,
        };
        Box::pin(async move { Ok(Box::new(session) as Box<dyn Session>) })
    }

    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}

/// Statements of a transaction wait for its commit.
fn is_write(command: &Document) -> bool {
    match command.keys().next().map(String::as_str) {
        Some("create" | "drop" | "renameCollection") => true,
        Some("insert" | "update" | "delete") => !command.contains_key("txnNumber"),
        Some("commitTransaction") => true,
        _ => false,
    }
}

fn raw(document: &Document) -> RawDocumentBuf {
    RawDocumentBuf::try_from(document).expect("a document")
}

struct OnSession {
    line: Line,
    id: Uuid,
}

impl Session for OnSession {
    fn id(&self) -> Uuid {
        self.id
    }

    fn run<'a>(&'a mut self, database: &'a str, command: RawDocumentBuf) -> Answer<'a, Document> {
        Box::pin(self.line.call(database, command, Some(self.id)))
    }

    fn first_batch<'a>(
        &'a mut self,
        database: &'a str,
        command: RawDocumentBuf,
    ) -> Answer<'a, Option<Batch>> {
        Box::pin(async move {
            let reply = self.line.call(database, command, Some(self.id)).await?;
            Ok(Some(Batch::of_reply(raw(&reply))))
        })
    }
}

/// A cursor that comes to its end.
struct Batches {
    line: Line,
    database: String,
    /// 0 where there is no more.
    id: i64,
    first: Option<Document>,
}

impl Cursor for Batches {
    fn next(&mut self) -> Answer<'_, Option<Batch>> {
        Box::pin(async move {
            let reply = match (self.first.take(), self.id) {
                (Some(first), _) => first,
                (None, 0) => return Ok(None),
                (None, id) => {
                    let more = raw(&doc! { "getMore": id });
                    self.id = 0;
                    self.line.call(&self.database, more, None).await?
                }
            };
            self.id = sub(&reply["cursor"]).get_i64("id").unwrap_or(0);
            Ok(Some(Batch::of_reply(raw(&reply))))
        })
    }
}

/// A change stream.
struct Tail {
    line: Line,
    reading: Reading,
    term: u32,
    await_time_max: Duration,
}

impl Tail {
    async fn awaited(&mut self) -> std::result::Result<Option<Batch>, Failure> {
        let side = self.line.side;
        self.line
            .call("admin", raw(&doc! { "ping": 1 }), None)
            .await?;
        let grown = lock(&self.line.world).grown[side].clone();
        let until = Instant::now() + self.await_time_max;
        loop {
            let bell = grown.notified();
            let (found, until_next) = {
                let mut world = lock(&self.line.world);
                if world.terms[side] != self.term {
                    return Err(broken());
                }
                let weather = world.weather;
                let cut = Cut {
                    events_max: 1 + world.dice.below(weather.batch_events_max) as usize,
                    token_is_stale: world.dice.percent(weather.stale_tokens_percent),
                };
                let replica = world.replica(side);
                let found = self.reading.batch(replica, cut);
                let next = replica.next_durable_at();
                let until_next = next.map(|next| next.saturating_sub(replica.elapsed));
                world.note(side, "batch", found.len() as i32);
                (found, until_next)
            };
            if !found.is_empty() || Instant::now() >= until {
                self.line.wait_awake().await;
                return Ok(Some(Batch::of_reply(self.reading.reply(found))));
            }
            let next = until_next.map_or(until, |wait| until.min(Instant::now() + wait));
            let _ = tokio::time::timeout_at(next, bell).await;
        }
    }
}

impl Cursor for Tail {
    fn next(&mut self) -> Answer<'_, Option<Batch>> {
        Box::pin(self.awaited())
    }
}
