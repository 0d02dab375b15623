//! What each step of a cutover does, and how it tells that it is done.

use std::time::{Duration, Instant};

use bson::Timestamp;

use super::asking::{self, wait_until};
use super::{Comparing, Cutover, Stopping, server};
use crate::change::{PipelineId, Side};
use crate::config::{Mode, duration};
use crate::error::{Class, Error, ExitCode, Result};
use crate::telemetry::status::{LinkState, LinkStatus, Phase, PipelineStatus};
use crate::verify::{Outcome, Reason, Verification, VerifyOptions, verify};

/// How long the source must not have been written to where it does not refuse writes.
const QUIET_TIME: Duration = Duration::from_secs(3);

/// How often a note makes the source's stream move on.
const NOTE_INTERVAL: Duration = Duration::from_millis(250);

/// Two of the status' intervals: what was read before is counted then.
const COUNT_TIME: Duration = Duration::from_millis(500);

/// Nothing is written any more, so what differs stays different.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(15);

/// Differing documents to find before the comparison stops; `tandem verify` shows all of them.
const DIFFERENCES_MAX: usize = 100;

const READERS: usize = 4;

/// Longest time to see a turned link work. It goes on trying by itself.
const TURN_TIME_MAX: Duration = Duration::from_secs(120);

impl Cutover<'_> {
    /// The link streams, and the target is not too far behind.
    pub(super) async fn check_lag(&mut self) -> Result<((), String)> {
        let (source, limit) = (self.under_way.source, self.options.lag_max);
        let pipeline = PipelineId::from_source(source);
        let cluster = &self.own[source].cluster;
        let (target, link) = (self.name(source.other()), &self.config.link.name);
        let began_behind = asking::status(self.config).await?.is_none();
        if began_behind {
            self.drain(source).await?;
        }
        let lag = wait_until(self.config, async |status| {
            let Some(found) = streaming(status, pipeline) else {
                let copies = |one: &PipelineStatus| one.phase == Phase::InitialSync;
                if limit.is_some() && status.pipelines.iter().any(copies) {
                    return Err(Error::timed_out("the initial copy still goes on"));
                }
                return Ok(None);
            };
            let now = server::note(cluster, link).await?;
            Ok(lag(found, now))
        })
        .await?;
        let shown = duration::show(lag);
        if let Some(limit) = limit.filter(|limit| lag > *limit) {
            let limit = duration::show(limit);
            return Err(Error::timed_out(format!(
                "{target} is {shown} behind, more than the {limit} of --abort-if-lag"
            )));
        }
        Ok(((), format!("{target} is {shown} behind")))
    }

    /// Two-way: what was written on the target goes to the source while that still takes writes.
    pub(super) async fn drain_back(&mut self) -> Result<((), String)> {
        let target = self.under_way.source.other();
        self.drain(target).await?;
        let (from, to) = (self.name(target), self.name(target.other()));
        Ok(((), format!("what was written on {from} is on {to}")))
    }

    /// From here on nobody writes to the source.
    pub(super) async fn block(&mut self) -> Result<((), String)> {
        let source = self.under_way.source;
        let name = self.name(source).to_owned();
        if self.options.stopping == Stopping::Server {
            let link = &self.config.link.name;
            let mut blocked = self.under_way;
            blocked.blocked = true;
            blocked.save(&self.own, link, super::Step::Block).await?;
            self.under_way = blocked;
            match server::block(&self.own[source].cluster).await {
                Ok(()) => return Ok(((), format!("{name} refuses writes"))),
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => {
                    tracing::warn!(cluster = %name, %error, "the server does not block writes for this account (setUserWriteBlockMode)");
                    self.under_way.blocked = false;
                    let step = super::Step::Block;
                    self.under_way.save(&self.own, link, step).await?;
                }
            }
        }
        let question =
            format!("stop every application that writes to {name}; have they stopped?\n");
        if !(self.ask)(&question)? {
            return Err(super::interrupted());
        }
        loop {
            let before = self.events_read().await?;
            tokio::time::sleep(QUIET_TIME).await;
            self.drain(source).await?;
            if self.events_read().await? == before {
                let seconds = QUIET_TIME.as_secs();
                return Ok(((), format!("nobody has written to {name} for {seconds} s")));
            }
            tracing::warn!(cluster = %name, "applications still write");
        }
    }

    pub(super) async fn drain_first(&mut self) -> Result<((), String)> {
        let source = self.under_way.source;
        self.drain(source).await?;
        self.events_then = Some(self.events_read().await?);
        let (from, to) = (self.name(source), self.name(source.other()));
        Ok(((), format!("everything from {from} is on {to}")))
    }

    /// Nothing was written since: what has been compared is all there is.
    pub(super) async fn drain_last(&mut self) -> Result<(Timestamp, String)> {
        let source = self.under_way.source;
        let time = self.drain(source).await?;
        let name = self.name(source);
        if Some(self.events_read().await?) != self.events_then {
            return Err(found(format!(
                "{name} was written to after everything had been brought over"
            ))
            .hint("stop what writes there, an account that passes the block perhaps"));
        }
        Ok((time, format!("nothing more was written on {name}")))
    }

    pub(super) async fn verify(&mut self) -> Result<((), String)> {
        if self.options.comparing == Comparing::Nothing {
            return Ok(((), "skipped: nothing was compared".to_owned()));
        }
        let options = VerifyOptions {
            namespaces: Vec::new(),
            resume: false,
            settle_time_max: SETTLE_TIME_MAX,
            differences_max: DIFFERENCES_MAX,
            readers: READERS,
        };
        let compared = verify(self.config, &options).await?;
        judge(&compared).map(|found| ((), found))
    }

    /// The process that runs the link ends.
    pub(super) async fn end_link(&mut self) -> Result<((), String)> {
        asking::turn(self.config).await?;
        asking::wait_until_gone(self.config).await?;
        Ok(((), "the link has ended".to_owned()))
    }

    /// The link goes on from what was decided, and the target's writes arrive on the source.
    pub(super) async fn turn_link(&mut self) -> Result<((), String)> {
        let source = self.standing.source;
        let direction = match self.config.link.mode {
            Mode::TwoWay => None,
            Mode::OneWay { .. } => Some(PipelineId::from_source(source)),
        };
        let mut asked = None;
        let turned = wait_until(self.config, async |status| {
            if status.direction != direction {
                // A process that is about to begin again has the old direction a moment longer.
                if asked.is_none_or(|at: Instant| at.elapsed() > NOTE_INTERVAL * 8) {
                    asking::turn(self.config).await?;
                    asked = Some(Instant::now());
                }
                return Ok(None);
            }
            Ok(streaming(status, PipelineId::from_source(source)).map(|_| ()))
        });
        let late = || Error::timed_out("the turned link was not seen to work yet");
        let works = async {
            turned.await?;
            self.drain(source).await
        };
        let works = tokio::time::timeout(TURN_TIME_MAX, works).await;
        works.map_err(|_| late())??;
        let (from, to) = (self.name(source), self.name(source.other()));
        Ok(((), format!("what is written on {from} is brought to {to}")))
    }

    /// Waits until everything written on `side` up to now is on the other one. Gives that moment.
    async fn drain(&self, side: Side) -> Result<Timestamp> {
        let (cluster, link) = (&self.own[side].cluster, &self.config.link.name);
        let pipeline = PipelineId::from_source(side);
        let time = server::note(cluster, link).await?;
        let mut noted = Instant::now();
        wait_until(self.config, async |status| {
            let applied = streaming(status, pipeline).and_then(applied);
            if applied.is_some_and(|applied| applied > time) {
                return Ok(Some(()));
            }
            // The stream proves only what is before the last entry it has passed.
            if noted.elapsed() >= NOTE_INTERVAL {
                server::note(cluster, link).await?;
                noted = Instant::now();
            }
            Ok(None)
        })
        .await?;
        Ok(time)
    }

    /// Writes of applications read on the source so far.
    async fn events_read(&self) -> Result<u64> {
        tokio::time::sleep(COUNT_TIME).await;
        let pipeline = PipelineId::from_source(self.under_way.source);
        wait_until(self.config, async |status| {
            Ok(streaming(status, pipeline).map(|found| found.events_read_total))
        })
        .await
    }
}

fn found(message: String) -> Error {
    Error::new(ExitCode::Found, Class::Operator, message)
}

/// The pipeline, where the link applies what it reads.
fn streaming(status: &LinkStatus, pipeline: PipelineId) -> Option<&PipelineStatus> {
    let found = status.pipelines.iter().find(|found| found.id == pipeline)?;
    let works = status.state == LinkState::Running && found.phase == Phase::Streaming;
    works.then_some(found)
}

fn applied(pipeline: &PipelineStatus) -> Option<Timestamp> {
    let [time, increment] = pipeline.applied_through.as_ref()?.ts;
    Some(Timestamp { time, increment })
}

/// How far the pipeline is behind the source's `now`. A pipeline that has applied all it has read is
/// behind only by what it has not read.
fn lag(pipeline: &PipelineStatus, now: Timestamp) -> Option<Duration> {
    let lag = pipeline.lag_seconds?;
    let read = pipeline.observed_through.as_ref()?.ts[0];
    let unread = Duration::from_secs(u64::from(now.time.saturating_sub(read)));
    Some(unread + Duration::from_millis((lag * 1000.0) as u64))
}

fn judge(compared: &Verification) -> Result<String> {
    let documents: u64 = compared.namespaces.values().map(|n| n.documents.a).sum();
    let unsettled = |which| {
        let unsettled = compared.unsettled.iter();
        unsettled.filter(|(_, reason)| *reason == which).count()
    };
    let differ = compared.differing.len() + unsettled(Reason::Behind);
    match (compared.outcome(), unsettled(Reason::Busy)) {
        // Nobody writes to the source any more, and nothing of it is on its way.
        (Outcome::Equal, busy) if busy > 0 => Err(Error::timed_out(format!(
            "{busy} documents are still written to and could not be compared"
        ))
        .hint("stop what writes on the target, or let --skip-verify go on without")),
        (Outcome::Equal, _) => Ok(format!("both clusters are equal: {documents} documents")),
        (Outcome::Undecided, _) if differ == 0 => Err(Error::timed_out(format!(
            "{} namespaces could not be compared",
            compared.not_compared.len()
        ))
        .hint("`tandem verify` names them; --skip-verify goes on without")),
        (Outcome::Different | Outcome::Undecided, _) => Err(found(format!(
            "the clusters differ: {differ} documents, {} options and indexes",
            compared.schema.len()
        ))
        .hint("`tandem verify` shows the differences")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::{DocumentKey, Namespace};
    use crate::verify::Finding;
    use bson::rawdoc;

    #[test]
    fn what_is_written_all_the_time_is_not_proven_to_be_equal() {
        let key = DocumentKey::of(&Namespace::new("shop", "orders"), &rawdoc! { "_id": 1 });
        let code = |reasons: &[Reason]| {
            let mut compared = Verification::default();
            for reason in reasons {
                compared.take(Finding::Unsettled(key.clone().unwrap(), *reason));
            }
            judge(&compared).map_err(|error| error.exit).err()
        };
        assert_eq!(code(&[]), None);
        assert_eq!(code(&[Reason::Busy]), Some(ExitCode::TimedOut));
        assert_eq!(code(&[Reason::Behind]), Some(ExitCode::Found));
    }
}
