//! What changes of collections leave behind: names, counterparts, and what is gone.

use bson::{Timestamp, Uuid};

use super::Collections;
use super::identity::Entry;
use crate::change::{Namespace, Side};
use crate::error::Result;

impl Collections {
    /// The collection is called otherwise on `side` from now on.
    pub fn renamed(&self, namespace: &Namespace, side: Side, name: &Namespace) {
        self.known().rename(namespace, side, name);
    }

    /// As [`Collections::renamed`], unless it has got another name since it was called `from`.
    pub fn renamed_from(
        &self,
        namespace: &Namespace,
        side: Side,
        from: &Namespace,
        name: &Namespace,
    ) {
        let mut known = self.known();
        if known.get(namespace).map(|entry| &entry.names[side]) == Some(from) {
            known.rename(namespace, side, name);
        }
    }

    /// As [`Collections::renamed`], of the collection of this UUID.
    pub fn renamed_uuid(&self, side: Side, uuid: Uuid, name: &Namespace) {
        let mut known = self.known();
        if let Some(namespace) = known.of_uuid(side, uuid).cloned() {
            known.rename(&namespace, side, name);
        }
    }

    /// The two definitions are being made equal, which is not done before the pair is on record.
    pub fn settles(&self, namespace: &Namespace) {
        self.known().entry(namespace).settling = true;
    }

    /// Whether the pair is made, and nothing is left to settle.
    pub fn is_settled(&self, namespace: &Namespace) -> bool {
        let settling = |entry: &Entry| entry.settling;
        self.is_paired(namespace) && !self.known().get(namespace).is_some_and(settling)
    }

    /// The counterpart on `side` is this collection.
    pub fn set_counterpart(&self, namespace: &Namespace, side: Side, uuid: Uuid, name: &Namespace) {
        let mut known = self.known();
        known.set_counterpart(namespace, side, uuid, name);
    }

    /// As [`Collections::set_counterpart`], of what was found by its name, unless the reader has met
    /// another one meanwhile, which had the name before. Returns which one it is.
    pub fn take_counterpart(
        &self,
        namespace: &Namespace,
        side: Side,
        uuid: Uuid,
        name: &Namespace,
    ) -> Uuid {
        self.known().take_counterpart(namespace, side, uuid, name)
    }

    /// Whether the other cluster has followed the rename that `side` made at `at`, or a later one.
    pub fn has_followed(&self, namespace: &Namespace, side: Side, at: Timestamp) -> bool {
        let known = self.known();
        let entry = known.get(namespace);
        entry.is_some_and(|entry| entry.followed[side] >= Some(at))
    }

    /// Puts on record, with the names, that the other cluster has followed the rename that `side`
    /// made at `at`. It counts from then on only: another attempt has to write it again.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn put_followed(
        &self,
        namespace: &Namespace,
        side: Side,
        at: Timestamp,
    ) -> Result<()> {
        let _changing = self.changing.lock().await;
        let mut state = self.known().entry(namespace).described();
        state.insert(format!("followed_{}", side.as_str()), at);
        self.save(vec![(namespace.clone(), state)]).await?;
        self.known().entry(namespace).followed[side] = Some(at);
        Ok(())
    }

    /// The reader of `side` has passed the collection's drop.
    pub fn set_gone(&self, namespace: &Namespace, side: Side) {
        self.known().entry(namespace).gone[side] = true;
    }

    pub fn is_gone(&self, namespace: &Namespace, side: Side) -> bool {
        self.known()
            .get(namespace)
            .is_some_and(|entry| entry.gone[side])
    }
}
