//! Events that memory has no room for, in files of the state directory that have no name.
//!
//! They are gone with the process, however it ends: what counts is the cluster's oplog. Nothing is
//! flushed to the disk for the same reason.

mod stored_event;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::open::disk_hint;
use crate::change::{ChangeEvent, SharedEvent};
use crate::error::{Error, Result};
use crate::resolve::Spool;
use stored_event::{read_event, stored};

/// Bytes after which the next file begins: what was read gives its space back in such parts.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Read at once, in the hope that the event is no longer.
const READ_BYTES: usize = 1024;

/// One after the other, as many events as the disk has room for.
#[derive(Debug)]
pub struct SpoolFiles {
    dir: PathBuf,
    file_bytes_max: u64,
    files: VecDeque<Part>,
    /// The place behind the last event.
    end: u64,
}

#[derive(Debug)]
struct Part {
    file: File,
    begins: u64,
}

impl SpoolFiles {
    /// Files are made in `state_dir` once there is something to keep.
    pub fn new(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.to_owned(),
            file_bytes_max: FILE_BYTES_MAX,
            files: VecDeque::new(),
            end: 0,
        }
    }

    /// The file that the next event goes to.
    fn last(&mut self) -> io::Result<&Part> {
        let is_full = |part: &Part| self.end - part.begins >= self.file_bytes_max;
        if self.files.back().is_none_or(is_full) {
            self.files.push_back(Part {
                file: tempfile::tempfile_in(&self.dir)?,
                begins: self.end,
            });
        }
        Ok(self.files.back().expect("just made"))
    }

    fn bytes_at(&self, place: u64) -> io::Result<Vec<u8>> {
        let behind = self.files.partition_point(|part| part.begins <= place);
        let part = behind.checked_sub(1).map(|at| &self.files[at]);
        let part = part.ok_or(io::ErrorKind::NotFound)?;
        let at = place - part.begins;
        let mut bytes = vec![0; READ_BYTES];
        let mut read = 0;
        while read < 4 {
            read += match part.file.read_at(&mut bytes[read..], at + read as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => more,
            };
        }
        let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        bytes.resize(length, 0);
        if read < length {
            let rest = at + read as u64;
            part.file.read_exact_at(&mut bytes[read..], rest)?;
        }
        Ok(bytes)
    }

    fn lost(&self) -> Error {
        Error::store(format!(
            "an event that waits on disk in {} cannot be read",
            self.dir.display()
        ))
        .hint("check the disk; a restart reads it from the cluster again")
    }
}

impl Spool for SpoolFiles {
    fn append(&mut self, event: &ChangeEvent) -> Result<u64> {
        let bytes = stored(event).into_bytes();
        let place = self.end;
        let written = self
            .last()
            .and_then(|part| part.file.write_all_at(&bytes, place - part.begins));
        written.map_err(|cause| {
            Error::store(format!(
                "cannot keep events that wait on disk in {}; nothing is lost",
                self.dir.display()
            ))
            .hint(disk_hint(&cause))
            .caused_by(cause)
        })?;
        self.end += bytes.len() as u64;
        Ok(place)
    }

    fn read(&self, place: u64) -> Result<(SharedEvent, u64)> {
        let bytes = self.bytes_at(place);
        let bytes = bytes.map_err(|cause| self.lost().caused_by(cause))?;
        let next = place + bytes.len() as u64;
        let event = read_event(bytes).ok_or_else(|| self.lost())?;
        Ok((event, next))
    }

    fn release(&mut self, place: u64) {
        if place >= self.end {
            self.files.clear();
            return;
        }
        while self.files.get(1).is_some_and(|part| part.begins <= place) {
            self.files.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
