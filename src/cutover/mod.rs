//! Moving the applications from one cluster to the other, with proof that nothing is left behind.
//!
//! Until the decision every step can be done again and everything can be taken back: an interrupted
//! cutover begins with the first step, and finds most of them done. The decision is one write on the
//! target. Past it, the same command finishes what was decided.

mod asking;
mod keeping;
mod plan;
mod server;
mod steps;
mod under_way;

use std::time::Duration;

use bson::{DateTime, Timestamp, doc};
use tokio_util::sync::CancellationToken;

use crate::change::{Pair, Side};
use crate::config::{Config, Mode};
use crate::error::{Class, Error, ExitCode, Result};
use crate::link::both_clusters::with_both;
use crate::link::own::Own;
use crate::link::{Standing, Turn, runs};
use crate::store::{Run, RunKind, RunOutcome};
use asking::with_link;
use under_way::UnderWay;

pub use plan::{Plan, plan};
pub use server::UNBLOCK;

/// How a cutover is done.
#[derive(Debug, Clone)]
pub struct CutoverOptions {
    /// Turn the link round instead of ending it.
    pub reverse: bool,
    /// Do not begin where the target is further behind.
    pub lag_max: Option<Duration>,
    /// Give up after this time, unless it is decided.
    pub timeout: Option<Duration>,
    pub comparing: Comparing,
    pub stopping: Stopping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparing {
    All,
    Nothing,
}

/// Who sees to it that nobody writes to the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    /// The server, where it can; else the operator.
    Server,
    Operator,
}

/// Asks somebody; says yes where nobody is to be asked.
pub type Ask<'a> = dyn Fn(&str) -> Result<bool> + 'a;

/// A step of a cutover, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Lag,
    DrainBack,
    Block,
    Drain,
    Verify,
    LastDrain,
    Decide,
    Turn,
}

impl Step {
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Lag => "lag",
            Step::DrainBack => "drain_back",
            Step::Block => "block",
            Step::Drain => "drain",
            Step::Verify => "verify",
            Step::LastDrain => "last_drain",
            Step::Decide => "decide",
            Step::Turn => "turn",
        }
    }
}

/// A cutover that came to its end, well or not.
#[derive(Debug)]
pub struct Completed {
    pub run: Run,
    /// The cluster that the applications leave.
    pub source: Side,
    pub reverse: bool,
    /// Whether the source still refuses writes.
    pub blocked: bool,
    pub outcome: Result<()>,
}

/// Cuts over, or takes up a cutover that was interrupted.
///
/// # Errors
/// A link that never ran or has ended (3), clusters that cannot be reached (4), a cutover that is
/// under way (8). What goes wrong
/// later is in the outcome: with everything taken back unless it was decided.
pub async fn cutover(
    config: &Config,
    options: &CutoverOptions,
    ask: &Ask<'_>,
    stop: &CancellationToken,
) -> Result<Completed> {
    with_both(config, async |clusters| {
        let own = clusters
            .as_ref()
            .map(|cluster| Own::new(cluster, &config.link.database));
        let mut cutover = Cutover::find(config, own, options, ask).await?;
        let outcome = cutover.go(stop).await;
        Ok(Completed {
            source: cutover.under_way.source,
            reverse: cutover.reverses(),
            blocked: cutover.under_way.blocked,
            run: cutover.run,
            outcome,
        })
    })
    .await
}

/// Gives up a cutover that was interrupted: the source takes writes again. Tells whether there was
/// one.
///
/// # Errors
/// A config error (3) where it is decided; as the clusters say.
pub async fn abort(config: &Config) -> Result<bool> {
    let options = CutoverOptions {
        reverse: false,
        lag_max: None,
        timeout: None,
        comparing: Comparing::All,
        stopping: Stopping::Server,
    };
    with_both(config, async |clusters| {
        let own = clusters
            .as_ref()
            .map(|cluster| Own::new(cluster, &config.link.database));
        let Some(found) = UnderWay::find(&own, &config.link.name).await? else {
            return Ok(false);
        };
        found.must_be_ours()?;
        if found.decided {
            return Err(
                Error::config("the cutover is decided and cannot be given up").hint(
                    "`tandem cutover` finishes it; `tandem cutover --reverse` then goes back",
                ),
            );
        }
        let mut cutover = Cutover::find(config, own, &options, &|_| Ok(true)).await?;
        let given_up = cutover.take_back().await;
        cutover
            .end_run(RunOutcome::Stopped, Some(&interrupted()))
            .await;
        given_up.map(|()| true)
    })
    .await
}

fn interrupted() -> Error {
    Error::new(
        ExitCode::Interrupted,
        Class::Operator,
        "the cutover was given up",
    )
}

/// One cutover and everything it works with.
struct Cutover<'a> {
    config: &'a Config,
    own: Pair<Own>,
    options: &'a CutoverOptions,
    ask: &'a Ask<'a>,
    standing: Standing,
    under_way: UnderWay,
    run: Run,
    /// The step under way, and since when.
    current: Option<(Step, DateTime)>,
    /// Writes read on the source when everything had been brought over.
    events_then: Option<u64>,
}

impl<'a> Cutover<'a> {
    async fn find(
        config: &'a Config,
        own: Pair<Own>,
        options: &'a CutoverOptions,
        ask: &'a Ask<'a>,
    ) -> Result<Self> {
        let link = &config.link.name;
        let standing = Standing::read(&own, link).await?;
        let found = UnderWay::find(&own, link).await?;
        let begun = || UnderWay::new(DateTime::now().timestamp_millis(), standing.source);
        let under_way = found.unwrap_or_else(begun);
        under_way.must_be_ours()?;
        if !under_way.decided {
            standing.must_go_on(config, false)?;
            let ready = doc! { "_id": link, "ready": true };
            if own[under_way.source.other()]
                .find("links", ready)
                .await?
                .is_empty()
            {
                return Err(
                    Error::config(format!("link {link} has never run")).hint("`tandem run` first")
                );
            }
        }
        let started_at_ms = under_way.started_at_ms;
        let known = runs::runs(&config.link.state_dir).await?.into_iter();
        let mut known = known.filter(|run| run.kind == RunKind::Cutover);
        let run = known.find(|run| run.started_at_ms == started_at_ms);
        Ok(Self {
            config,
            own,
            options,
            ask,
            standing,
            under_way,
            run: run.unwrap_or_else(|| Run {
                kind: RunKind::Cutover,
                ..Run::started(DateTime::from_millis(started_at_ms))
            }),
            current: None,
            events_then: None,
        })
    }

    /// The whole of it: prepare, decide, finish; whatever fails before the decision is taken back.
    async fn go(&mut self, stop: &CancellationToken) -> Result<()> {
        if !self.under_way.decided {
            let from = match self.prepare(stop).await {
                Ok(from) => from,
                Err(error) => return Err(self.give_up(error).await),
            };
            if let Err(error) = self.decide(from).await {
                self.fail_current(&error).await;
                let unknown = "whether it is decided is unknown: the same command again goes on";
                return Err(error.hint(unknown));
            }
        }
        match self.finish().await {
            Ok(()) => {
                self.end_run(RunOutcome::CutOver, None).await;
                Ok(())
            }
            Err(error) => {
                self.fail_current(&error).await;
                Err(error.hint("it is decided: the same command again finishes it"))
            }
        }
    }

    /// Everything that can be taken back. Gives how far each cluster is on the other one.
    async fn prepare(&mut self, stop: &CancellationToken) -> Result<Pair<Timestamp>> {
        let runs = asking::status(self.config).await?.is_some();
        if self.under_way.blocked && (!runs || self.config.link.mode == Mode::TwoWay) {
            // A start has to write to both clusters, and what was written on the target goes to the
            // source. From here on nothing of a former process decides.
            let link = &self.config.link.name;
            self.under_way.save(&self.own, link, Step::Lag).await?;
            self.unblock().await?;
        }
        let (config, timeout) = (self.config, self.options.timeout);
        let steps = async {
            tokio::select! {
                biased;
                () = stop.cancelled() => Err(interrupted()),
                () = sleep_or_never(timeout) => {
                    Err(Error::timed_out("the time given by --timeout ran out"))
                }
                outcome = self.steps() => outcome,
            }
        };
        with_link(config, steps).await
    }

    async fn steps(&mut self) -> Result<Pair<Timestamp>> {
        let (source, target) = (self.under_way.source, self.under_way.source.other());
        self.take(Step::Lag, Self::check_lag).await?;
        if self.config.link.mode == Mode::TwoWay {
            self.take(Step::DrainBack, Self::drain_back).await?;
        }
        self.take(Step::Block, Self::block).await?;
        self.take(Step::Drain, Self::drain_first).await?;
        // From here on what is written on the target is new.
        let on_target = self.own[target].operation_time().await?;
        self.take(Step::Verify, Self::verify).await?;
        let on_source = self.take(Step::LastDrain, Self::drain_last).await?;
        let mut from = Pair::new(on_source, on_source);
        from[source.other()] = on_target;
        Ok(from)
    }

    /// The one write that there is no way back from.
    async fn decide(&mut self, from: Pair<Timestamp>) -> Result<()> {
        let source = self.under_way.source;
        let (source, turn) = match (self.options.reverse, self.config.link.mode) {
            (false, _) => (source, Turn::Ended),
            (true, Mode::OneWay { .. }) => (source.other(), Turn::Turning),
            (true, Mode::TwoWay) => (source.other(), Turn::Open),
        };
        self.standing = Standing {
            number: self.standing.number + 1,
            source,
            turn,
            from: Some(from),
            decided_at: Some(DateTime::now()),
        };
        let standing = self.standing.clone();
        self.take(Step::Decide, async |this: &mut Self| {
            let link = &this.config.link.name;
            this.under_way.decide(&this.own, link, &standing).await?;
            Ok(((), "there is no way back but another cutover".to_owned()))
        })
        .await
    }

    /// Makes what was decided so. May be done again.
    async fn finish(&mut self) -> Result<()> {
        let link = &self.config.link.name;
        if self.standing.turn == Turn::Ended {
            self.take(Step::Turn, Self::end_link).await?;
        } else {
            if self.under_way.blocked {
                self.unblock().await?;
            }
            if self.standing.turn == Turn::Open {
                let source = self.under_way.source;
                self.standing.write(&self.own[source], link).await?;
            }
            let config = self.config;
            with_link(config, self.take(Step::Turn, Self::turn_link)).await?;
        }
        self.under_way.clear(&self.own, link).await
    }

    fn reverses(&self) -> bool {
        match self.under_way.decided {
            true => self.standing.turn != Turn::Ended,
            false => self.options.reverse,
        }
    }

    /// Does a step and puts on record what came of it.
    async fn take<T>(
        &mut self,
        step: Step,
        work: impl AsyncFnOnce(&mut Self) -> Result<(T, String)>,
    ) -> Result<T> {
        self.current = Some((step, DateTime::now()));
        let link = &self.config.link.name;
        if step != Step::Decide {
            self.under_way.save(&self.own, link, step).await?;
        }
        let (done, found) = work(self).await?;
        self.put_step(true, found).await;
        Ok(done)
    }

    fn name(&self, side: Side) -> &str {
        &self.config.clusters[side].name
    }
}

async fn sleep_or_never(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
