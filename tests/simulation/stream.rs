//! A cluster's change stream: events out of the oplog, through tandem's own filter.

use bson::{Bson, DateTime, Document, RawDocumentBuf, Timestamp, doc};

use crate::collections::is_change;
use crate::query::{list, matches, sub};
use crate::replica::{Entry, Operation, Replica};

/// Where a cursor is in a replica's oplog.
#[derive(Debug)]
pub struct Reading {
    filter: Document,
    /// The next entry and the next operation in it.
    next: (usize, usize),
    token: String,
}

/// How a server cuts its batches.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub events_max: usize,
    /// The post-batch token stays where it was, as it may for up to a second.
    pub token_is_stale: bool,
}

impl Reading {
    pub fn open(replica: &Replica, command: &Document) -> Self {
        let stages = list(&command["pipeline"]);
        let stream = sub(&stages[0])
            .get_document("$changeStream")
            .expect("a change stream");
        let from = stream
            .get_timestamp("startAtOperationTime")
            .expect("a start");
        let at = replica.oplog.iter().position(|entry| entry.time >= from);
        Self {
            filter: sub(&stages[1])
                .get_document("$match")
                .expect("a filter")
                .clone(),
            next: (at.unwrap_or(replica.oplog.len()), 0),
            token: token(from, 0),
        }
    }

    /// What is there, which may be nothing.
    pub fn batch(&mut self, replica: &Replica, cut: Cut) -> Vec<Bson> {
        let mut events: Vec<Bson> = Vec::new();
        let mut last = None;
        while events.len() < cut.events_max {
            let Some(entry) = replica.durable().get(self.next.0) else {
                break;
            };
            let Some(operation) = entry.operations.get(self.next.1) else {
                self.next = (self.next.0 + 1, 0);
                continue;
            };
            let event = event(entry, operation, self.next.1);
            self.next.1 += 1;
            last = Some(token(entry.time, self.next.1 - 1));
            if matches(&event, &self.filter, DateTime::from_millis(0)) {
                events.push(Bson::Document(event));
            }
        }
        if let Some(last) = last.filter(|_| !cut.token_is_stale) {
            self.token = last;
        }
        events
    }

    /// A reply with these events.
    pub fn reply(&self, events: Vec<Bson>) -> RawDocumentBuf {
        let reply = doc! { "cursor": {
            "id": 1_i64, "ns": "admin.$cmd.aggregate", "nextBatch": events,
            "postBatchResumeToken": { "_data": &self.token },
        }, "ok": 1.0 };
        RawDocumentBuf::try_from(&reply).expect("a reply")
    }
}

/// Of the same build as the server's: the time first, then what tells events of one time apart.
pub fn token(time: Timestamp, operation: usize) -> String {
    format!("82{:08X}{:08X}2B{operation:06X}", time.time, time.increment)
}

fn event(entry: &Entry, operation: &Operation, index: usize) -> Document {
    let (database, collection) = operation.namespace.split_once('.').expect("a namespace");
    let mut event = doc! {
        "_id": { "_data": token(entry.time, index) },
        "operationType": operation.kind,
        "clusterTime": entry.time,
        "wallTime": DateTime::from_millis(entry.wall_ms),
        "ns": { "db": database, "coll": collection },
        "collectionUUID": operation.uuid,
    };
    if is_change(operation.kind) {
        event.extend(operation.body.clone());
        return event;
    }
    event.insert("documentKey", doc! { "_id": operation.id.clone() });
    match operation.kind {
        "update" => {
            event.insert(
                "rawUpdateDescription",
                doc! { "diff": operation.body.clone() },
            );
        }
        "insert" | "replace" => drop(event.insert("fullDocument", operation.body.clone())),
        _ => {}
    }
    if let Some((session, number)) = entry.transaction {
        event.insert("lsid", doc! { "id": session });
        event.insert("txnNumber", number);
    }
    event
}
