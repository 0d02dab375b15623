//! What a collection is called: on each cluster, in tandem's own state, and by people.
//!
//! Lasting names and those for people are names on a; [`Renames`] leads from there to b.

use bson::Uuid;

use super::Collections;
use crate::change::{DocumentKey, Namespace, Renames, Side};

impl Collections {
    pub fn renames(&self) -> &Renames {
        &self.renames
    }

    /// What people know the collection by that `side` calls `name`.
    pub fn on_a(&self, side: Side, name: &Namespace) -> Namespace {
        let on_a = self.renames.on_a(side, name);
        on_a.unwrap_or_else(|| name.clone())
    }

    /// The lasting name of what is called so on `side` now.
    pub fn called(&self, side: Side, name: &Namespace) -> Option<Namespace> {
        self.known().called(side, name).cloned()
    }

    /// What a collection is called on `side`, and its UUID there, as far as it is known.
    pub fn place(&self, namespace: &Namespace, side: Side) -> (Namespace, Option<Uuid>) {
        match self.known().get(namespace) {
            Some(entry) => (entry.names[side].clone(), entry.uuids[side]),
            None => (self.renames.on(side, namespace), None),
        }
    }

    /// A document's key for people, by the name that its collection has on `side` now.
    pub fn shown(&self, key: &DocumentKey, side: Side) -> DocumentKey {
        let (name, _) = self.place(key.namespace(), side);
        let name = self.on_a(side, &name);
        match name == *key.namespace() {
            true => key.clone(),
            false => key.within(&name),
        }
    }
}
