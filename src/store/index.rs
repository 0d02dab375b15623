//! The index of the conflict log: what filters ask of each record, many records to an entry.
//!
//! What opening a store takes goes by sled's entries, whatever their size. So no record has an entry
//! for each of its attributes: *rows* of records that follow each other by time stand together in a
//! *block*. A row says which values its record has (*facets*, which many records share) and which
//! document it is about. It may say too much, never too little: a record found by its row is judged
//! by itself.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bson::{RawDocument, RawDocumentBuf};
use sled::IVec;
use sled::transaction::{TransactionalTree, UnabortableTransactionError};

use super::RecordFilter;
use super::ids::Ids;
use super::page::Direction;
use super::reading::Reading;
use block::{Block, Row, document_of, facets_of, rows};
use wanted::{Wanted, narrows};

mod block;
#[cfg(test)]
mod tests;
mod wanted;

/// Where the first block begins: no record stands before it.
const FIRST: &[u8] = &[0];

pub(super) struct Index {
    /// Rows by the key that their block begins at. A block ends where the next one begins.
    blocks: sled::Tree,
    /// The values behind the names that rows give them. They stay when their last record is gone.
    facets: sled::Tree,
    writing: Mutex<State>,
}

/// Held by whoever changes the log, so that blocks are not changed between reading and writing, and
/// by whoever looks for a record by its id.
pub(super) struct State {
    /// Whether each record has its row. Without that nothing is written, and nobody asks.
    whole: bool,
    facets_stored: HashSet<u64>,
    /// None until somebody asks for a record by its id.
    pub ids: Option<Ids>,
}

/// What becomes of the index, to be written in one transaction with what becomes of the records.
#[derive(Default)]
pub(super) struct Edit {
    blocks: BTreeMap<Vec<u8>, Block>,
    facets: BTreeMap<u64, RawDocumentBuf>,
}

impl Index {
    pub fn open(db: &sled::Db, whole: bool) -> sled::Result<Self> {
        Ok(Self {
            blocks: db.open_tree("index_blocks")?,
            facets: db.open_tree("index_facets")?,
            writing: Mutex::new(State {
                whole,
                facets_stored: HashSet::new(),
                ids: None,
            }),
        })
    }

    pub fn trees(&self) -> (&sled::Tree, &sled::Tree) {
        (&self.blocks, &self.facets)
    }

    /// Whoever changes the log, or looks for a record by its id, holds this meanwhile.
    pub fn writing(&self) -> MutexGuard<'_, State> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn is_whole(&self) -> bool {
        self.writing().whole
    }

    /// Empties it; not whole from now on.
    pub fn clear(&self, state: &mut State) -> sled::Result<()> {
        state.whole = false;
        state.facets_stored.clear();
        state.ids = None;
        self.blocks.clear()?;
        self.facets.clear()
    }

    /// Records that have a row.
    pub fn len(&self) -> sled::Result<usize> {
        let mut count = 0;
        self.each_key(|_| count += 1)?;
        Ok(count)
    }

    /// The keys of those records.
    pub fn each_key(&self, mut visit: impl FnMut(&[u8])) -> sled::Result<()> {
        let mut reading = Reading::of(&self.blocks);
        for block in &self.blocks {
            let (start, block) = block?;
            reading.has_read(&start, block.len())?;
            rows(&block).flatten().for_each(|row| visit(row.key));
        }
        Ok(())
    }

    /// Adds the row of a record, or puts it in the place of the one that has its key.
    pub fn put(
        &self,
        state: &State,
        edit: &mut Edit,
        key: &[u8],
        record: &RawDocument,
    ) -> sled::Result<()> {
        let (facets, values) = facets_of(record);
        if !state.facets_stored.contains(&facets) {
            edit.facets.insert(facets, values);
        }
        let row = Row {
            key,
            facets,
            document: document_of(record),
        };
        if let Some((start, rest)) = self.block_of(edit, key)?.put(row) {
            edit.blocks.insert(start, rest);
        }
        Ok(())
    }

    pub fn remove(&self, edit: &mut Edit, key: &[u8]) -> sled::Result<()> {
        self.block_of(edit, key)?.remove(key);
        Ok(())
    }

    fn block_of<'a>(&self, edit: &'a mut Edit, key: &[u8]) -> sled::Result<&'a mut Block> {
        let stored = self.blocks.range(..=key).next_back().transpose()?;
        let edited = edit.blocks.range(..=key.to_vec()).next_back();
        let edited = edited.map(|(start, _)| start.clone());
        let (start, block) = match (stored, edited) {
            (Some((stored, _)), Some(edited)) if edited.as_slice() >= stored.as_ref() => {
                (edited, None)
            }
            (None, Some(edited)) => (edited, None),
            (Some((start, block)), _) => (start.to_vec(), Some(block)),
            (None, None) => (FIRST.to_vec(), None),
        };
        // One that makes no sense is begun anew; a start notices by the number of rows.
        let decoded = || {
            block
                .and_then(|block| Block::decoded(&block))
                .unwrap_or_default()
        };
        Ok(edit.blocks.entry(start).or_insert_with(decoded))
    }

    /// Whether a filter can be answered from rows alone where to look.
    pub fn serves(&self, filter: &RecordFilter) -> bool {
        narrows(filter) && self.is_whole()
    }

    /// Keys of records that may match a filter, from `from` on and before `to`, block by block.
    pub fn keys(
        &self,
        filter: &RecordFilter,
        from: &[u8],
        to: &[u8],
        direction: Direction,
    ) -> sled::Result<Keys> {
        let mut facets = Vec::new();
        for entry in &self.facets {
            let (name, values) = entry?;
            // A name that makes no sense is as good as one that came since.
            if let Ok(name) = name.as_ref().try_into() {
                facets.push((u64::from_be_bytes(name), values));
            }
        }
        let readable = facets.iter().filter_map(|(name, values)| {
            let values = RawDocument::from_bytes(values).ok()?;
            Some((*name, values))
        });
        let wanted = Wanted::of(filter, readable);
        let first = self.blocks.range(..=from).next_back().transpose()?;
        let start = first.map_or_else(|| FIRST.to_vec(), |(start, _)| start.to_vec());
        Ok(Keys {
            blocks: (start.as_slice() < to).then(|| self.blocks.range(start..to.to_vec())),
            reading: Reading::of(&self.blocks),
            wanted,
            from: from.to_vec(),
            to: to.to_vec(),
            direction,
            last: None,
            found: Vec::new().into_iter(),
        })
    }
}

impl State {
    /// What was written is known to be there.
    pub fn written(&mut self, edit: &Edit) {
        self.facets_stored.extend(edit.facets.keys());
    }

    pub fn completed(&mut self) {
        self.whole = true;
    }

    pub fn is_whole(&self) -> bool {
        self.whole
    }
}

impl Edit {
    pub fn is_full(&self) -> bool {
        const BLOCKS_MAX: usize = 16;
        self.blocks.len() >= BLOCKS_MAX
    }

    pub fn write(
        &self,
        blocks: &TransactionalTree,
        facets: &TransactionalTree,
    ) -> Result<(), UnabortableTransactionError> {
        for (start, block) in &self.blocks {
            match block.is_empty() {
                true => blocks.remove(start.as_slice())?,
                false => blocks.insert(start.as_slice(), block.encoded())?,
            };
        }
        for (name, values) in &self.facets {
            facets.insert(&name.to_be_bytes(), values.as_bytes())?;
        }
        Ok(())
    }
}

/// Keys in the log, in its order or in the opposite one, each once.
pub(super) struct Keys {
    blocks: Option<sled::Iter>,
    reading: Reading,
    wanted: Wanted,
    from: Vec<u8>,
    to: Vec<u8>,
    direction: Direction,
    last: Option<Vec<u8>>,
    found: std::vec::IntoIter<Vec<u8>>,
}

impl Iterator for Keys {
    type Item = sled::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(key) = self.found.next() {
                // A block that was divided meanwhile may come twice.
                if self.is_behind_the_last(&key) {
                    self.last = Some(key.clone());
                    return Some(Ok(key));
                }
                continue;
            }
            match self.next_block() {
                ControlFlow::Continue(Ok(found)) => self.found = found.into_iter(),
                ControlFlow::Continue(Err(cause)) => return Some(Err(cause)),
                ControlFlow::Break(()) => return None,
            }
        }
    }
}

impl Keys {
    fn next_block(&mut self) -> ControlFlow<(), sled::Result<Vec<Vec<u8>>>> {
        let next = self
            .blocks
            .as_mut()
            .and_then(|blocks| match self.direction {
                Direction::Ascending => blocks.next(),
                Direction::Descending => blocks.next_back(),
            });
        let Some(entry) = next else {
            return ControlFlow::Break(());
        };
        ControlFlow::Continue(entry.and_then(|(start, block)| self.wanted_of(&start, &block)))
    }

    fn wanted_of(&mut self, start: &IVec, block: &IVec) -> sled::Result<Vec<Vec<u8>>> {
        self.reading.has_read(start, block.len())?;
        let within = |key: &[u8]| key >= self.from.as_slice() && key < self.to.as_slice();
        let mut found: Vec<Vec<u8>> = rows(block)
            .flatten()
            .filter(|row| self.wanted.includes(row) && within(row.key))
            .map(|row| row.key.to_vec())
            .collect();
        if self.direction == Direction::Descending {
            found.reverse();
        }
        Ok(found)
    }

    fn is_behind_the_last(&self, key: &[u8]) -> bool {
        match (&self.last, self.direction) {
            (None, _) => true,
            (Some(last), Direction::Ascending) => key > last.as_slice(),
            (Some(last), Direction::Descending) => key < last.as_slice(),
        }
    }
}
