//! Intents: what tandem is about to change, written down first, so that its echo is known.
//!
//! DDL carries no tag. An intent says which event a command will cause and between which two
//! moments; that event is the echo.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bson::{Bson, DateTime, Document, Timestamp, Uuid, doc};
use tokio::sync::Notify;

use super::change::{Aspect, Change};
use super::definition::Step;
use super::unsaid::Unsaid;
use crate::change::{Namespace, Pair, Position, Side};
use crate::error::Result;
use crate::link::own::Own;
use crate::pipeline::uuid_in;
use crate::source::DdlEvent;

/// What a command is about.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name on the cluster that the command runs on.
    pub name: Namespace,
    /// None for a view, and for a collection that the command creates.
    pub uuid: Option<Uuid>,
    /// Where a rename leads to.
    pub to: Option<Namespace>,
    /// What a creation makes a counterpart for.
    pub created: Option<Created>,
}

/// The collection that gets a counterpart.
#[derive(Debug, Clone)]
pub struct Created {
    /// Its lasting name.
    pub collection: Namespace,
    /// Its UUID on its own cluster.
    pub uuid: Uuid,
}

/// When the command of an intent has ended.
#[derive(Debug, Clone, Copy)]
pub enum End {
    Open,
    /// At or before this moment, if it has run at all.
    By(Timestamp),
    /// The server has said so. The event of a creation has this very time, so that a collection
    /// that somebody else creates and drops under the name meanwhile is not taken for ours.
    At(Timestamp),
}

#[derive(Debug, Clone)]
struct Intent {
    id: String,
    subject: Subject,
    operation: String,
    index: Option<String>,
    start: Timestamp,
    end: End,
    /// Its echo has been read.
    seen: bool,
}

/// The intents of a link, on both clusters.
pub struct Intents {
    link: String,
    own: Pair<Own>,
    known: Mutex<Pair<Vec<Intent>>>,
    unsaid: Unsaid,
    changed: Notify,
}

enum Verdict {
    Echo(Subject),
    Local,
    /// A command on the same collection is under way.
    Unclear,
}

pub const COLLECTION: &str = "ddl";

impl Intents {
    pub fn new(link: &str, own: Pair<Own>) -> Self {
        Self {
            link: link.to_owned(),
            own,
            known: Mutex::default(),
            unsaid: Unsaid::default(),
            changed: Notify::new(),
        }
    }

    /// Reads what a former process has left. What it left open ends at `ended_at`, the time of
    /// this start: nobody else issues its commands any more. That is put on record, or the next
    /// start would take what happens until then for its echo.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn load(&self, ended_at: Pair<Timestamp>) -> Result<()> {
        for side in Side::BOTH {
            let filter = doc! { "link": &self.link, "kind": "intent" };
            let found = self.own[side].find(COLLECTION, filter).await?;
            let left_open = found
                .iter()
                .filter(|found| found.get_timestamp("end").is_err());
            let left_open: Vec<&str> = left_open.filter_map(|f| f.get_str("_id").ok()).collect();
            if !left_open.is_empty() {
                let end = doc! { "$set": { "end": ended_at[side], "end_is_exact": false } };
                let statement =
                    doc! { "q": { "_id": { "$in": left_open } }, "u": end, "multi": true };
                self.own[side].update(COLLECTION, vec![statement]).await?;
            }
            let read = |found: &Document| Intent::read(found, ended_at[side]);
            let mut read: Vec<Intent> = found.iter().filter_map(read).collect();
            read.sort_by_key(|intent| intent.start);
            self.known()[side].extend(read);
        }
        Ok(())
    }

    /// Writes down that `step` is going to run on `side`. Returns the intent's id.
    ///
    /// # Errors
    /// As the cluster says; what it has of the intent then is taken back by [`Intents::say`].
    pub async fn open(&self, side: Side, subject: &Subject, step: &Step) -> Result<String> {
        self.say(side).await?;
        let own = &self.own[side];
        let intent = Intent {
            id: format!("{}/{}", self.link, Uuid::new()),
            subject: subject.clone(),
            operation: step.operation.to_owned(),
            index: step.index.clone(),
            start: own.operation_time().await?,
            end: End::Open,
            seen: false,
        };
        let id = intent.id.clone();
        let statement = doc! {
            "q": { "_id": &id }, "u": { "$set": intent.document(&self.link) }, "upsert": true,
        };
        self.known()[side].push(intent);
        if let Err(error) = own.update(COLLECTION, vec![statement.clone()]).await {
            self.known()[side].retain(|intent| intent.id != id);
            self.changed.notify_waiters();
            // It may be there all the same, or come yet.
            self.unsaid.update(side, statement);
            self.unsaid.take_back(side, &id);
            return Err(error);
        }
        Ok(id)
    }

    /// The command of an intent has ended.
    ///
    /// # Errors
    /// As [`Intents::say`]; the intent counts as closed all the same.
    pub async fn close(&self, side: Side, id: &str, end: End) -> Result<()> {
        for intent in self.known()[side]
            .iter_mut()
            .filter(|intent| intent.id == id)
        {
            intent.end = end;
        }
        self.changed.notify_waiters();
        let set = doc! { "end": end.time(), "end_is_exact": matches!(end, End::At(_)) };
        let statement = doc! { "q": { "_id": id }, "u": { "$set": set } };
        self.unsaid.update(side, statement);
        self.say(side).await
    }

    /// The command of an intent is not going to run.
    ///
    /// # Errors
    /// As [`Intents::say`]; the intent counts as withdrawn all the same.
    pub async fn withdraw(&self, side: Side, id: &str) -> Result<()> {
        self.known()[side].retain(|intent| intent.id != id);
        self.changed.notify_waiters();
        self.unsaid.take_back(side, id);
        self.say(side).await
    }

    /// Puts on record what is not yet: to be done before the next intent, and again until it succeeds.
    ///
    /// # Errors
    /// As the cluster says; the rest is still to be said then.
    pub async fn say(&self, side: Side) -> Result<()> {
        self.unsaid.say(&self.own[side], side).await
    }

    /// What the command was about whose echo an event of `side` is; none for any other event.
    /// Waits where a command on the same collection is under way.
    pub async fn echo_of(&self, side: Side, event: &DdlEvent) -> Option<Subject> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.judge(side, event) {
                Verdict::Echo(subject) => return Some(subject),
                Verdict::Local => return None,
                Verdict::Unclear => changed.await,
            }
        }
    }

    fn judge(&self, side: Side, event: &DdlEvent) -> Verdict {
        let mut known = self.known();
        let at = event.position.time;
        let mut is_unclear = false;
        let (mut exact, mut likely) = (None, None);
        for intent in &mut known[side] {
            let is_later = intent.start < at;
            let matches = is_later && !intent.seen && intent.may_be_at(at) && intent.causes(event);
            match intent.end {
                End::Open => {
                    let concerns = is_later && intent.concerns(event);
                    is_unclear |= concerns || intent.finds_free(event);
                }
                End::At(_) if matches && exact.is_none() => exact = Some(intent),
                End::By(_) if matches && likely.is_none() => likely = Some(intent),
                End::At(_) | End::By(_) => {}
            }
        }
        // What a crash has cut off may never have run.
        match exact.or(likely) {
            Some(intent) => {
                intent.seen = true;
                Verdict::Echo(intent.subject.clone())
            }
            None if is_unclear => Verdict::Unclear,
            None => Verdict::Local,
        }
    }

    /// Forgets intents whose echo every checkpoint has passed. `recorded` are those of the
    /// pipelines from each side.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn prune(&self, recorded: &Pair<Position>) -> Result<()> {
        for side in Side::BOTH {
            let passed = |intent: &Intent| {
                let end = intent.end.time();
                end.is_some_and(|end| recorded[side].covers(end))
            };
            let ids: Vec<String> = {
                let known = self.known();
                let over = known[side].iter().filter(|intent| passed(intent));
                over.map(|intent| intent.id.clone()).collect()
            };
            if ids.is_empty() {
                continue;
            }
            let statement = doc! { "q": { "_id": { "$in": &ids } }, "limit": 0 };
            self.own[side].delete(COLLECTION, vec![statement]).await?;
            self.known()[side].retain(|intent| !ids.contains(&intent.id));
        }
        Ok(())
    }

    /// Whether a creation of tandem's own has got, or will get, the name on `side` after `at`.
    pub fn creates_later(&self, side: Side, name: &Namespace, at: Timestamp) -> bool {
        let known = self.known();
        let mut creations = known[side]
            .iter()
            .filter(|intent| intent.subject.created.is_some() && intent.subject.name == *name);
        creations.any(|intent| match intent.end {
            End::At(end) => at < end,
            End::Open | End::By(_) => false,
        })
    }

    /// What creations on `side` have made, or were about to.
    pub fn created(&self, side: Side) -> Vec<(Namespace, Created)> {
        let known = self.known();
        let subjects = known[side].iter().map(|intent| &intent.subject);
        let created = |subject: &Subject| Some((subject.name.clone(), subject.created.clone()?));
        subjects.filter_map(created).collect()
    }

    fn known(&self) -> MutexGuard<'_, Pair<Vec<Intent>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl End {
    fn time(self) -> Option<Timestamp> {
        match self {
            End::Open => None,
            End::By(time) | End::At(time) => Some(time),
        }
    }
}

impl Intent {
    fn may_be_at(&self, at: Timestamp) -> bool {
        match self.end {
            End::Open => false,
            End::At(end) if self.subject.created.is_some() => at == end,
            End::By(end) | End::At(end) => at <= end,
        }
    }

    /// Whether the event is about the same collection, so that nobody can tell yet.
    fn concerns(&self, event: &DdlEvent) -> bool {
        self.subject.name == event.namespace
            || self.subject.to.as_ref() == Some(&event.namespace)
            || (self.subject.uuid.is_some() && self.subject.uuid == event.collection_uuid)
    }

    /// Whether the event made what the name has to be free of for the command to succeed. How it ends
    /// tells whether that is the counterpart ([`Intents::creates_later`]).
    fn finds_free(&self, event: &DdlEvent) -> bool {
        self.subject.created.is_some()
            && event.operation == "create"
            && self.subject.name == event.namespace
    }

    /// Whether the command causes such an event.
    fn causes(&self, event: &DdlEvent) -> bool {
        let same_index = match (Change::of(event), &self.index) {
            (Change::Define(aspects), Some(index)) => aspects == [Aspect::Index(index.clone())],
            (Change::Define(aspects), None) => {
                let of_index = |aspect: &Aspect| matches!(aspect, Aspect::Index(_));
                !aspects.iter().any(of_index)
            }
            // A change of an index to what it was has no description.
            (Change::Nothing, _) => true,
            (_, index) => index.is_none(),
        };
        self.operation == event.operation
            && self.subject.name == event.namespace
            && self.subject.to == event.to
            && self.is_of(event)
            && same_index
    }

    /// Only its event tells the UUID of what a creation has made.
    fn is_of(&self, event: &DdlEvent) -> bool {
        let Subject { uuid, created, .. } = &self.subject;
        (created.is_some() && uuid.is_none()) || *uuid == event.collection_uuid
    }

    fn document(&self, link: &str) -> Document {
        let created = self.subject.created.as_ref();
        doc! {
            "link": link,
            "kind": "intent",
            "namespace": self.subject.name.as_str(),
            "to": self.subject.to.as_ref().map(|to| to.to_string()),
            "uuid": self.subject.uuid.map_or(Bson::Null, Bson::from),
            "collection": created.map(|created| created.collection.to_string()),
            "counterpart_of": created.map_or(Bson::Null, |created| created.uuid.into()),
            "operation": &self.operation,
            "index": self.index.clone(),
            "start": self.start,
            "end": self.end.time().map_or(Bson::Null, Bson::from),
            "written_at": DateTime::now(),
        }
    }

    fn read(found: &Document, ended_at: Timestamp) -> Option<Self> {
        let name = |field| found.get_str(field).ok().and_then(Namespace::parse);
        let uuid = |field| uuid_in(found, field);
        let created = |(collection, uuid)| Created { collection, uuid };
        let end = match (found.get_timestamp("end"), found.get_bool("end_is_exact")) {
            (Ok(end), Ok(true)) => End::At(end),
            (Ok(end), _) => End::By(end),
            (Err(_), _) => End::By(ended_at),
        };
        Some(Self {
            id: found.get_str("_id").ok()?.to_owned(),
            subject: Subject {
                name: name("namespace")?,
                uuid: uuid("uuid"),
                to: name("to"),
                created: name("collection").zip(uuid("counterpart_of")).map(created),
            },
            operation: found.get_str("operation").ok()?.to_owned(),
            index: found.get_str("index").ok().map(str::to_owned),
            start: found.get_timestamp("start").ok()?,
            end,
            seen: false,
        })
    }
}
