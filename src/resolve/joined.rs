//! Documents that a link's first merge has made the same on both sides.
//!
//! It compares again what it has settled, where it is broken off or a collection gets another name. By
//! then an application may have written on top, and the servers no longer keep what was there before.

use std::collections::HashSet;

use super::ledger::Ledger;
use crate::change::DocumentKey;

/// Documents that are remembered at once, some 24 bytes each. Of any other one the servers are asked
/// what it was before the writes on their way.
const JOINED_MAX: usize = 1_000_000;

/// By their digests.
#[derive(Debug, Default)]
pub(super) struct Joined(HashSet<[u8; 16]>);

impl Ledger {
    /// From here until the pipelines are released tandem writes nothing but to settle documents. To be
    /// told of before any write of a former process.
    pub fn begin_joining(&mut self) {
        self.joined = Some(Joined::default());
    }

    /// tandem has written the document, on either side.
    pub(super) fn note_joined(&mut self, key: &DocumentKey) {
        if let Some(Joined(joined)) = &mut self.joined
            && joined.len() < JOINED_MAX
        {
            joined.insert(key.digest());
        }
    }

    /// Whether nothing but writes on their way can make both sides differ.
    pub(super) fn is_joined(&self, key: &DocumentKey) -> bool {
        let joined = self.joined.as_ref();
        joined.is_some_and(|Joined(joined)| joined.contains(&key.digest()))
    }
}
