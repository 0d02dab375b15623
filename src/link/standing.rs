//! What cutovers have made of a link: from which cluster it replicates now, and whether it has ended.

use bson::{DateTime, Document, Timestamp, doc};

use super::own::Own;
use crate::change::{Pair, Side, rfc3339};
use crate::cluster::Cluster;
use crate::config::{Config, InitialSync, Mode};
use crate::error::{Error, Result};

/// How a turn of the link stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// It replicates.
    Open,
    /// The next start begins in the new direction.
    Turning,
    /// It replicates no more.
    Ended,
}

impl Turn {
    fn as_str(self) -> &'static str {
        match self {
            Turn::Open => "open",
            Turn::Turning => "turning",
            Turn::Ended => "ended",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Turn::Open, Turn::Turning, Turn::Ended];
        all.into_iter().find(|turn| turn.as_str() == text)
    }
}

/// What the last cutover has decided, as `links` on both clusters remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How many cutovers came to a decision.
    pub number: i64,
    /// The cluster that the applications write to; one-way mode replicates from it.
    pub source: Side,
    pub turn: Turn,
    /// Of a turn: everything on each cluster up to here is on the other one.
    pub from: Option<Pair<Timestamp>>,
    pub decided_at: Option<DateTime>,
}

impl Standing {
    /// A link that was never cut over.
    pub fn at_first() -> Self {
        Self {
            number: 0,
            source: Side::A,
            turn: Turn::Open,
            from: None,
            decided_at: None,
        }
    }

    /// The newest word of both clusters: one of them may have refused to be told.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn read(own: &Pair<Own>, link: &str) -> Result<Self> {
        let mut newest = Self::at_first();
        for side in Side::BOTH {
            let found = own[side].find("links", doc! { "_id": link }).await?;
            let found = found.first().and_then(Self::of_link);
            if let Some(found) = found.filter(|found| found.rank() > newest.rank()) {
                newest = found;
            }
        }
        Ok(newest)
    }

    fn rank(&self) -> (i64, Turn) {
        (self.number, self.turn)
    }

    fn of_link(link: &Document) -> Option<Self> {
        let found = link.get_document("standing").ok()?;
        let from = |side: &str| found.get_timestamp(format!("from_{side}")).ok();
        Some(Self {
            number: found.get_i64("number").ok()?,
            source: match found.get_str("source").ok()? {
                "b" => Side::B,
                _ => Side::A,
            },
            turn: Turn::parse(found.get_str("turn").ok()?)?,
            from: from("a").zip(from("b")).map(|(a, b)| Pair::new(a, b)),
            decided_at: found.get_datetime("decided_at").ok().copied(),
        })
    }

    pub fn as_document(&self) -> Document {
        let mut found = doc! {
            "number": self.number,
            "source": self.source.as_str(),
            "turn": self.turn.as_str(),
        };
        if let Some(from) = self.from {
            found.insert("from_a", from.a);
            found.insert("from_b", from.b);
        }
        if let Some(at) = self.decided_at {
            found.insert("decided_at", at);
        }
        found
    }

    /// Puts it on record on one cluster.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn write(&self, own: &Own, link: &str) -> Result<()> {
        let set = doc! { "$set": { "standing": self.as_document() } };
        let statement = doc! { "q": { "_id": link }, "u": set };
        own.update("links", vec![statement]).await.map(|_| ())
    }

    /// The turn is taken. As long as one cluster says that it is under way it is taken again.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn open(&mut self, own: &Pair<Own>, link: &str) -> Result<()> {
        self.turn = Turn::Open;
        for side in [self.source.other(), self.source] {
            self.write(&own[side], link).await?;
        }
        Ok(())
    }

    /// The configuration as the last cutover has turned it. What was copied once is not again.
    pub fn in_force(&self, config: &Config) -> Config {
        let mut config = config.clone();
        if let Mode::OneWay { .. } = config.link.mode {
            config.link.mode = Mode::OneWay { from: self.source };
        }
        if self.number > 0 {
            config.initial_sync = InitialSync::None {
                start_at: Pair::default(),
            };
        }
        config
    }

    /// The same, from what the clusters remember.
    ///
    /// # Errors
    /// As the clusters say.
    pub async fn turned(config: &Config, clusters: &Pair<Cluster>) -> Result<Config> {
        let link = &config.link;
        let own = |cluster: &Cluster| Own::new(cluster, &link.database);
        let standing = Self::read(&clusters.as_ref().map(own), &link.name).await?;
        Ok(standing.in_force(config))
    }

    /// # Errors
    /// A config error (3) where the link has ended, or where a turned link is to begin with a copy.
    pub fn must_go_on(&self, config: &Config, anew: bool) -> Result<()> {
        let link = &config.link.name;
        const FORGET: &str = "`tandem reset --clusters` forgets it; then a new link can begin";
        if self.turn == Turn::Ended {
            let to = &config.clusters[self.source.other()].name;
            let at = self.decided_at.map(|at| format!(" at {}", rfc3339(at)));
            let at = at.unwrap_or_default();
            let ended = format!("link {link} has ended: it was cut over to {to}{at}");
            return Err(Error::config(ended).hint(FORGET));
        }
        if anew && self.number > 0 && config.initial_sync == InitialSync::Copy {
            let turned =
                format!("link {link} was turned round by a cutover: it cannot begin with a copy");
            return Err(Error::config(turned).hint(FORGET));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(number: i64, turn: Turn) -> Standing {
        Standing {
            number,
            source: Side::B,
            turn,
            from: None,
            decided_at: None,
        }
    }

    #[test]
    fn a_later_cutover_and_a_turn_under_way_count_most() {
        let ranks = [
            Standing::at_first(),
            standing(1, Turn::Open),
            standing(1, Turn::Turning),
            standing(2, Turn::Open),
            standing(2, Turn::Ended),
        ];
        assert!(ranks.windows(2).all(|two| two[0].rank() < two[1].rank()));
    }

    #[test]
    fn what_is_on_record_reads_back() {
        let from = Timestamp {
            time: 7,
            increment: 1,
        };
        let written = Standing {
            from: Some(Pair::new(from, from)),
            decided_at: Some(DateTime::from_millis(5)),
            ..standing(3, Turn::Turning)
        };
        let link = doc! { "standing": written.as_document() };
        assert_eq!(Standing::of_link(&link), Some(written));
    }
}
