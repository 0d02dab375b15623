//! A load on both sides for as long as something else happens, and its account in the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::compare::{assert_converged_by, contents};
use super::env::TestEnv;
use super::oracle::History;
use super::tandem::Tandem;
use super::workload::{Workload, documents_of};

/// Applications that write until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: JoinHandle<History>,
}

impl Load {
    /// Few documents, so that the sides meet; the pause leaves the machine to the test.
    pub fn steady(seed: u64) -> Workload {
        const KEYS: u32 = 300;
        const PAUSE: Duration = Duration::from_millis(20);
        Workload::new(seed, 1).keys(KEYS).pause(PAUSE)
    }

    pub fn start(env: &TestEnv, workload: Workload) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let workload = workload.until(stop.clone());
        let (a, b) = (env.a.client().clone(), env.b.client().clone());
        let writers = tokio::spawn(async move { workload.run(&a, &b).await });
        Self { stop, writers }
    }

    /// Ends the writing; gives what was written.
    pub async fn stop(self) -> History {
        self.stop.store(true, Ordering::SeqCst);
        self.writers.await.expect("the writers end well")
    }

    /// Ends the writing, waits for equal clusters and settles the account.
    pub async fn settle(self, env: &TestEnv, tandem: &Tandem, deadline: Duration) {
        let history = self.stop().await;
        assert_settled(&history, env, tandem, deadline).await;
    }
}

/// Both clusters become equal, and every write of `history` is accounted for.
pub async fn assert_settled(history: &History, env: &TestEnv, tandem: &Tandem, deadline: Duration) {
    assert_converged_by(tandem, env, deadline).await;
    let documents = documents_of(&contents(env.a.client()).await);
    history.assert_accounted(&documents, &tandem.all_conflicts(env).await);
    let (writes, unclear) = (history.writes.len(), history.perhaps.len());
    println!("{writes} writes, {unclear} of unknown outcome");
}
