//! Another number of lanes: every lane is drained to one position, and goes on from there as many
//! lanes as are wanted.
//!
//! A restart counts each event from the checkpoint of its own lane, so the checkpoints of a
//! pipeline may change their number only where they all stand at the same place.

use std::time::Duration;

use bson::{Document, RawDocumentBuf, doc};

use super::checkpoints::{checkpoint_document, checkpoint_id};
use super::history::{History, keeper};
use super::monitor::pipelines_of;
use super::own::Own;
use super::pausing::Pausing;
use super::start::Started;
use super::takeover::lanes_of;
use crate::change::{Pair, PipelineId, Side};
use crate::cluster::errors::{check_reply, classify};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::pipeline::Shared;
use crate::target::TagSession;

const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Whether another number of lanes is configured than the clusters have checkpoints for. During an
/// initial sync, and while a pipeline is paused, it has to wait: one that is held cannot be drained.
pub(super) fn is_due(config: &Config, started: &Started, pausing: &Pausing) -> bool {
    let lanes = started.lane_counts();
    let differs = |pipeline: &PipelineId| lanes[pipeline.source()] != lanes_of(config, *pipeline);
    let is_wanted = PipelineId::BOTH.iter().any(differs);
    let is_syncing = started.initial_sync || started.merge.is_some();
    if is_wanted && is_syncing {
        tracing::warn!("another number of lanes takes effect at a start after the initial sync");
    }
    let is_paused = pausing.must_go_on("it cannot be drained").is_err();
    if is_wanted && is_paused {
        tracing::warn!("another number of lanes takes effect at a start with nothing paused");
    }
    is_wanted && !is_syncing && !is_paused
}

/// Stops both pipelines where their readers are, and returns once that is on record everywhere.
///
/// # Errors
/// As [`Ledger::must_not_stand_amid_a_stretch`] says.
///
/// [`Ledger::must_not_stand_amid_a_stretch`]: crate::resolve::Ledger::must_not_stand_amid_a_stretch
pub(super) async fn drain(config: &Config, shared: &Shared) -> Result<()> {
    tracing::info!("another number of lanes: draining those of before to one position");
    let exchange = &shared.exchange;
    while !exchange.ledger().is_recovered() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let pipelines = pipelines_of(config.link.mode).iter();
    let sides: Vec<Side> = pipelines.map(|pipeline| pipeline.source()).collect();
    for side in &sides {
        exchange.ledger().settle_at_gate(*side);
    }
    exchange.wake_all();
    while !sides.iter().all(|side| exchange.ledger().is_settled(*side)) {
        exchange.ledger().must_not_stand_amid_a_stretch(&sides)?;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Replaces the checkpoints of each pipeline that has another number of lanes than is configured.
/// Both pipelines have been drained, and their lanes have ended.
///
/// # Errors
/// Fenced (8) where another process has taken over; else as the clusters say.
pub(super) async fn replace_checkpoints(
    config: &Config,
    own: &Pair<Own>,
    epoch: i64,
    shared: &Shared,
) -> Result<()> {
    let history = History::read(config, own).await?;
    for pipeline in PipelineId::BOTH {
        let found = &history.checkpoints[pipeline.source()];
        let lanes = lanes_of(config, pipeline);
        if found.len() == lanes {
            continue;
        }
        if found.iter().any(|checkpoint| checkpoint.epoch != epoch) {
            return Err(Error::fenced(format!(
                "another process has taken over link {}",
                config.link.name
            )));
        }
        let link = &config.link.name;
        let at = shared.exchange.ledger().settled_at(pipeline.source());
        let sequence = found.iter().map(|checkpoint| checkpoint.sequence).max();
        let new = (0..lanes).map(|lane| {
            let mut document = checkpoint_document(link, pipeline, lane, lanes, epoch, at.time);
            document.insert("_id", checkpoint_id(link, pipeline, lane));
            document.insert("sequence", sequence.unwrap_or(0));
            document.insert("token", at.token.as_ref());
            document.insert("whole", at.whole);
            document
        });
        let keeper = &own[keeper(config.link.mode, pipeline)];
        let old = doc! { "link": link, "pipeline": pipeline.as_str(), "epoch": epoch };
        replace(keeper, old, new.collect()).await?;
        tracing::info!(
            pipeline = pipeline.as_str(),
            from = found.len(),
            to = lanes,
            "the number of lanes has changed"
        );
    }
    Ok(())
}

/// All of them or none, since a pipeline with some of its checkpoints has lost its history. The
/// session is in no list, so it marks nothing.
async fn replace(own: &Own, old: Document, new: Vec<Document>) -> Result<()> {
    let mut session = TagSession::of_one_transaction(&own.cluster).await?;
    let replaced = replace_in(&mut session, own, old, new).await;
    if replaced.is_err() {
        session.abort().await;
    }
    replaced
}

async fn replace_in(
    session: &mut TagSession,
    own: &Own,
    old: Document,
    new: Vec<Document>,
) -> Result<()> {
    let doing = format!("replace checkpoints on {}", own.cluster.name);
    let removal = doc! { "delete": "checkpoints", "deletes": [{ "q": old, "limit": 0 }] };
    let insertion = doc! { "insert": "checkpoints", "documents": new };
    for command in [removal, insertion] {
        let command = RawDocumentBuf::try_from(&command)
            .map_err(|error| Error::bug("a command that is no BSON").caused_by(error))?;
        let reply = session.run(&own.database, command).await;
        check_reply(&reply.map_err(|failure| classify(failure, &doing))?, &doing)?;
    }
    let reply = session.commit().await;
    check_reply(&reply.map_err(|failure| classify(failure, &doing))?, &doing)
}
