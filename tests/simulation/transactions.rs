//! Transactions of sessions, from their first statement to their end.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bson::{Document, Uuid, doc};

use crate::collections::is_told_of;
use crate::replica::{
    NEVER, Place, Refused, Replica, SessionState, Standing, Transaction, operation,
};

/// No commit is under way of what nobody has had an answer to: the number is none that another primary
/// has forgotten.
const LATE_NUMBERS: i64 = 1000;

impl Replica {
    /// A transaction locks what it reads, too, until its end.
    pub fn touch(&mut self, session: Uuid, namespace: &str) {
        let state = self.sessions.get_mut(&session);
        if let Some(Standing::Open(open)) = state.map(|state| &mut state.standing) {
            open.touched.insert(namespace.to_owned());
        }
    }

    /// Writes one document in an open transaction. What changes nothing is not checked.
    pub fn write_in(
        &mut self,
        session: Uuid,
        place: Place,
        before: Option<&Document>,
        after: Option<Document>,
    ) -> Result<bool, Refused> {
        if before == after.as_ref() {
            return Ok(false);
        }
        let Some(SessionState {
            standing: Standing::Open(open),
            ..
        }) = self.sessions.get(&session)
        else {
            panic!("a write without a transaction");
        };
        if self.changed_after(&place, open.snapshot) || self.is_held(&place, Some(session)) {
            return Err(Refused::Conflict);
        }
        if is_told_of(&place.0) && !self.collections.contains_key(&place.0) {
            self.brought_back.push(place.0.clone());
        }
        let uuid = self.create(&place.0);
        let operation = operation(&place.0, uuid, before, after.as_ref());
        let state = self.sessions.get_mut(&session).expect("looked at above");
        if let Standing::Open(open) = &mut state.standing {
            open.operations.push(operation);
            open.written.insert(place, after);
        }
        Ok(true)
    }

    /// A statement that opens a transaction arrives after its session was ended: the server takes it,
    /// and nobody ever goes on with it. It carries the UUID of a collection, which may be gone.
    pub fn open_late(&mut self, session: Uuid, place: Place) {
        if !self.collections.contains_key(&place.0) {
            return;
        }
        let known = self.sessions.get(&session);
        let (known, written) = known.map_or((0, NEVER), |one| (one.number, one.written));
        let before = self.as_of(&place, self.time).cloned();
        let open = Transaction {
            snapshot: self.time,
            touched: BTreeSet::from([place.0.clone()]),
            written: BTreeMap::new(),
            operations: Vec::new(),
        };
        let state = SessionState {
            number: known + LATE_NUMBERS,
            standing: Standing::Open(open),
            written,
        };
        self.sessions.insert(session, state);
        let after = doc! { "late": true };
        if self
            .write_in(session, place, before.as_ref(), Some(after))
            .is_err()
        {
            self.abort(&HashSet::from([session]));
        }
    }

    /// What has written nothing touches no record, and meets no conflict.
    pub fn commit(&mut self, session: Uuid) -> Result<(), Refused> {
        let state = self
            .sessions
            .get_mut(&session)
            .expect("a session with a transaction");
        let number = state.number;
        let Standing::Open(open) = std::mem::replace(&mut state.standing, Standing::Committed)
        else {
            panic!("only an open transaction commits");
        };
        if open.operations.is_empty() {
            self.empty_commits += 1;
            return Ok(());
        }
        if state.written > open.snapshot {
            state.standing = Standing::Aborted;
            return Err(Refused::Conflict);
        }
        let written = open.written.into_iter().collect();
        self.enter(written, open.operations, None, Some((session, number)));
        self.sessions
            .get_mut(&session)
            .expect("looked at above")
            .written = self.time;
        Ok(())
    }

    pub fn abort(&mut self, sessions: &HashSet<Uuid>) {
        for (id, state) in &mut self.sessions {
            if sessions.contains(id) && matches!(state.standing, Standing::Open(_)) {
                state.standing = Standing::Aborted;
            }
        }
    }
}
