//! Pausing and resuming from outside: by the process that runs the link, or where none runs.

use bson::DateTime;

use super::both_clusters::with_both;
use super::control::{Answer, Request, Response};
use super::monitor::pipelines_of;
use super::own::Own;
use super::pausing::{self, Wanted};
use super::reporting::{Source, open_to_run, source, unexpected};
use super::reset::refuse_a_held_link;
use super::standing::Standing;
use crate::change::{PipelineId, Side};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::store::Store;

/// Has a pipeline paused or resumed, or all of them. Tells what was done, for people.
///
/// # Errors
/// A usage error (2) for a pipeline that the link does not have; 7 where the store cannot be used,
/// 8 where a process on another host holds the link.
pub async fn change_from_outside(
    config: &Config,
    pipeline: Option<PipelineId>,
    wanted: Wanted,
    by: &str,
) -> Result<String> {
    let state_dir = &config.link.state_dir;
    let request = Request::Pause {
        pipeline,
        wanted,
        by: by.to_owned(),
    };
    let store = match source(state_dir, &request).await? {
        Source::Process(Answer::Line(Response::Done { message })) => return Ok(message),
        Source::Process(Answer::Line(response)) => return Err(unexpected(&response)),
        Source::Process(Answer::Records(_)) => {
            return Err(Error::bug("the running tandem sent records for an order"));
        }
        Source::Store(store) => store,
        Source::Nobody => open_to_run(state_dir).await?,
    };
    let outcome = with_both(config, async |clusters| {
        for side in Side::BOTH {
            refuse_a_held_link(config, &clusters[side], Some(store.store_id())).await?;
        }
        let own = clusters
            .as_ref()
            .map(|cluster| Own::new(cluster, &config.link.database));
        let link = &config.link.name;
        let standing = Standing::read(&own, link).await?;
        let all = pipelines_of(standing.in_force(config).link.mode);
        let pipelines = pausing::chosen(all, pipeline)?;
        let (pauses, _) = pausing::read(&store, &own, link).await?;
        let (next, told) = pausing::changed(&pauses, &pipelines, wanted, by, DateTime::now());
        let pauses = next.unwrap_or(pauses);
        store.save_pauses(&pauses)?;
        for side in Side::BOTH {
            pausing::write(&own[side], link, &pauses).await?;
        }
        Ok(told)
    });
    match outcome.await {
        Err(error) if error.is_retryable() => {
            let pipelines = pausing::chosen(pipelines_of(config.link.mode), pipeline)?;
            here_only(&store, &pipelines, wanted, by, &error)
        }
        outcome => outcome,
    }
}

/// What this host keeps counts at its next start, where it is the newest.
fn here_only(
    store: &Store,
    pipelines: &[PipelineId],
    wanted: Wanted,
    by: &str,
    error: &Error,
) -> Result<String> {
    let (next, told) = pausing::changed(&store.pauses()?, pipelines, wanted, by, DateTime::now());
    if let Some(next) = next {
        store.save_pauses(&next)?;
    }
    Ok(format!(
        "{told}\nonly this host knows until its next start, since {error}"
    ))
}
