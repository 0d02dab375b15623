//! What was written here, so that it is read whichever member is primary by then.

use std::sync::atomic::{AtomicU64, Ordering};

use bson::{Document, Timestamp, doc};

use crate::fault::Fault;

/// When the last write took place that was acknowledged by a majority, as seconds and increment; 0
/// where there was none.
#[derive(Debug, Default)]
pub(super) struct Written(AtomicU64);

impl Written {
    pub fn note(&self, reply: &Document) {
        let is_acknowledged = !reply.contains_key("writeConcernError");
        let at = reply.get_timestamp("operationTime");
        if let Some(Timestamp { time, increment }) = at.ok().filter(|_| is_acknowledged) {
            let at = u64::from(time) << 32 | u64::from(increment);
            self.0.fetch_max(at, Ordering::SeqCst);
        }
    }

    pub fn of_majority(&self) -> Document {
        let written = self.0.load(Ordering::SeqCst);
        let written = (written > 0).then_some(Timestamp {
            time: (written >> 32) as u32,
            increment: written as u32,
        });
        majority_after(written)
    }
}

/// A read concern that shows what a majority has, and what was written until then in any case
/// (`afterClusterTime`): up to 7.0 a primary that was just elected may not know yet that a majority has
/// it (SERVER-53813).
pub fn majority_after(written: Option<Timestamp>) -> Document {
    let mut concern = doc! { "level": "majority" };
    if let Some(written) = written.filter(|_| !Fault::StaleReads.is_on()) {
        concern.insert("afterClusterTime", written);
    }
    concern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acknowledged_last_is_read_in_any_case() {
        let at = |increment| Timestamp { time: 7, increment };
        let written = Written::default();
        assert_eq!(written.of_majority(), doc! { "level": "majority" });
        written.note(&doc! { "operationTime": at(2) });
        written.note(&doc! { "operationTime": at(1) });
        written.note(&doc! { "operationTime": at(3), "writeConcernError": {} });
        let concern = doc! { "level": "majority", "afterClusterTime": at(2) };
        assert_eq!(written.of_majority(), concern);
    }
}
