//! Both clusters of a link for a command that needs them for a moment.

use crate::change::{Pair, Side};
use crate::cluster::{Cluster, connect};
use crate::config::Config;
use crate::error::Result;

/// Connects to both clusters, does the work and disconnects, whatever comes of it.
///
/// # Errors
/// As [`connect`], and those of the work.
pub(crate) async fn with_both<T>(
    config: &Config,
    work: impl AsyncFnOnce(&Pair<Cluster>) -> Result<T>,
) -> Result<T> {
    let connected = tokio::join!(connect(config, Side::A), connect(config, Side::B));
    let clusters = match connected {
        (Ok(a), Ok(b)) => Pair::new(a, b),
        (Ok(other), Err(error)) | (Err(error), Ok(other)) => {
            other.shutdown().await;
            return Err(error);
        }
        (Err(error), Err(_)) => return Err(error),
    };
    let outcome = work(&clusters).await;
    clusters.a.shutdown().await;
    clusters.b.shutdown().await;
    outcome
}
