//! Commits under load on both sides that lose their answers, get wrong ones or late ones, amid cut
//! networks, elections and kills.

use std::time::{Duration, Instant};

use bson::{Document, doc};

use crate::support::fail_points::FailPoint;
use crate::support::load::Load;
use crate::support::oracle::Side;
use crate::support::proxy::{Cut, Network};
use crate::support::random::{Random, scaled, seed};
use crate::support::tandem::Tandem;
use crate::support::wait::wait_for;
use crate::support::wired::Wired;

const SOON: Duration = Duration::from_secs(60);
const COMMIT: &[&str] = &["commitTransaction"];
/// Longer than tandem waits for an answer.
const HELD_MS: i64 = 3000;
const TIMEOUTS: &str = "[timeouts]\nconnect = \"4s\"\noperation = \"2s\"";
/// Retried, and nothing has been done: no such transaction, interrupted, too late, locked. After codes of
/// elections that have not taken place drivers wait for a primary that they know.
const REFUSALS: [i32; 5] = [251, 11601, 50, 262, 24];

#[derive(Debug, Clone, Copy)]
enum Fault {
    ReplyLost,
    HalfAReply,
    Garbage,
    Held,
    WriteConcernError,
    Refused,
    Severed,
    BlackHole,
    CommandsLost,
    RepliesLost,
    SteppedDown,
    ServerKilled,
    TandemKilled,
    TandemFrozen,
}

const FAULTS: [Fault; 14] = [
    Fault::ReplyLost,
    Fault::HalfAReply,
    Fault::Garbage,
    Fault::Held,
    Fault::WriteConcernError,
    Fault::Refused,
    Fault::Severed,
    Fault::BlackHole,
    Fault::CommandsLost,
    Fault::RepliesLost,
    Fault::SteppedDown,
    Fault::ServerKilled,
    Fault::TandemKilled,
    Fault::TandemFrozen,
];

struct Attack {
    wired: Wired,
    tandem: Tandem,
    random: Random,
}

impl Attack {
    async fn strike(&mut self, fault: Fault, side: Side) {
        let times = 1 + self.random.below(3) as i32;
        let span = Duration::from_millis(100 + self.random.below(2000));
        match fault {
            Fault::ReplyLost => self.cut(side, Cut::NextReplyTo("commitTransaction")).await,
            Fault::HalfAReply => {
                self.cut(side, Cut::HalfOfReplyTo("commitTransaction"))
                    .await
            }
            Fault::Garbage => self.cut(side, Cut::GarbageFor("commitTransaction")).await,
            Fault::Held => {
                let held = doc! { "blockConnection": true, "blockTimeMS": HELD_MS };
                self.fail(side, times, held).await;
            }
            Fault::WriteConcernError => {
                let error = doc! { "code": 64, "errmsg": "waiting for replication timed out" };
                self.fail(side, times, doc! { "writeConcernError": error })
                    .await;
            }
            Fault::Refused => {
                let code = *self.random.pick(&REFUSALS);
                self.fail(side, times, doc! { "errorCode": code }).await;
            }
            Fault::Severed => self.network(side, Network::Severed, span).await,
            Fault::BlackHole => self.network(side, Network::BlackHole, span).await,
            Fault::CommandsLost => self.network(side, Network::CommandsLost, span).await,
            Fault::RepliesLost => self.network(side, Network::RepliesLost, span).await,
            Fault::SteppedDown => {
                let server = self.wired.server(side);
                let command =
                    doc! { "replSetStepDown": 1, "secondaryCatchUpPeriodSecs": 0, "force": true };
                // The answer may be lost with the connection.
                let _ = server.try_admin(command).await;
                server.wait_primary().await;
            }
            Fault::ServerKilled => {
                let server = self.wired.server_mut(side);
                server.sigkill();
                tokio::time::sleep(span).await;
                server.restart().await;
            }
            Fault::TandemKilled => {
                self.tandem.kill9();
                self.start().await;
            }
            Fault::TandemFrozen => {
                self.tandem.sigstop();
                tokio::time::sleep(2 * span).await;
                self.tandem.sigcont();
            }
        }
    }

    /// As a service manager does: a cluster that does not answer in time ends a start with 4.
    async fn start(&mut self) {
        const STARTS_MAX: usize = 5;
        for _ in 0..STARTS_MAX {
            self.tandem.start();
            let ended = self.tandem.ended_or_streaming();
            match tokio::time::timeout(SOON, ended).await {
                Ok(None) => return,
                Ok(Some(4)) => drop(self.tandem.wait_exit(SOON).await),
                Ok(Some(code)) => panic!("a start ended with {code}\n{}", self.tandem.tail()),
                Err(_) => panic!("it does not start\n{}", self.tandem.tail()),
            }
        }
        panic!("it does not start\n{}", self.tandem.tail());
    }

    async fn cut(&self, side: Side, cut: Cut) {
        let proxy = self.wired.proxy(side);
        let before = proxy.cuts();
        proxy.cut(cut);
        wait_for("a commit loses its answer", SOON, || async {
            (proxy.cuts() > before).then_some(())
        })
        .await;
    }

    async fn fail(&self, side: Side, times: i32, error: Document) {
        let point = FailPoint::on(self.wired.server(side), COMMIT);
        point.fail(times, error).await;
    }

    async fn network(&self, side: Side, network: Network, span: Duration) {
        let proxy = self.wired.proxy(side);
        proxy.set(network);
        tokio::time::sleep(span).await;
        proxy.heal();
    }

    /// Writes cross over in both directions; gives how long that took.
    async fn crossing(&mut self, round: i32) -> Duration {
        assert!(self.tandem.is_running(), "{}", self.tandem.tail());
        let started = Instant::now();
        let at = |side: Side| {
            let client = self.wired.server(side).client();
            let bank = client.database("bank");
            bank.collection::<Document>(&format!("crossings_{}", side.prefix()))
        };
        for side in [Side::A, Side::B] {
            let (from, other) = match side {
                Side::A => (at(side), &self.wired.env.b),
                Side::B => (at(side), &self.wired.env.a),
            };
            let row = doc! { "_id": round, "seen": [] };
            wait_for("it is written", SOON, || async {
                let upsert = from.replace_one(doc! { "_id": round }, &row).upsert(true);
                upsert.await.ok()
            })
            .await;
            let to = other.client().database("bank");
            let to = to.collection::<Document>(from.name());
            let deadline = Instant::now() + SOON;
            while !matches!(to.find_one(doc! { "_id": round }).await, Ok(Some(_))) {
                let late = Instant::now() > deadline;
                let (status, tail) = (|| self.tandem.status(), || self.tandem.tail());
                assert!(!late, "nothing crosses\n{:#}\n{}", status(), tail());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        started.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: strikes every few seconds, run by scripts/soak"]
async fn long_commits_without_a_clear_answer_amid_faults_of_every_kind_lose_and_stall_nothing() {
    let seed = seed("commits");
    let wired = Wired::start().await;
    let mut link = wired.env.link().extra(TIMEOUTS);
    link.lease_duration = "3s".to_owned();
    let tandem = wired.env.streaming(&link).await;
    let random = Random::new(seed).fork(97);
    let mut attack = Attack {
        wired,
        tandem,
        random,
    };
    let load = Load::start(&attack.wired.env, Load::steady(seed).by_majority());
    let mut longest = Duration::ZERO;
    for round in 0..scaled(300) as i32 {
        let fault = *attack.random.pick(&FAULTS);
        let side = *attack.random.pick(&[Side::A, Side::B]);
        println!("{round}: {fault:?} on {side:?}");
        attack.strike(fault, side).await;
        let took = attack.crossing(round).await;
        println!("{round}: writes cross within {took:?}");
        longest = longest.max(took);
        // Every other strike meets what the one before has left.
        let pause = attack.random.below(2) * 500;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    println!("the longest crossing took {longest:?}");
    load.settle(&attack.wired.env, &attack.tandem, SOON).await;
    assert!(attack.tandem.is_running());
    attack.tandem.stop().await;
}
