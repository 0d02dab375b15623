//! Reading much of the store with little memory.

/// Read before a page is asked for once more.
const BYTES_PER_ACCESS: usize = 1024;

/// Has sled put what was read out of memory again. Its cache has 256 parts, and each of them looks
/// at its size only once its pages were asked for 64 times: where each page is asked for once, 16,384
/// of them stay whatever the capacity, and pages have no bound in bytes. So each page is asked for
/// as often as it is large.
pub(super) struct Reading {
    tree: sled::Tree,
    owed: usize,
}

impl Reading {
    pub fn of(tree: &sled::Tree) -> Self {
        Self {
            tree: tree.clone(),
            owed: 0,
        }
    }

    /// To be called for each entry, after it was read.
    pub fn has_read(&mut self, key: &[u8], bytes: usize) -> sled::Result<()> {
        self.owed += bytes;
        while self.owed >= BYTES_PER_ACCESS {
            self.owed -= BYTES_PER_ACCESS;
            self.tree.contains_key(key)?;
        }
        Ok(())
    }
}
