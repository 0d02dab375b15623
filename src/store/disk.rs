//! Waiting for the disk amid tasks that have other things to wait for.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Runs what may wait for the disk for long. Another thread takes over the tasks of this one
/// meanwhile, where there may be one.
pub(super) fn waiting_for_disk<T>(wait: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(wait),
        _ => wait(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn what_waits_for_the_disk_holds_up_no_other_task() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).build().expect("a runtime");
        let (done, is_done) = mpsc::channel();
        let waits = runtime.spawn(async move {
            tokio::spawn(async move { done.send(()) });
            waiting_for_disk(|| is_done.recv_timeout(Duration::from_secs(20)))
        });
        assert_eq!(runtime.block_on(waits).expect("no panic"), Ok(()));
    }

    #[test]
    fn without_other_threads_it_is_waited_for_all_the_same() {
        assert_eq!(waiting_for_disk(|| 7), 7);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.build().expect("a runtime");
        assert_eq!(runtime.block_on(async { waiting_for_disk(|| 7) }), 7);
    }
}
