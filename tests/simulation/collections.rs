//! Collections are created, dropped and renamed, as the server does it.

use bson::{Bson, Document, Timestamp, Uuid, doc};

use crate::commands::{NAMESPACE_NOT_FOUND, Outcome, refused, uuid_of};
use crate::replica::{Collection, Operation, Refused, Replica, Standing};

const NAMESPACE_EXISTS: i32 = 48;
const COLLECTION_UUID_MISMATCH: i32 = 361;

/// Collections whose creation, drop and new name are events; those of tandem's own state are none.
pub fn is_told_of(namespace: &str) -> bool {
    namespace.starts_with("shop.")
}

impl Replica {
    /// Creates what is not there, by a command or by the first write into it.
    pub fn create_told(&mut self, namespace: &str) -> Uuid {
        if let Some(found) = self.collections.get(namespace) {
            return found.uuid;
        }
        let uuid = self.create(namespace);
        let described = doc! { "idIndex": { "v": 2, "key": { "_id": 1 }, "name": "_id_" } };
        let told = doc! { "operationDescription": described };
        let at = self.tell(namespace, uuid, "create", told);
        self.made_visible(namespace, at);
        uuid
    }

    /// # Errors
    /// Held: an open transaction has read it or written into it.
    pub fn drop_collection(&mut self, namespace: &str) -> Result<(), Refused> {
        self.must_be_free(namespace)?;
        if let Some(dropped) = self.collections.remove(namespace) {
            self.tell(namespace, dropped.uuid, "drop", doc! {});
        }
        Ok(())
    }

    /// Renames what is there, over another one or to a free name.
    ///
    /// # Errors
    /// Held: an open transaction has read one of them or written into it.
    pub fn rename(&mut self, namespace: &str, to: &str) -> Result<(), Refused> {
        self.must_be_free(namespace)?;
        self.must_be_free(to)?;
        let Some(renamed) = self.collections.remove(namespace) else {
            return Ok(());
        };
        let uuid = renamed.uuid;
        let replaced = self.collections.insert(to.to_owned(), renamed);
        let (database, collection) = to.split_once('.').expect("a namespace");
        let to_name = doc! { "db": database, "coll": collection };
        let mut described = doc! { "to": to_name.clone() };
        if let Some(replaced) = replaced {
            described.insert("dropTarget", replaced.uuid);
        }
        let told = doc! { "to": to_name, "operationDescription": described };
        let at = self.tell(namespace, uuid, "rename", told);
        self.made_visible(to, at);
        Ok(())
    }

    fn made_visible(&mut self, namespace: &str, at: Timestamp) {
        let found = self.collections.get_mut(namespace);
        found.expect("just made").visible_from = at;
    }

    fn must_be_free(&self, namespace: &str) -> Result<(), Refused> {
        let mut open = self.sessions.values();
        let is_held = open.any(|state| match &state.standing {
            Standing::Open(open) => open.touched.contains(namespace),
            Standing::Committed | Standing::Aborted => false,
        });
        match is_held {
            true => Err(Refused::Held),
            false => Ok(()),
        }
    }

    fn tell(
        &mut self,
        namespace: &str,
        uuid: Uuid,
        kind: &'static str,
        body: Document,
    ) -> Timestamp {
        let operation = Operation {
            namespace: namespace.to_owned(),
            uuid,
            id: Bson::Null,
            kind,
            body,
        };
        self.enter(Vec::new(), vec![operation], None, None);
        self.time
    }
}

/// `create`, `drop` and `renameCollection`, whose `collectionUUID` was looked at before.
pub fn change(replica: &mut Replica, name: &str, namespace: &str, command: &Document) -> Outcome {
    let found: Option<&Collection> = replica.collections.get(namespace);
    match (name, found) {
        ("create", Some(_)) => return refused(NAMESPACE_EXISTS),
        ("create", None) => {
            replica.create_told(namespace);
            return Outcome::Reply(doc! {});
        }
        (_, None) => return refused(NAMESPACE_NOT_FOUND),
        (_, Some(_)) => {}
    }
    let done = match name {
        "drop" => replica.drop_collection(namespace),
        _ => {
            let to = command.get_str("to").expect("a new name");
            let there = replica.collections.get(to).map(|there| there.uuid);
            match (there, command.get("dropTarget").and_then(uuid_of)) {
                (Some(_), None) => return refused(NAMESPACE_EXISTS),
                (there, Some(wanted)) if there != Some(wanted) => {
                    return refused(COLLECTION_UUID_MISMATCH);
                }
                (Some(_), Some(_)) | (None, _) => replica.rename(namespace, to),
            }
        }
    };
    match done {
        Ok(()) => Outcome::Reply(doc! {}),
        Err(Refused::Held | Refused::Conflict) => Outcome::Held,
    }
}

/// Whether an event is about a collection and no document.
pub fn is_change(kind: &str) -> bool {
    matches!(kind, "create" | "drop" | "rename")
}
