//! Opening the store: directory, format, lock, and what to say where it cannot be opened.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};

use super::generation::{generation, of_index};
use crate::error::{Error, Result};
use crate::telemetry::panics;

/// Raised when an older tandem could misread what this one writes.
const FORMAT: u32 = 1;
const MARKER: &str = "store.format";
const MARKER_NEW: &str = "store.format.new";
const SLED_DIR: &str = "store";
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// sled asks for a gigabyte unless told; the conflict log is read in order and needs little.
const CACHE_BYTES_MAX: u64 = 16 * 1024 * 1024;
const META_FORMAT: &[u8] = b"format";
const META_STORE_ID: &[u8] = b"store_id";

/// The standard library names these by kinds that are not stable or not apart.
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

const REBUILD_HINT: &str = "nothing lies in the store alone: move the state directory's `store` \
     and `store.format` away, and tandem rebuilds it from the clusters at its next start";

/// The cause of an error that says another process holds the store.
#[derive(Debug)]
pub struct Locked;

impl fmt::Display for Locked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("another process holds its lock")
    }
}

impl std::error::Error for Locked {}

/// Whether `error` says that another process holds the store.
pub fn is_locked(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<Locked>())
}

/// Whether what is written has to outlive the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    OnDisk,
    /// No longer than the store is open.
    WhileOpen,
}

pub(super) struct Opened {
    pub db: sled::Db,
    pub store_id: String,
    pub generation: u64,
    /// That of the index of the conflict log.
    pub index_generation: Option<u64>,
}

/// What stands in the format file.
struct Marked {
    store_id: String,
    /// What sled must know at least; 0 where nothing was sealed yet.
    generation: u64,
}

/// sled panics over some of what it cannot read, there and when its trees are opened, and over
/// threads that it does not get.
pub(super) fn guarded<T>(dir: &Path, opening: impl FnOnce() -> Result<T>) -> Result<T> {
    match panics::caught(opening) {
        Ok(opened) => opened,
        Err(text) => Err(match os_error_in(&text) {
            Some(cause) => io_error(dir, cause),
            None => unreadable(dir),
        }),
    }
}

/// sled does not tell damage from a want of memory in all of its panics.
fn unreadable(dir: &Path) -> Error {
    Error::store(format!("the store in {} cannot be read", dir.display())).hint(format!(
        "{REBUILD_HINT}; first see that this process is not short of memory or threads (`ulimit -a`)"
    ))
}

/// The error behind a panic of sled, which has threads of its own; none where it is another's.
pub fn failure_of(info: &PanicHookInfo<'_>) -> Option<Error> {
    let by_place = info
        .location()
        .is_some_and(|at| at.file().contains("/sled-"));
    let by_thread = std::thread::current()
        .name()
        .is_some_and(|name| name.starts_with("sled-"));
    if !by_place && !by_thread {
        return None;
    }
    let error = Error::store("the local store cannot be used any more");
    Some(match os_error_in(panics::text(info.payload())) {
        Some(cause) => error.hint(disk_hint(&cause)).caused_by(cause),
        None => error.hint(REBUILD_HINT),
    })
}

/// The system's refusal that an unwrapped error quotes, or that sled asserts against.
fn os_error_in(panicked_with: &str) -> Option<io::Error> {
    if panicked_with.contains("failed to allocate") {
        return Some(io::Error::from_raw_os_error(ENOMEM));
    }
    let (_, rest) = panicked_with.split_once("Os { code: ")?;
    let code = rest.split(',').next()?.parse().ok()?;
    Some(io::Error::from_raw_os_error(code))
}

/// The marker is kept outside of sled, which drops what it cannot read without a word: a marker
/// without its store tells that something was lost.
pub(super) fn open(dir: &Path, lasting: Lasting) -> Result<Opened> {
    create_dir(dir)?;
    let marker = read_marker(dir)?;
    create_dir(&dir.join(SLED_DIR))?;
    let db = open_sled(dir, lasting)?;
    let store_id = match (stored_id(dir, &db)?, marker) {
        (None, Some(_)) => return Err(damaged(dir, "its content is gone")),
        (Some(id), Some(marked)) if id != marked.store_id => {
            return Err(damaged(dir, "it is not the one that its format file names"));
        }
        (Some(_), Some(marked)) if generation(dir, &db)? < marked.generation => {
            return Err(damaged(dir, "a part of what was written to it is gone"));
        }
        (Some(id), Some(_)) => id,
        (Some(id), None) => {
            write_marker(dir, &id, generation(dir, &db)?)?;
            id
        }
        (None, None) => {
            let id = bson::Uuid::new().to_string();
            initialise(dir, &db, &id)?;
            write_marker(dir, &id, 0)?;
            id
        }
    };
    restrict_files(&dir.join(SLED_DIR)).map_err(|cause| io_error(dir, cause))?;
    let generation = generation(dir, &db)?;
    let index_generation = of_index(dir, &db)?;
    Ok(Opened {
        db,
        store_id,
        generation,
        index_generation,
    })
}

/// The file's own data first: sled does not wait for the disk's cache.
pub(super) fn remember_generation(dir: &Path, id: &str, generation: u64) -> Result<()> {
    let synced = fs::File::open(dir.join(SLED_DIR).join("db")).and_then(|file| file.sync_all());
    synced.map_err(|cause| io_error(dir, cause))?;
    write_marker(dir, id, generation)
}

pub(super) fn exists(dir: &Path) -> bool {
    dir.join(MARKER).exists() || dir.join(SLED_DIR).join("db").exists()
}

fn initialise(dir: &Path, db: &sled::Db, id: &str) -> Result<()> {
    db.insert(META_STORE_ID, id)
        .and_then(|_| db.insert(META_FORMAT, FORMAT.to_string().as_bytes()))
        .and_then(|_| db.flush())
        .map_err(|cause| sled_error(dir, cause))?;
    Ok(())
}

fn stored_id(dir: &Path, db: &sled::Db) -> Result<Option<String>> {
    let read = |name| db.get(name).map_err(|cause| sled_error(dir, cause));
    let (format, id) = (read(META_FORMAT)?, read(META_STORE_ID)?);
    let Some(format) = format else {
        return Ok(None);
    };
    check_format(dir, &String::from_utf8_lossy(&format))?;
    let id = id.ok_or_else(|| damaged(dir, "its id is gone"))?;
    Ok(Some(String::from_utf8_lossy(&id).into_owned()))
}

fn check_format(dir: &Path, format: &str) -> Result<()> {
    match format.parse::<u32>() {
        Ok(format) if format > FORMAT => Err(Error::store(format!(
            "the store in {} has format {format}, this tandem knows formats up to {FORMAT}",
            dir.display()
        ))
        .hint("run the newer tandem that wrote it, or use another state directory")),
        Ok(FORMAT) => Ok(()),
        Ok(older) => Err(Error::store(format!(
            "the store in {} has format {older}, which this tandem no longer reads",
            dir.display()
        ))
        .hint(REBUILD_HINT)),
        Err(_) => Err(damaged(dir, "its format cannot be read")),
    }
}

fn read_marker(dir: &Path) -> Result<Option<Marked>> {
    let text = match fs::read(dir.join(MARKER)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(io_error(dir, cause)),
    };
    let mut words = text.split_whitespace();
    check_format(dir, words.next().unwrap_or_default())?;
    let id = words.next();
    // A store that no run has sealed yet has no third word.
    let generation = words.next().map_or(Some(0), |word| word.parse().ok());
    match (id, generation) {
        (Some(id), Some(generation)) => Ok(Some(Marked {
            store_id: id.to_owned(),
            generation,
        })),
        (_, _) => Err(damaged(dir, "its format file cannot be read")),
    }
}

fn write_marker(dir: &Path, id: &str, generation: u64) -> Result<()> {
    let write = || -> io::Result<()> {
        let new = dir.join(MARKER_NEW);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(&new)?;
        writeln!(file, "{FORMAT} {id} {generation}")?;
        file.sync_all()?;
        fs::rename(&new, dir.join(MARKER))?;
        fs::File::open(dir)?.sync_all()
    };
    write().map_err(|cause| io_error(dir, cause))
}

fn open_sled(dir: &Path, lasting: Lasting) -> Result<sled::Db> {
    let mut config = sled::Config::new()
        .path(dir.join(SLED_DIR))
        .cache_capacity(CACHE_BYTES_MAX)
        .mode(sled::Mode::LowSpace);
    if lasting == Lasting::WhileOpen {
        config = config.flush_every_ms(None);
    }
    config.open().map_err(|cause| sled_error(dir, cause))
}

fn create_dir(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIR_MODE)
        .create(dir)
        .map_err(|cause| io_error(dir, cause))
}

/// sled creates its files by the process's umask, in a directory that only we can enter.
fn restrict_files(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(DIR_MODE))?;
    for entry in fs::read_dir(dir)? {
        let path: PathBuf = entry?.path();
        let restricted = if path.is_dir() {
            restrict_files(&path)
        } else {
            fs::set_permissions(&path, Permissions::from_mode(FILE_MODE))
        };
        match restricted {
            Err(cause) if cause.kind() == ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

pub(super) fn damaged(dir: &Path, what: impl fmt::Display) -> Error {
    Error::store(format!("the store in {} is damaged: {what}", dir.display())).hint(REBUILD_HINT)
}

pub(super) fn sled_error(dir: &Path, cause: sled::Error) -> Error {
    match cause {
        sled::Error::Io(cause) if is_lock_error(&cause) => {
            Error::store(format!("the store in {} is locked", dir.display()))
                .caused_by(Locked)
                .hint("another tandem runs on this state directory")
        }
        sled::Error::Io(cause) if cause.kind() == ErrorKind::UnexpectedEof => damaged(dir, cause),
        sled::Error::Io(cause) if cause.kind() == ErrorKind::InvalidData => damaged(dir, cause),
        sled::Error::Io(cause) => io_error(dir, cause),
        sled::Error::Corruption { .. } => damaged(dir, "its checksums are wrong"),
        sled::Error::ReportableBug(_)
        | sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_) => damaged(dir, cause),
    }
}

/// sled tells a lock that is held only in words.
fn is_lock_error(cause: &io::Error) -> bool {
    cause.to_string().contains("could not acquire lock")
}

pub(super) fn io_error(dir: &Path, cause: io::Error) -> Error {
    // sled hands on copies of an error, which only quote it.
    let cause = os_error_in(&cause.to_string()).unwrap_or(cause);
    let hint = disk_hint(&cause);
    Error::store(format!("cannot use the store in {}", dir.display()))
        .caused_by(cause)
        .hint(hint)
}

/// What to do about an error of the disk.
pub(super) fn disk_hint(cause: &io::Error) -> &'static str {
    match cause.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space on its disk",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "let the user of tandem write there, or choose another state directory"
        }
        _ => match cause.raw_os_error() {
            Some(ENFILE | EMFILE) => "let this process open more files (`ulimit -n`)",
            Some(EAGAIN | ENOMEM) => "let this process have more memory and threads (`ulimit -a`)",
            Some(_) | None => "check the disk, or choose another state directory",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ExitCode;
    use crate::store::Store;
    use crate::store::once_let_go;

    #[test]
    fn what_the_system_refuses_is_told_from_damage() {
        let thread = format!("no thread: {:?}", io::Error::from_raw_os_error(EAGAIN));
        for text in [thread, "failed to allocate critical IO buffer".to_owned()] {
            let opened: Result<()> = guarded(Path::new("state"), || panic!("{text}"));
            let error = opened.unwrap_err();
            assert_eq!(error.exit, ExitCode::Store);
            assert!(!error.to_string().contains("damaged"), "{error}");
            assert!(error.hint.unwrap().contains("ulimit"));
        }
        let opened: Result<()> = guarded(Path::new("state"), || panic!("a page makes no sense"));
        assert!(opened.unwrap_err().hint.unwrap().contains("rebuilds"));
    }

    #[test]
    fn a_store_behind_its_format_file_has_lost_something() {
        let dir = tempfile::tempdir().unwrap();
        let open = || once_let_go(|| Store::open(dir.path()));
        let store = open().unwrap();
        store.seal().unwrap();
        drop(store);
        let store = open().unwrap();
        store.seal().unwrap();
        let id = store.store_id().to_owned();
        drop(store);
        drop(open().unwrap());
        write_marker(dir.path(), &id, 3).unwrap();
        let error = open().err().unwrap();
        assert!(error.to_string().contains("is gone"), "{error}");
    }
}
