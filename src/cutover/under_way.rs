//! What the clusters remember of a cutover that has begun, so that it can be taken up again.

use bson::{Document, Uuid, doc};

use super::Step;
use crate::change::{Pair, Side};
use crate::error::{Error, Result};
use crate::link::Standing;
use crate::link::own::Own;
use crate::pipeline::uuid_in;

/// A cutover that has neither come to its end nor been given up. It stands in the link's document on
/// the target: the source may refuse writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnderWay {
    /// Milliseconds since 1970; names its record among the runs.
    pub started_at_ms: i64,
    /// The cluster that the applications leave.
    pub source: Side,
    /// Whether the source was told to refuse writes, or may have been.
    pub blocked: bool,
    /// Past this there is no way back but another cutover.
    pub decided: bool,
    /// The process that did its last step.
    pub pid: u32,
    /// This process.
    me: Uuid,
    last: Last,
}

/// Whose word is the last one on record. What another process has sent, and arrives after this one
/// has taken the cutover up, changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Nobody,
    /// A process of a former version does not name itself.
    Another {
        by: Option<Uuid>,
        decided: bool,
    },
    Own,
}

impl UnderWay {
    /// One that nothing is on record of yet.
    pub fn new(started_at_ms: i64, source: Side) -> Self {
        Self {
            started_at_ms,
            source,
            blocked: false,
            decided: false,
            pid: std::process::id(),
            me: Uuid::new(),
            last: Last::Nobody,
        }
    }

    /// # Errors
    /// As the clusters say.
    pub async fn find(own: &Pair<Own>, link: &str) -> Result<Option<Self>> {
        for side in Side::BOTH {
            // Its process may have been killed before a majority had what it wrote.
            let found = own[side].find_latest("links", link).await?;
            let found = found.and_then(|link| Self::of_link(&link, side));
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn of_link(link: &Document, target: Side) -> Option<Self> {
        let found = link.get_document("cutover").ok()?;
        let decided = found.get_bool("decided").unwrap_or(false);
        let by = uuid_in(found, "by");
        Some(Self {
            blocked: found.get_bool("blocked").unwrap_or(false),
            decided,
            pid: found
                .get_i64("pid")
                .ok()
                .and_then(|pid| pid.try_into().ok())?,
            last: Last::Another { by, decided },
            ..Self::new(found.get_i64("started_at_ms").ok()?, target.other())
        })
    }

    /// Two of them would take each other's block away.
    ///
    /// # Errors
    /// Fenced (8) where another process on this host is at it.
    pub fn must_be_ours(&self) -> Result<()> {
        let pid = self.pid;
        let typed = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let at_it = typed
            .split(|byte| *byte == 0)
            .any(|part| part == b"cutover");
        match at_it && pid != std::process::id() {
            true => Err(another(&format!("process {pid}"))),
            false => Ok(()),
        }
    }

    /// Puts it on record, with the step that comes next.
    ///
    /// # Errors
    /// As the cluster says; fenced (8) where another cutover has begun.
    pub async fn save(&mut self, own: &Pair<Own>, link: &str, step: Step) -> Result<()> {
        let set = doc! { "cutover": self.as_document(step) };
        self.update(own, link, doc! { "$set": set }).await
    }

    /// From here on there is no way back: both in one write.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn decide(&mut self, own: &Pair<Own>, link: &str, standing: &Standing) -> Result<()> {
        self.decided = true;
        let set = doc! {
            "cutover": self.as_document(Step::Turn),
            "standing": standing.as_document(),
        };
        self.update(own, link, doc! { "$set": set }).await
    }

    /// It is over.
    ///
    /// # Errors
    /// As the cluster says.
    pub async fn clear(&mut self, own: &Pair<Own>, link: &str) -> Result<()> {
        let unset = doc! { "$unset": { "cutover": "" } };
        self.update(own, link, unset).await
    }

    fn as_document(&self, step: Step) -> Document {
        doc! {
            "started_at_ms": self.started_at_ms,
            "blocked": self.blocked,
            "decided": self.decided,
            "step": step.as_str(),
            "pid": i64::from(std::process::id()),
            "by": self.me,
        }
    }

    async fn update(&mut self, own: &Pair<Own>, link: &str, update: Document) -> Result<()> {
        // Also where the reply to its first word was lost.
        let mut words = vec![doc! { "cutover.by": self.me }];
        words.extend(match self.last {
            Last::Nobody => Some(doc! { "cutover": { "$exists": false } }),
            Last::Another { by, decided } => Some(doc! {
                "cutover.started_at_ms": self.started_at_ms,
                "cutover.by": by,
                "cutover.decided": decided,
            }),
            Last::Own => None,
        });
        let statement = doc! { "q": { "_id": link, "$or": words }, "u": update };
        let target = &own[self.source.other()];
        if target.update("links", vec![statement]).await? == 0 {
            return Err(another("another process"));
        }
        self.last = Last::Own;
        Ok(())
    }
}

fn another(process: &str) -> Error {
    Error::fenced(format!("{process} cuts this link over at this moment"))
        .hint("wait until it has ended; `tandem runs` shows its steps")
}
