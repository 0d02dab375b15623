//! What tests need that open a store again which they have just dropped.

use super::is_locked;
use crate::error::Result;

/// sled lets go of its files on a thread of its own, a moment after the last handle is dropped.
pub fn once_let_go<T>(open: impl Fn() -> Result<T>) -> Result<T> {
    const TRIES: usize = 100;
    let pause = || std::thread::sleep(std::time::Duration::from_millis(10));
    for _ in 0..TRIES {
        match open() {
            Err(error) if is_locked(&error) => pause(),
            outcome => return outcome,
        }
    }
    open()
}
