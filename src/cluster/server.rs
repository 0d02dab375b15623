//! The seam to a server: everything that tandem says to one and hears from one.
//!
//! The driver stands behind it, and in a simulation a server in memory. A method is called once
//! for a command or a batch, never for a document.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bson::{Document, RawArray, RawDocument, RawDocumentBuf, Uuid};

use super::failure::Failure;

/// What comes back from a server, or why nothing does.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// The primary of one replica set, wherever it is now.
///
/// Nothing here waits without end only because a caller forgot to: the caller gives the deadline.
/// A call that is dropped may have reached the server all the same, and may still reach it.
pub trait Server: fmt::Debug + Send + Sync {
    /// Runs one command and returns its whole reply. `writeErrors` and `writeConcernError` inside
    /// `ok: 1` are a reply and no failure. Never sends a command twice.
    fn run<'a>(&'a self, database: &'a str, command: RawDocumentBuf) -> Answer<'a, Document>;

    /// Runs a command that answers with a cursor.
    fn open<'a>(
        &'a self,
        database: &'a str,
        command: RawDocumentBuf,
        kind: CursorKind,
    ) -> Answer<'a, Box<dyn Cursor>>;

    /// A fresh session with an id that was never used, without causal consistency.
    fn start_session(&self) -> Answer<'_, Box<dyn Session>>;

    /// Ends all connections; nothing is asked of it afterwards.
    fn shutdown(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// How a cursor gives its batches.
#[derive(Debug, Clone, Copy)]
pub enum CursorKind {
    /// Until there is no more.
    Ending { batch_documents_max: Option<u32> },
    /// For ever: a batch without documents comes after this time without any (`awaitData`).
    Awaiting {
        await_time_max: Duration,
        batch_documents_max: u32,
    },
}

impl CursorKind {
    /// Batches as large as the server makes them.
    pub const PLAIN: CursorKind = CursorKind::Ending {
        batch_documents_max: None,
    };
}

/// An open cursor.
pub trait Cursor: Send {
    /// The next batch; none where the cursor has come to its end or was closed.
    fn next(&mut self) -> Answer<'_, Option<Batch>>;
}

/// A session (`lsid`). All its commands carry its id, and none of them a transaction number, a read
/// concern or anything else that is not in the command itself.
pub trait Session: Send + Sync {
    fn id(&self) -> Uuid;

    /// As [`Server::run`].
    fn run<'a>(&'a mut self, database: &'a str, command: RawDocumentBuf) -> Answer<'a, Document>;

    /// Runs a command that answers with a cursor, and gives its first batch only.
    fn first_batch<'a>(
        &'a mut self,
        database: &'a str,
        command: RawDocumentBuf,
    ) -> Answer<'a, Option<Batch>>;
}

/// One batch of a cursor, as the server sent it.
pub struct Batch(Inner);

enum Inner {
    Driver(mongodb::raw_batch_cursor::RawBatch),
    Reply(RawDocumentBuf),
}

impl Batch {
    /// A reply with `cursor.firstBatch` or `cursor.nextBatch`.
    pub fn of_reply(reply: RawDocumentBuf) -> Self {
        Self(Inner::Reply(reply))
    }

    pub(super) fn of_driver(batch: mongodb::raw_batch_cursor::RawBatch) -> Self {
        Self(Inner::Driver(batch))
    }

    /// The documents, without decoding them.
    ///
    /// # Errors
    /// Where the reply is broken.
    pub fn doc_slices(&self) -> Result<&RawArray, Failure> {
        let cursor = self.as_raw_document().get_document("cursor")?;
        match cursor.get("firstBatch")? {
            Some(_) => Ok(cursor.get_array("firstBatch")?),
            None => Ok(cursor.get_array("nextBatch")?),
        }
    }

    /// The whole reply.
    pub fn as_raw_document(&self) -> &RawDocument {
        match &self.0 {
            Inner::Driver(batch) => batch.as_raw_document(),
            Inner::Reply(reply) => reply,
        }
    }
}

impl AsRef<RawDocument> for Batch {
    fn as_ref(&self) -> &RawDocument {
        self.as_raw_document()
    }
}
