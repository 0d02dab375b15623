//! Which part of the matching records is wanted, in which order; sorting is bounded in memory.

use std::collections::BinaryHeap;

use bson::{RawDocument, RawDocumentBuf};
use serde::{Deserialize, Serialize};

use super::{RecordFilter, Store};
use crate::error::{Error, Result};

/// Records that are sorted by anything but time, without a limit: some 250 bytes each are held.
const SORTED_MAX: usize = 200_000;
/// Longer texts are told apart by the record's time.
const SORT_KEY_BYTES_MAX: usize = 160;

/// What records are sorted by. Equal ones stand by the time they were logged, then by id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SortBy {
    #[default]
    LoggedAt,
    /// When the losing write was made.
    LostAt,
    Namespace,
    Kind,
    Winner,
    Status,
    /// Bytes of the record.
    Size,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    #[default]
    Ascending,
    Descending,
}

/// A part of the matching records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Page {
    pub sort: SortBy,
    pub direction: Direction,
    /// Records passed over first.
    pub offset: u64,
    /// None: all that follow.
    pub limit: Option<u64>,
}

pub type Records = Box<dyn Iterator<Item = Result<RawDocumentBuf>> + Send>;

impl Store {
    /// The matching records of a page; one at a time is in memory, and where they are not sorted by
    /// the time they were logged, what they are sorted by. Nothing is read before the first is taken.
    pub fn page(&self, filter: &RecordFilter, page: Page) -> Records {
        let taken = usize::try_from(page.limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let passed = usize::try_from(page.offset).unwrap_or(usize::MAX);
        match (page.sort, page.direction) {
            (SortBy::LoggedAt, Direction::Ascending) => {
                Box::new(self.records(filter).skip(passed).take(taken))
            }
            (SortBy::LoggedAt, Direction::Descending) => Box::new(
                self.matching(filter, Direction::Descending)
                    .skip(passed)
                    .take(taken),
            ),
            (
                SortBy::LostAt
                | SortBy::Namespace
                | SortBy::Kind
                | SortBy::Winner
                | SortBy::Status
                | SortBy::Size,
                _,
            ) => {
                let (store, filter) = (self.clone(), filter.clone());
                let sorted = std::iter::once_with(move || {
                    match store.sorted_within(&filter, page, SORTED_MAX) {
                        Ok(records) => records,
                        Err(error) => Box::new(std::iter::once(Err(error))),
                    }
                });
                Box::new(sorted.flatten())
            }
        }
    }

    pub(super) fn sorted_within(
        &self,
        filter: &RecordFilter,
        page: Page,
        most: usize,
    ) -> Result<Records> {
        let last = page.limit.and_then(|limit| limit.checked_add(page.offset));
        let last = last.and_then(|last| usize::try_from(last).ok());
        let kept = last.unwrap_or(usize::MAX).min(most);
        let mut found = BinaryHeap::new();
        for record in self.records(filter) {
            let record = record?;
            found.push(sort_key(&record, page)?);
            if found.len() > kept {
                if last.is_none_or(|last| last > most) {
                    return Err(too_many(most));
                }
                found.pop();
            }
        }
        let passed = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let store = self.clone();
        let keys = found.into_sorted_vec().into_iter().skip(passed);
        // A record may have been removed meanwhile.
        Ok(Box::new(keys.filter_map(move |(_, key)| {
            store.record_at(&key).transpose()
        })))
    }
}

fn too_many(most: usize) -> Error {
    Error::usage(format!("more than {most} records match, too many to sort"))
        .hint("narrow it, give a --limit, or leave out --sort: by time any number is shown")
}

type SortKey = (Vec<u8>, Vec<u8>);

/// Sorts as the page wants it, equal records too.
fn sort_key(record: &RawDocument, page: Page) -> Result<SortKey> {
    let text = |name: &str| {
        let bytes = record.get_str(name).unwrap_or_default().as_bytes();
        bytes[..bytes.len().min(SORT_KEY_BYTES_MAX)].to_vec()
    };
    let mut key = match page.sort {
        SortBy::LoggedAt => Vec::new(),
        SortBy::LostAt => {
            let losing = record.get_document("losing").ok();
            let at = losing.and_then(|losing| losing.get_datetime("wall_time").ok());
            at.map_or_else(Vec::new, |at| super::log::time_key(at).to_vec())
        }
        SortBy::Namespace => text("namespace"),
        SortBy::Kind => text("kind"),
        SortBy::Winner => text("winner"),
        SortBy::Status => text("status"),
        SortBy::Size => record.as_bytes().len().to_be_bytes().to_vec(),
    };
    match page.direction {
        Direction::Ascending => key.push(0),
        Direction::Descending => {
            key.iter_mut().for_each(|byte| *byte = !*byte);
            key.push(u8::MAX);
        }
    }
    Ok((key, super::log::record_key(record)?))
}

#[cfg(test)]
mod tests;
