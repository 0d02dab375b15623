//! What of the intents the clusters have not answered to yet.
//!
//! An intent that is left open on record, and whose command is over or never runs, makes a later start
//! take an application's change for its echo.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bson::{Document, doc};

use super::intent::COLLECTION;
use crate::change::{Pair, Side};
use crate::error::Result;
use crate::link::own::Own;

/// Statements that are to be run in their order.
#[derive(Default)]
pub struct Unsaid {
    waiting: Mutex<Pair<VecDeque<Statement>>>,
    /// Held while they are run: nobody takes away what another one has not said yet.
    saying: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
enum Statement {
    Update(Document),
    Delete(Document),
}

impl Unsaid {
    pub fn update(&self, side: Side, statement: Document) {
        self.waiting()[side].push_back(Statement::Update(statement));
    }

    pub fn take_back(&self, side: Side, id: &str) {
        let statement = doc! { "q": { "_id": id }, "limit": 0 };
        self.waiting()[side].push_back(Statement::Delete(statement));
    }

    /// # Errors
    /// As the cluster says; the rest is still to be said then.
    pub async fn say(&self, own: &Own, side: Side) -> Result<()> {
        let _saying = self.saying.lock().await;
        loop {
            let Some(next) = self.waiting()[side].front().cloned() else {
                return Ok(());
            };
            match next {
                Statement::Update(statement) => own.update(COLLECTION, vec![statement]).await?,
                Statement::Delete(statement) => own.delete(COLLECTION, vec![statement]).await?,
            };
            self.waiting()[side].pop_front();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Pair<VecDeque<Statement>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
