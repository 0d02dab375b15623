//! What the clusters remember of a cutover that has begun, so that it can be taken up again.

use bson::{Document, doc};

use super::Step;
use crate::change::{Pair, Side};
use crate::error::{Error, Result};
use crate::link::Standing;
use crate::link::own::Own;

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
}

impl UnderWay {
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
        Some(Self {
            started_at_ms: found.get_i64("started_at_ms").ok()?,
            source: target.other(),
            blocked: found.get_bool("blocked").unwrap_or(false),
            decided: found.get_bool("decided").unwrap_or(false),
            pid: found
                .get_i64("pid")
                .ok()
                .and_then(|pid| pid.try_into().ok())?,
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
    pub async fn save(&self, own: &Pair<Own>, link: &str, step: Step) -> Result<()> {
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
    pub async fn clear(&self, own: &Pair<Own>, link: &str) -> Result<()> {
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
        }
    }

    async fn update(&self, own: &Pair<Own>, link: &str, update: Document) -> Result<()> {
        let ours = doc! { "_id": link, "$or": [
            { "cutover": { "$exists": false } },
            { "cutover.started_at_ms": self.started_at_ms },
        ] };
        let statement = doc! { "q": ours, "u": update };
        let target = &own[self.source.other()];
        match target.update("links", vec![statement]).await? {
            0 => Err(another("another process")),
            _ => Ok(()),
        }
    }
}

fn another(process: &str) -> Error {
    Error::fenced(format!("{process} cuts this link over at this moment"))
        .hint("wait until it has ended; `tandem runs` shows its steps")
}
