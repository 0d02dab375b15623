//! The local stores of a schedule's two hosts.

use std::path::{Path, PathBuf};

use tandem::store::Store;
use tempfile::TempDir;

use crate::schedule::Schedule;

/// In one of so many schedules each process opens its store itself, and its control socket. That takes
/// as long as all the rest; in the others the stores stay open, empty in the beginning.
const OPENED_ONCE_IN: u64 = 32;

/// Those of one thread.
struct Kept {
    stores: [Store; 2],
    _folder: TempDir,
}

thread_local! {
    static KEPT: Kept = kept();
}

fn kept() -> Kept {
    let folder = folder();
    let stores = [0, 1].map(|host| {
        let dir = state_dir(folder.path(), host);
        Store::open_for_a_trial(&dir).expect("a store")
    });
    Kept {
        stores,
        _folder: folder,
    }
}

pub fn opens_its_own(schedule: &Schedule) -> bool {
    schedule.seed.is_multiple_of(OPENED_ONCE_IN)
}

/// By host; none where each process opens its own.
pub fn stores(schedule: &Schedule) -> [Option<Store>; 2] {
    if opens_its_own(schedule) {
        return [None, None];
    }
    KEPT.with(|kept| {
        for store in &kept.stores {
            store.clear_link().expect("an empty store");
        }
        kept.stores.clone().map(Some)
    })
}

/// A folder in memory: nothing of it has to outlive the machine.
pub fn folder() -> TempDir {
    let shm = Path::new("/dev/shm");
    let folder = match shm.is_dir() {
        true => tempfile::Builder::new()
            .prefix("tandem-sim")
            .tempdir_in(shm),
        false => tempfile::tempdir(),
    };
    folder.expect("a folder")
}

pub fn state_dir(folder: &Path, host: usize) -> PathBuf {
    folder.join(format!("state-{host}"))
}
