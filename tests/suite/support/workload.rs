//! The load of applications on both sides at once, which keeps its own account of every write.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::error::Error;
use mongodb::options::{DatabaseOptions, WriteConcern};
use mongodb::{Client, ClientSession, Collection};

use super::compare::Contents;
use super::operators::{document, filtered_update, id_of, update};
use super::oplog::session_bytes;
use super::oracle::{History, Place, Side, Time, Write, seen_of};
use super::random::Random;
use super::refusals::{is_duplicate, is_refusal};
use super::spread::Spread;

const TRANSACTION_PLACES_MAX: u64 = 4;

/// How much is written, and of what kind.
#[derive(Debug, Clone)]
pub struct Workload {
    pub seed: u64,
    pub writes_per_side: usize,
    pub keys: u32,
    pub spread: Spread,
    pub writers_per_side: usize,
    pub namespaces: Vec<String>,
    /// Of a hundred steps, how many are a transaction of several documents.
    pub transaction_percent: u64,
    pub delete_percent: u64,
    /// Between the steps of a writer; none: as fast as the server takes it.
    pub pause: Option<Duration>,
    /// The number of the first id.
    pub ids_from: usize,
    /// Goes on past its number of writes until this is set.
    pub until: Option<Arc<AtomicBool>>,
    /// How a write is acknowledged.
    pub concern: WriteConcern,
}

impl Workload {
    pub fn new(seed: u64, writes_per_side: usize) -> Self {
        Self {
            seed,
            writes_per_side,
            keys: 1000,
            spread: Spread::Even,
            writers_per_side: 4,
            namespaces: ["shop.orders", "shop.items", "bank.accounts"]
                .map(str::to_owned)
                .to_vec(),
            transaction_percent: 6,
            delete_percent: 8,
            pause: None,
            ids_from: 0,
            until: None,
            // The sets have one member, and the load should be a heavy one.
            concern: WriteConcern::nodes(1),
        }
    }

    pub fn keys(mut self, keys: u32) -> Self {
        self.keys = keys;
        self
    }

    pub fn namespaces(mut self, namespaces: &[&str]) -> Self {
        self.namespaces = namespaces.iter().map(|name| name.to_string()).collect();
        self
    }

    pub fn transactions(mut self, percent: u64) -> Self {
        self.transaction_percent = percent;
        self
    }

    pub fn pause(mut self, pause: Duration) -> Self {
        self.pause = Some(pause);
        self
    }

    /// For a second load on the same documents.
    pub fn ids_from(mut self, first: usize) -> Self {
        self.ids_from = first;
        self
    }

    pub fn until(mut self, stop: Arc<AtomicBool>) -> Self {
        self.until = Some(stop);
        self
    }

    /// For sets that change their primary: writes count with a majority only, and one that ends
    /// in an error may be there or not.
    pub fn by_majority(mut self) -> Self {
        self.concern = WriteConcern::majority();
        self
    }

    /// Writes on both sides at once, until each has its number of acknowledged writes.
    pub async fn run(&self, a: &Client, b: &Client) -> History {
        let (one, other) = tokio::join!(self.run_side(Side::A, a), self.run_side(Side::B, b));
        one.merge(other)
    }

    /// Writes on one side alone.
    pub async fn run_side(&self, side: Side, client: &Client) -> History {
        let mut writers = Vec::new();
        for number in 0..self.writers_per_side {
            let mut writer = Writer::new(self, side, number, client).await;
            writers.push(tokio::spawn(async move {
                writer.run().await;
                writer.history
            }));
        }
        let mut history = History::default();
        for writer in writers {
            history = history.merge(writer.await.expect("a writer ends well"));
        }
        history
    }
}

/// One connection of an application.
struct Writer {
    workload: Workload,
    side: Side,
    number: usize,
    ids_given: usize,
    client: Client,
    session: ClientSession,
    random: Random,
    history: History,
}

#[derive(Clone, Copy)]
enum Step {
    Insert,
    Update,
    Replace,
    Delete,
}

impl Writer {
    async fn new(workload: &Workload, side: Side, number: usize, client: &Client) -> Self {
        let session = client.start_session().await.expect("a session");
        let label = (number as u64) << 1 | u64::from(side == Side::B);
        let mut history = History::default();
        history.sessions.extend(session_bytes(session.id()));
        Self {
            workload: workload.clone(),
            side,
            number,
            ids_given: 0,
            client: client.clone(),
            session,
            random: Random::new(workload.seed).fork(label + 1),
            history,
        }
    }

    async fn run(&mut self) {
        let wanted = self
            .workload
            .writes_per_side
            .div_ceil(self.workload.writers_per_side);
        let until = self.workload.until.clone();
        let stopped = || {
            until
                .as_ref()
                .is_none_or(|stop| stop.load(Ordering::SeqCst))
        };
        while self.history.writes.len() < wanted || !stopped() {
            if let Some(pause) = self.workload.pause {
                tokio::time::sleep(pause).await;
            }
            if self.random.percent(self.workload.transaction_percent) {
                self.transaction().await;
            } else {
                self.single().await;
            }
        }
    }

    fn fresh_id(&mut self) -> String {
        let number =
            self.workload.ids_from + self.ids_given * self.workload.writers_per_side + self.number;
        self.ids_given += 1;
        format!("{}-{number}", self.side.prefix())
    }

    fn place(&mut self) -> Place {
        let namespace = self.random.pick(&self.workload.namespaces).clone();
        let Workload { spread, keys, .. } = self.workload;
        (namespace, spread.key(&mut self.random, keys))
    }

    fn step(&mut self) -> Step {
        let deletes = self.workload.delete_percent;
        match self.random.below(100) {
            dice if dice < deletes => Step::Delete,
            dice if dice < deletes + 12 => Step::Insert,
            dice if dice < deletes + 22 => Step::Replace,
            _ => Step::Update,
        }
    }

    fn collection(&self, namespace: &str) -> Collection<Document> {
        let (database, collection) = namespace.split_once('.').expect("a namespace");
        let options = DatabaseOptions::builder()
            .write_concern(self.workload.concern.clone())
            .build();
        let database = self.client.database_with_options(database, options);
        database.collection(collection)
    }

    /// The session's operation time: not past any write of this session yet to come.
    fn time(&self) -> Time {
        let time = self.session.operation_time();
        time.map_or((0, 0), |ts| (ts.time, ts.increment))
    }

    /// One write outside transactions; where there is nothing to update, an insert.
    async fn single(&mut self) {
        let place = self.place();
        let id = self.fresh_id();
        let step = self.step();
        let before = self.time();
        let result = match step {
            Step::Insert => self.insert(&place, &id).await,
            Step::Update => self.update(&place, &id).await,
            Step::Replace => return self.replace_alone(place, id).await,
            Step::Delete => self.delete(&place).await,
        };
        let done = match result {
            Err(error) if is_duplicate(&error) => return,
            Err(error) => return self.unclear(id, place, step, &error),
            Ok(done) => done,
        };
        match (done, step) {
            (Some(removed), _) => self.note(id, place, before, removed),
            (None, Step::Update) => match self.insert(&place, &id).await {
                Ok(Some(removed)) => self.note(id, place, before, removed),
                Err(error) if !is_duplicate(&error) => {
                    self.unclear(id, place, step, &error);
                }
                Ok(None) | Err(_) => {}
            },
            (None, _) => {}
        }
    }

    /// A replacement reads the document first, so it needs a transaction to lose nothing.
    async fn replace_alone(&mut self, place: Place, id: String) {
        self.in_transaction(vec![(place, id, Step::Replace)]).await;
    }

    async fn transaction(&mut self) {
        let mut steps: Vec<(Place, String, Step)> = Vec::new();
        for _ in 0..2 + self.random.below(TRANSACTION_PLACES_MAX - 1) {
            let place = self.place();
            if steps.iter().all(|(other, _, _)| *other != place) {
                let step = (place, self.fresh_id(), self.step());
                steps.push(step);
            }
        }
        self.in_transaction(steps).await;
    }

    /// All steps or none; a transaction that the server refuses is given up.
    async fn in_transaction(&mut self, steps: Vec<(Place, String, Step)>) {
        let before = self.time();
        let start = self.session.start_transaction();
        let concern = self.workload.concern.clone();
        start.write_concern(concern).await.expect("a transaction");
        let mut done = Vec::new();
        for (place, id, step) in steps {
            match self.step_in_transaction(&place, &id, step).await {
                Ok(Some(removed)) => done.push((id, place, step, removed)),
                Ok(None) => {}
                Err(error) => {
                    assert!(self.forgives(&error), "{place:?} {id}: {error}");
                    let _ = self.session.abort_transaction().await;
                    return;
                }
            }
        }
        match self.session.commit_transaction().await {
            Ok(()) => {
                for (id, place, _, removed) in done {
                    self.note(id, place, before, removed);
                }
            }
            Err(error) if is_refusal(&error) => {
                let _ = self.session.abort_transaction().await;
            }
            Err(error) => {
                for (id, place, step, _) in done {
                    self.unclear(id, place, step, &error);
                }
            }
        }
    }

    /// A duplicate key would end the transaction, so an insert looks first.
    async fn step_in_transaction(&mut self, place: &Place, id: &str, step: Step) -> Done {
        match step {
            Step::Delete => self.delete(place).await,
            Step::Replace => self.replace(place, id).await,
            Step::Insert | Step::Update => match self.update(place, id).await? {
                Some(removed) => Ok(Some(removed)),
                None => self.insert(place, id).await,
            },
        }
    }

    async fn insert(&mut self, place: &Place, id: &str) -> Done {
        let whole = document(&mut self.random, place.1, vec![id.to_owned()]);
        let collection = self.collection(&place.0);
        let insert = collection.insert_one(whole).session(&mut self.session);
        insert.await.map(|_| Some(None))
    }

    async fn update(&mut self, place: &Place, id: &str) -> Done {
        let collection = self.collection(&place.0);
        let filter = doc! { "_id": id_of(place.1) };
        let result = if self.random.percent(5) {
            let (update, few) = filtered_update(&mut self.random, id);
            let update = collection.update_one(filter, update).array_filters([few]);
            update.session(&mut self.session).await?
        } else {
            let update = collection.update_one(filter, update(&mut self.random, id));
            update.session(&mut self.session).await?
        };
        Ok((result.matched_count == 1).then_some(None))
    }

    async fn replace(&mut self, place: &Place, id: &str) -> Done {
        let collection = self.collection(&place.0);
        let filter = doc! { "_id": id_of(place.1) };
        let find = collection.find_one(filter.clone());
        let Some(found) = find.session(&mut self.session).await? else {
            return Ok(None);
        };
        let mut seen = seen_of(&found);
        seen.push(id.to_owned());
        let whole = document(&mut self.random, place.1, seen);
        let replace = collection.replace_one(filter, whole);
        let result = replace.session(&mut self.session).await?;
        Ok((result.matched_count == 1).then_some(None))
    }

    async fn delete(&mut self, place: &Place) -> Done {
        let collection = self.collection(&place.0);
        let delete = collection.find_one_and_delete(doc! { "_id": id_of(place.1) });
        let deleted = delete.session(&mut self.session).await?;
        Ok(deleted.map(|document| Some(seen_of(&document))))
    }

    fn forgives(&self, error: &Error) -> bool {
        is_refusal(error) || self.workload.concern == WriteConcern::majority()
    }

    /// Nobody knows whether it was done.
    fn unclear(&mut self, id: String, place: Place, step: Step, error: &Error) {
        assert!(self.forgives(error), "{place:?} {id}: {error}");
        match step {
            Step::Delete => drop(self.history.perhaps_deleted.insert(place)),
            Step::Insert | Step::Update | Step::Replace => self.history.perhaps.push((id, place)),
        }
    }

    fn note(&mut self, id: String, place: Place, before: Time, removed: Option<Vec<String>>) {
        self.history.writes.push(Write {
            id,
            side: self.side,
            place,
            time: (before, self.time()),
            removed,
        });
    }
}

/// None: there was nothing to write to. Inside: the `seen` that a delete took away.
type Done = Result<Option<Option<Vec<String>>>, Error>;

/// The converged documents of one side as the oracle takes them.
pub fn documents_of(contents: &Contents) -> Vec<(String, Document)> {
    let decoded = |raw: &bson::RawDocumentBuf| Document::try_from(raw.as_ref()).expect("BSON");
    contents
        .iter()
        .flat_map(|(namespace, documents)| {
            let documents = documents.values();
            documents.map(move |raw| (namespace.clone(), decoded(raw)))
        })
        .collect()
}
