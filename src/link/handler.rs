//! Answers the control socket of a running link.

use std::sync::Arc;

use tokio::sync::watch;

use super::control::{Handler, Reply, ReplyFuture, Request, Response};
use super::own::Own;
use crate::change::Pair;
use crate::error::Error;
use crate::pipeline::Shared;
use crate::telemetry::status::LinkStatus;

/// The running link behind the socket.
pub struct LinkHandler {
    shared: Arc<Shared>,
    #[expect(dead_code)]
    own: Pair<Own>,
    status: watch::Receiver<LinkStatus>,
}

impl LinkHandler {
    pub fn new(shared: Arc<Shared>, own: Pair<Own>, status: watch::Receiver<LinkStatus>) -> Self {
        Self {
            shared,
            own,
            status,
        }
    }
}

impl Handler for LinkHandler {
    fn handle(&self, request: Request) -> ReplyFuture<'_> {
        Box::pin(async move {
            match request {
                Request::Status => Ok(Reply::Line(Response::Status {
                    status: Box::new(self.status.borrow().clone()),
                })),
                Request::Records { filter } => Ok(Reply::Records {
                    link: self.shared.facts.link.clone(),
                    complete_since: self.shared.store.complete_since()?,
                    records: Box::new(self.shared.store.records(&filter)),
                }),
                _ => Err(Error::bug("not built yet")),
            }
        })
    }
}
