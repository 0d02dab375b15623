//! Where a running link is asked for a resync, and where it tells how far its merges are.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;

use super::{Job, Merge};
use crate::change::Pair;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::ddl::Worker;
use crate::error::{Error, Result};
use crate::link::control::{Answer, Request, Response, ask};
use crate::link::initial_sync::Progress;
use crate::link::lease::Lease;
use crate::link::own::Own;
use crate::link::reporting::unexpected;
use crate::pipeline::{Shared, insist};

/// How often somebody who waits for a resync asks how far it is.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// The initial sync or resync of a link: one at a time.
#[derive(Clone)]
pub struct Desk {
    current: Arc<Mutex<Option<Arc<Progress>>>>,
    jobs: mpsc::Sender<(Job, Arc<Progress>)>,
}

/// Where accepted jobs come out.
pub struct Jobs(mpsc::Receiver<(Job, Arc<Progress>)>);

/// What every merge of a process needs.
pub struct MergePlace {
    pub config: Config,
    pub shared: Arc<Shared>,
    pub clusters: Pair<Cluster>,
    pub own: Pair<Own>,
    pub lease: Lease,
    pub worker: Arc<Worker>,
}

impl MergePlace {
    async fn run(&self, job: Job, progress: Arc<Progress>) -> Result<()> {
        let merge = Merge {
            config: self.config.clone(),
            shared: self.shared.clone(),
            clusters: self.clusters.clone(),
            own: self.own.clone(),
            lease: self.lease.clone(),
            worker: self.worker.clone(),
            job,
            progress,
        };
        merge.run().await
    }
}

impl Desk {
    /// `current` is what goes on from the start of the process.
    pub fn new(current: Option<Arc<Progress>>) -> (Self, Jobs) {
        let (jobs, accepted) = mpsc::channel(1);
        let current = Arc::new(Mutex::new(current));
        (Self { current, jobs }, Jobs(accepted))
    }

    /// The last one; none where there was none.
    pub fn current(&self) -> Option<Arc<Progress>> {
        let current = self.current.lock();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn is_busy(&self) -> bool {
        let current = self.current();
        current.is_some_and(|progress| !progress.is_done())
    }

    /// Accepts a resync.
    ///
    /// # Errors
    /// A usage error (2) while another one, or the initial sync, goes on.
    pub fn accept(&self, job: Job) -> Result<()> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = || {
            Error::usage("the initial sync or another resync is going on")
                .hint("`tandem status` says how far it is")
        };
        if current.as_ref().is_some_and(|progress| !progress.is_done()) {
            return Err(busy());
        }
        let progress = Arc::new(Progress::new("resync"));
        self.jobs
            .try_send((job, progress.clone()))
            .map_err(|_| busy())?;
        *current = Some(progress);
        Ok(())
    }
}

impl Jobs {
    /// Does what a former process has left, and then what is asked for, one after the other.
    ///
    /// # Errors
    /// As [`Merge::run`].
    pub async fn serve(
        mut self,
        place: MergePlace,
        left: Option<(Arc<Progress>, Job)>,
    ) -> Result<()> {
        if let Some((progress, job)) = left {
            place.run(job, progress).await?;
        }
        while let Some((job, progress)) = self.0.recv().await {
            let link = &place.config.link.name;
            insist(|| job.put_on_record(&place.own.b, link, &place.lease)).await?;
            place.run(job, progress).await?;
        }
        Ok(())
    }
}

/// Has the running link do a resync and waits for its end, with a line now and then to `out`.
/// None where no link runs; else its last numbers.
///
/// # Errors
/// As [`Desk::accept`]; a cluster error (4) where the link ends before the resync does.
pub async fn resync_from_outside(
    config: &Config,
    job: &Job,
    mut out: impl Write,
) -> Result<Option<Value>> {
    let state_dir = &config.link.state_dir;
    let request = Request::Resync { job: job.clone() };
    match ask(state_dir, &request).await? {
        None => return Ok(None),
        Some(Answer::Line(Response::Done { .. })) => {}
        Some(Answer::Line(response)) => return Err(unexpected(&response)),
        Some(Answer::Records(_)) => return Err(Error::bug("records for an order")),
    }
    let mut last = String::new();
    loop {
        tokio::time::sleep(ASK_INTERVAL).await;
        let numbers = match ask(state_dir, &Request::SyncProgress).await? {
            Some(Answer::Line(Response::SyncProgress { numbers })) => numbers,
            Some(Answer::Line(response)) => return Err(unexpected(&response)),
            Some(Answer::Records(_)) | None => {
                return Err(Error::unreachable("the running tandem has ended meanwhile")
                    .hint("the next `tandem run` goes on with the resync"));
            }
        };
        if numbers["state"] == "done" {
            return Ok(Some(numbers));
        }
        let line = super::repair::progress_line(&numbers);
        if line != last {
            let _ = writeln!(out, "{line}");
            last = line;
        }
    }
}
