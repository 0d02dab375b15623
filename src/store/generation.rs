//! The generation of a store, which counts its seals: what a damaged store lacks, and what an older
//! tandem wrote without an index, is noticed by it.

use std::path::Path;

use super::open::{damaged, sled_error};
use crate::error::Result;

const GENERATION: &[u8] = b"generation";
/// The generation in which the conflict log was known to have its whole index. A tandem that knows
/// of no index goes on counting without it.
const OF_INDEX: &[u8] = b"index_generation";

pub(super) fn generation(dir: &Path, db: &sled::Db) -> Result<u64> {
    stored(dir, db, GENERATION).map(Option::unwrap_or_default)
}

pub(super) fn of_index(dir: &Path, db: &sled::Db) -> Result<Option<u64>> {
    stored(dir, db, OF_INDEX)
}

fn stored(dir: &Path, db: &sled::Db, name: &[u8]) -> Result<Option<u64>> {
    let found = db.get(name).map_err(|cause| sled_error(dir, cause))?;
    let Some(found) = found else {
        return Ok(None);
    };
    let bytes = found.as_ref().try_into();
    bytes
        .map(|bytes| Some(u64::from_be_bytes(bytes)))
        .map_err(|_| damaged(dir, "its generation cannot be read"))
}

pub(super) fn put(db: &sled::Db, generation: u64) -> sled::Result<()> {
    db.insert(GENERATION, &generation.to_be_bytes())?;
    Ok(())
}

/// The same where the conflict log has its whole index.
pub(super) fn put_with_index(db: &sled::Db, generation: u64) -> sled::Result<()> {
    let mut both = sled::Batch::default();
    both.insert(GENERATION, &generation.to_be_bytes());
    both.insert(OF_INDEX, &generation.to_be_bytes());
    db.apply_batch(both)
}

/// From now on the conflict log has no whole index.
pub(super) fn forget_index(db: &sled::Db) -> sled::Result<()> {
    db.remove(OF_INDEX)?;
    Ok(())
}
