//! What was there before the start, and how both sides come to hold all of it.

use std::sync::Arc;

use bson::{Timestamp, rawdoc};
use tandem::change::{HeldDocument, Pair, PipelineId, Side};
use tandem::resolve::{Copied, SettleRequest, Settlement, Ticket};

use crate::cluster::{Cluster, Document};
use crate::link::Link;
use crate::options::{Before, Broken, Options};

/// What a copy says that was read whenever it was.
const LATEST: Timestamp = Timestamp {
    time: u32::MAX,
    increment: 0,
};

impl Link {
    pub fn ask_for_copies(&mut self) {
        let ticket = Ticket::default();
        let at = self.ledger.begin_copying(Side::A);
        for (index, key) in self.keys.iter().enumerate() {
            let was = self.clusters.a.read_at(index, at.time);
            let read_at = rawdoc! { "read_at": i64::from(at.time) };
            let document = was.document.map(|_| HeldDocument::alone(read_at));
            let copied = Copied {
                key: key.clone(),
                bytes: 1,
                document,
                at: match self.options.broken {
                    Broken::StaleCopy => LATEST,
                    _ => at,
                },
                ticket: ticket.clone(),
            };
            self.ledger.request_copy(PipelineId::AToB, copied);
        }
        if self.options.broken != Broken::Hold {
            self.ledger.hold(PipelineId::BToA);
        }
        self.copies = Some(ticket);
    }

    /// What b wrote meanwhile goes on once every copy has been made.
    pub fn finish_copies(&mut self) {
        let made = |ticket: &mut Ticket| Arc::strong_count(ticket) == 1;
        if self.copies.take_if(made).is_some() {
            self.trace.step(|| "everything is copied".to_owned());
            self.copied = true;
            self.ledger.release(PipelineId::BToA);
        }
    }

    pub fn ask_for_settlement(&mut self) {
        let settlement = Arc::new(Settlement::new(self.options.from, Arc::default()));
        for (index, key) in self.keys.iter().enumerate() {
            let first = PipelineId::BOTH[index % 2];
            let request = SettleRequest::new(key.clone(), 1, settlement.clone());
            self.ledger.request_settlement(first, request);
        }
        let merges = self.options.before == Before::Merged;
        if merges && self.options.broken != Broken::MergeHold {
            self.ledger.hold_both();
            self.ledger.begin_joining();
        }
        self.settlement = Some(settlement);
    }

    pub fn finish_settlement(&mut self) {
        let made = |settlement: &mut Arc<Settlement>| Arc::strong_count(settlement) == 1;
        if self.settlement.take_if(made).is_some() {
            self.trace.step(|| "everything is settled".to_owned());
            self.settled = true;
            for pipeline in PipelineId::BOTH {
                self.ledger.release(pipeline);
            }
        }
    }
}

pub fn fill(clusters: &mut Pair<Cluster>, options: &Options) {
    // Every way in which two sides can have a document, in the order of the keys.
    const BOTH_HAVE: [Pair<Document>; 4] = [
        Pair {
            a: Some([1, 1]),
            b: Some([2, 2]),
        },
        Pair {
            a: Some([1, 1]),
            b: None,
        },
        Pair {
            a: None,
            b: Some([2, 2]),
        },
        Pair {
            a: Some([1, 1]),
            b: Some([1, 1]),
        },
    ];
    for key in 0..options.keys {
        let (a, b) = match options.before {
            Before::Nothing => (None, None),
            Before::Copied => (Some([1; 2]), None),
            Before::Merged | Before::Settled => {
                let have = BOTH_HAVE[(key + options.transactions) % BOTH_HAVE.len()];
                (have.a, have.b)
            }
        };
        clusters.a.fill(key, a);
        clusters.b.fill(key, b);
        if a == b {
            let seen = clusters.a.now(key).seen | clusters.b.now(key).seen;
            for side in Side::BOTH {
                clusters[side].states[key][0].seen = seen;
            }
        }
    }
}
