//! Keeps events as a file would: what comes back is equal, and never the same one.

use std::sync::Arc;

use tandem::change::{ChangeEvent, SharedEvent};
use tandem::error::Result;
use tandem::resolve::Spool;

#[derive(Debug, Default)]
pub struct SpoolInMemory {
    events: Vec<Option<ChangeEvent>>,
}

impl Spool for SpoolInMemory {
    fn append(&mut self, event: &ChangeEvent) -> Result<u64> {
        self.events.push(Some(event.clone()));
        Ok(self.events.len() as u64 - 1)
    }

    fn read(&self, place: u64) -> Result<(SharedEvent, u64)> {
        let event = self.events[place as usize].clone();
        let event = event.expect("nothing is read that was released");
        Ok((Arc::new(event), place + 1))
    }

    fn release(&mut self, place: u64) {
        self.events[..place as usize].fill(None);
    }
}
