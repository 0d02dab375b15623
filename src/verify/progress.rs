//! Which ranges are compared already: a file that an interrupted comparison goes on from.
//!
//! A file and not the store, which a running link holds. It is a row of BSON documents, and only
//! ever added to; what an abrupt end cut off at its end is passed over.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use bson::{RawArrayBuf, RawBson, RawDocument, Uuid, cstr, rawdoc};

use crate::change::{DocumentKey, Namespace, Pair};
use crate::error::{Error, Result};
use crate::ranges::Range;

/// Changes with what the documents of the file hold.
const FORMAT: i32 = 1;
const FILE_NAME: &str = "verify.progress";
const LENGTH_BYTES: usize = 4;

/// How a namespace was cut, and which of its ranges are done.
#[derive(Debug, Default)]
pub struct Former {
    pub uuids: Pair<Option<Uuid>>,
    pub ranges: Vec<Range>,
    pub done: HashMap<usize, Done>,
}

/// A range that was compared to its end.
#[derive(Debug, Clone, Default)]
pub struct Done {
    pub documents: Pair<u64>,
    /// What differed; it is looked at again.
    pub differing: Vec<DocumentKey>,
}

/// The file, open to be added to.
pub struct Progress {
    path: PathBuf,
    file: File,
}

impl Progress {
    /// Starts anew.
    ///
    /// # Errors
    /// A store error where the file cannot be written.
    pub fn begin(state_dir: &Path, link: &str) -> Result<Progress> {
        let path = state_dir.join(FILE_NAME);
        let opened = fs::create_dir_all(state_dir).and_then(|()| File::create(&path));
        let file = opened.map_err(|cause| failed(&path, "write").caused_by(cause))?;
        let mut progress = Progress { path, file };
        progress.add(&rawdoc! { "format": FORMAT, "link": link })?;
        Ok(progress)
    }

    /// Goes on from an interrupted comparison of the same link; starts anew where there is none.
    ///
    /// # Errors
    /// A store error where the file cannot be read or written.
    pub fn resume(state_dir: &Path, link: &str) -> Result<(Progress, HashMap<Namespace, Former>)> {
        let path = state_dir.join(FILE_NAME);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(cause) => return Err(failed(&path, "read").caused_by(cause)),
        };
        let (documents, whole_bytes) = documents_in(&bytes);
        let ours = documents.first().is_some_and(|head| {
            matches!(head.get_i32("format"), Ok(FORMAT))
                && head.get_str("link").is_ok_and(|named| named == link)
        });
        if !ours {
            return Ok((Self::begin(state_dir, link)?, HashMap::new()));
        }
        let mut former: HashMap<Namespace, Former> = HashMap::new();
        for document in &documents[1..] {
            take(&mut former, document)?;
        }
        let opened = OpenOptions::new().append(true).open(&path);
        let file = opened.map_err(|cause| failed(&path, "write").caused_by(cause))?;
        let cut = file.set_len(whole_bytes as u64);
        cut.map_err(|cause| failed(&path, "write").caused_by(cause))?;
        Ok((Progress { path, file }, former))
    }

    /// Remembers how a namespace is cut.
    ///
    /// # Errors
    /// A store error.
    pub fn cut(
        &mut self,
        namespace: &Namespace,
        uuids: Pair<Option<Uuid>>,
        ranges: &[Range],
    ) -> Result<()> {
        let mut list = RawArrayBuf::new();
        for range in ranges {
            list.push(range.to_document());
        }
        let mut document = rawdoc! { "namespace": namespace.as_str() };
        for (name, uuid) in [(cstr!("a"), uuids.a), (cstr!("b"), uuids.b)] {
            if let Some(uuid) = uuid {
                document.append(name, bson::Binary::from(uuid));
            }
        }
        document.append(cstr!("ranges"), list);
        self.add(&document)
    }

    /// Remembers that the range with this number is done. The last word on a range counts.
    ///
    /// # Errors
    /// A store error.
    pub fn done(&mut self, namespace: &Namespace, number: usize, done: &Done) -> Result<()> {
        let mut differing = RawArrayBuf::new();
        for key in &done.differing {
            differing.push(key.raw().to_owned());
        }
        let document = rawdoc! {
            "namespace": namespace.as_str(),
            "done": number as i64,
            "documents": [done.documents.a as i64, done.documents.b as i64],
            "differing": differing,
        };
        self.add(&document)
    }

    /// Everything was compared.
    ///
    /// # Errors
    /// A store error.
    pub fn finish(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|cause| failed(&self.path, "remove").caused_by(cause))
    }

    fn add(&mut self, document: &RawDocument) -> Result<()> {
        let written = self.file.write_all(document.as_bytes());
        written.map_err(|cause| failed(&self.path, "write").caused_by(cause))
    }
}

/// All whole documents, and how many bytes they take.
fn documents_in(bytes: &[u8]) -> (Vec<&RawDocument>, usize) {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(length) = bytes.get(at..at + LENGTH_BYTES) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let whole = bytes.get(at..at.saturating_add(length));
        let Some(Ok(document)) = whole.map(RawDocument::from_bytes) else {
            break;
        };
        found.push(document);
        at += length;
    }
    (found, at)
}

fn take(former: &mut HashMap<Namespace, Former>, document: &RawDocument) -> Result<()> {
    let unreadable = || {
        Error::store("the progress of the last comparison cannot be read")
            .hint("run `tandem verify` without --resume")
    };
    let namespace = document
        .get_str("namespace")
        .ok()
        .and_then(Namespace::parse);
    let namespace = namespace.ok_or_else(unreadable)?;
    if let Ok(ranges) = document.get_array("ranges") {
        let uuid = |name: &str| {
            let binary = document.get_binary(name).ok()?;
            Uuid::from_bytes(binary.bytes.try_into().ok()?).into()
        };
        let mut found = Former {
            uuids: Pair::new(uuid("a"), uuid("b")),
            ..Former::default()
        };
        for range in ranges.into_iter().flatten() {
            let range = range.as_document().ok_or_else(unreadable)?;
            found.ranges.push(Range::from_document(range)?);
        }
        former.insert(namespace, found);
        return Ok(());
    }
    let number = document.get_i64("done").map_err(|_| unreadable())?;
    let done = done_in(&namespace, document).ok_or_else(unreadable)?;
    if let Some(known) = former.get_mut(&namespace) {
        known.done.insert(number as usize, done);
    }
    Ok(())
}

fn done_in(namespace: &Namespace, document: &RawDocument) -> Option<Done> {
    let counts = document.get_array("documents").ok()?;
    let mut counts = counts.into_iter().flatten().map(RawBson::from);
    let mut count = || match counts.next() {
        Some(RawBson::Int64(count)) => u64::try_from(count).ok(),
        _ => None,
    };
    let documents = Pair::new(count()?, count()?);
    let keys = document.get_array("differing").ok()?.into_iter().flatten();
    let differing = keys
        .map(|key| DocumentKey::of(namespace, key.as_document()?))
        .collect::<Option<Vec<_>>>()?;
    Some(Done {
        documents,
        differing,
    })
}

fn failed(path: &Path, doing: &str) -> Error {
    Error::store(format!("cannot {doing} {}", path.display()))
        .hint("is the state directory writable, and is there room on its disk?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path) -> Namespace {
        let namespace = Namespace::new("shop", "orders");
        let mut progress = Progress::begin(dir, "eu-us").unwrap();
        let uuids = Pair::new(Some(Uuid::from_bytes([7; 16])), None);
        let cut = Range {
            min: None,
            max: Some(RawBson::Double(1.5)),
        };
        let rest = Range {
            min: cut.max.clone(),
            max: None,
        };
        progress.cut(&namespace, uuids, &[cut, rest]).unwrap();
        let done = Done {
            documents: Pair::new(3, 2),
            differing: DocumentKey::of(&namespace, &rawdoc! { "_id": 1.0 })
                .into_iter()
                .collect(),
        };
        progress.done(&namespace, 1, &done).unwrap();
        namespace
    }

    #[test]
    fn an_interrupted_comparison_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let namespace = written(dir.path());
        let path = dir.path().join(FILE_NAME);
        let mut torn = fs::read(&path).unwrap();
        let whole = torn.len();
        torn.extend([40, 0, 0, 0, 1, 2]);
        fs::write(&path, torn).unwrap();

        let (progress, former) = Progress::resume(dir.path(), "eu-us").unwrap();
        let found = &former[&namespace];
        assert_eq!(
            found.uuids,
            Pair::new(Some(Uuid::from_bytes([7; 16])), None)
        );
        assert_eq!(found.ranges.len(), 2);
        assert_eq!(found.ranges[1].min, Some(RawBson::Double(1.5)));
        assert_eq!(found.done[&1].documents, Pair::new(3, 2));
        assert_eq!(found.done[&1].differing[0].raw(), &*rawdoc! { "_id": 1.0 });
        assert_eq!(fs::metadata(&path).unwrap().len(), whole as u64);
        progress.finish().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn the_progress_of_another_link_is_not_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let (_, former) = Progress::resume(dir.path(), "other").unwrap();
        assert!(former.is_empty());
    }
}
