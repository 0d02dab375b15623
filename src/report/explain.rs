//! Why a conflict was decided as it was, in sentences; only what the record knows.

use std::time::Duration;

use bson::{DateTime, RawDocument};
use serde::Serialize;

use crate::change::{ConflictKind, Pair, PipelineId, RecordStatus, Side, rfc3339};

/// A record's story.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What happened, in one line.
    pub happened: String,
    /// The rule that decided, and why.
    pub decided: String,
    /// What is known of the clocks, and whether it matters.
    pub clocks: String,
    /// What was written.
    pub written: String,
    /// Since when both sides agree; none where that is not on record.
    pub agreed_since: Option<String>,
    /// The same in a sentence.
    pub agreed: String,
    /// What became of the record.
    pub became: String,
}

/// One side's write, as the record has it.
#[derive(Debug, Clone, Copy)]
struct Write<'a> {
    operation: &'a str,
    wall_ms: Option<i64>,
    version_ms: Option<i64>,
    document: Option<&'a RawDocument>,
}

struct Case<'a> {
    record: &'a RawDocument,
    kind: Option<ConflictKind>,
    /// The losing write's cluster.
    loser: Side,
    names: &'a Pair<String>,
    losing: Option<Write<'a>>,
    winning: Option<Write<'a>>,
}

/// `names` are what people call the clusters.
pub fn explain(record: &RawDocument, names: &Pair<String>) -> Explanation {
    let text = |name: &str| record.get_str(name).unwrap_or_default();
    let loser = PipelineId::parse(text("pipeline")).map_or(Side::A, PipelineId::source);
    let case = Case {
        record,
        kind: ConflictKind::parse(text("kind")),
        loser,
        names,
        losing: write(record, "losing"),
        winning: write(record, "winning"),
    };
    let (agreed_since, agreed) = case.agreed();
    Explanation {
        happened: case.happened(),
        decided: case.decided(),
        clocks: case.clocks(),
        written: case.written(),
        agreed_since: agreed_since.map(rfc3339),
        agreed,
        became: case.became(),
    }
}

fn write<'a>(record: &'a RawDocument, side: &str) -> Option<Write<'a>> {
    let part = record.get_document(side).ok()?;
    Some(Write {
        operation: part.get_str("operation").unwrap_or("write"),
        wall_ms: part
            .get_datetime("wall_time")
            .ok()
            .map(DateTime::timestamp_millis),
        version_ms: part.get_i64("version").ok(),
        document: part.get_document("document").ok(),
    })
}

impl Case<'_> {
    fn text(&self, name: &str) -> &str {
        self.record.get_str(name).unwrap_or_default()
    }

    fn lost(&self) -> &str {
        &self.names[self.loser]
    }

    fn won(&self) -> &str {
        match self.text("winner") {
            "" => &self.names[self.loser.other()],
            name => name,
        }
    }

    /// No change event told of the losing document: a merge, a resync or a repair compared it.
    fn unread(&self) -> bool {
        let losing = self.record.get_document("losing").ok();
        let change = losing.and_then(|losing| losing.get_document("change").ok());
        change.is_some_and(|change| matches!(change.get_str("operationType"), Ok("unread")))
    }

    fn happened(&self) -> String {
        let (lost, won) = (self.lost(), self.won());
        let operation =
            |write: &Option<Write<'_>>| write.map_or("write", |write| write.operation).to_owned();
        match self.kind {
            Some(ConflictKind::DeadLetter) => format!(
                "{} of {lost} could not be applied to {}",
                with_article(&operation(&self.losing)),
                self.names[self.loser.other()]
            ),
            Some(ConflictKind::Ddl) if self.text("winner").is_empty() => {
                format!(
                    "a change of a collection on {lost} was not sent: {}",
                    operation(&self.losing)
                )
            }
            Some(ConflictKind::Ddl) => format!(
                "both sides changed the same part of a collection: {} on {lost}, {} on {won}",
                operation(&self.losing),
                operation(&self.winning)
            ),
            _ if self.unread() => {
                format!(
                    "{lost} and {won} held different documents, and no write told which is newer"
                )
            }
            _ => format!(
                "{lost} ({}) and {won} ({}) wrote the document without knowing of each other",
                operation(&self.losing),
                operation(&self.winning)
            ),
        }
    }

    fn decided(&self) -> String {
        let (lost, won, policy) = (self.lost(), self.won(), self.text("policy"));
        if self.text("winner").is_empty() {
            return format!(
                "nobody won; the reason on record is {:?}",
                self.text("reason")
            );
        }
        match self.text("reason") {
            "tie" => format!(
                "{policy}: both have the same version, and ties go to {won} (conflicts.tie)"
            ),
            "preferred" if policy == "one-way" => {
                format!(
                    "one-way: the link goes from {won} to {lost}, so the document of {won} stays"
                )
            }
            "preferred" => {
                format!("{policy}: {won} wins whenever it wrote (or was named by --from)")
            }
            "later" => match (self.gap_ms(), self.by_clock()) {
                (Some(gap), true) => format!(
                    "{policy}: by the servers' clocks {won} wrote {} after {lost}",
                    length(gap)
                ),
                (Some(gap), false) => format!(
                    "{policy}: the version field of {won} is {} later than that of {lost}",
                    length(gap)
                ),
                (None, _) => format!("{policy}: the version of {won} is later"),
            },
            other => format!("{policy}: {other}"),
        }
    }

    /// How much later the winner's version is, ms.
    fn gap_ms(&self) -> Option<i64> {
        self.winning?
            .version_ms?
            .checked_sub(self.losing?.version_ms?)
    }

    /// Whether the versions are the servers' wall times, not those of a version field.
    fn by_clock(&self) -> bool {
        let is_wall =
            |write: Option<Write<'_>>| write.is_some_and(|write| write.version_ms == write.wall_ms);
        is_wall(self.losing) && is_wall(self.winning) && !self.unread()
    }

    fn clocks(&self) -> String {
        let Ok(skew) = self.record.get_i64("clock_skew_ms") else {
            return "the clocks had not been measured at that moment".to_owned();
        };
        let [a, b] = [&self.names.a, &self.names.b];
        let measured = match skew {
            0 => format!("the clocks of {a} and {b} were measured equal"),
            ahead @ 1.. => format!(
                "the clock of {b} was measured {} ahead of that of {a}",
                length(ahead)
            ),
            behind => format!(
                "the clock of {a} was measured {} ahead of that of {b}",
                length(-behind)
            ),
        };
        let gap = match self.gap_ms() {
            Some(gap) if self.text("reason") == "later" && self.by_clock() => gap,
            _ => return measured + "; that did not decide",
        };
        // The skew is b's lead: what b wrote was earlier by it, as a's clock would have told.
        let corrected = match self.loser {
            Side::A => gap.saturating_sub(skew),
            Side::B => gap.saturating_add(skew),
        };
        let (lost, won) = (self.lost(), self.won());
        match corrected {
            0 => format!("{measured}; corrected for it both writes were made at the same moment"),
            1.. => format!(
                "{measured}; corrected for it {won} still wrote {} later",
                length(corrected)
            ),
            _ => format!(
                "{measured}; corrected for it {lost} wrote {} later than {won}: equal clocks would have decided otherwise",
                length(-corrected)
            ),
        }
    }

    fn written(&self) -> String {
        let (lost, won) = (self.lost(), self.won());
        match (self.kind, self.winning) {
            (Some(ConflictKind::DeadLetter), _) => {
                format!(
                    "nothing: the document on {} stays as it was",
                    self.names[self.loser.other()]
                )
            }
            (Some(ConflictKind::Ddl), None) => "nothing".to_owned(),
            (Some(ConflictKind::Ddl), Some(_)) => {
                format!("the definition of {won}, on {lost}")
            }
            (_, None) => "not on record".to_owned(),
            (_, Some(winning)) => match winning.document {
                Some(document) => format!(
                    "the whole document of {won} ({} bytes), on {lost}",
                    document.as_bytes().len()
                ),
                None => format!("nothing is left of the document: it is deleted on {lost} too"),
            },
        }
    }

    fn agreed(&self) -> (Option<DateTime>, String) {
        let (lost, won) = (self.lost(), self.won());
        let settled_by = PipelineId::parse(self.text("settled_by"));
        match (self.kind, settled_by) {
            (Some(ConflictKind::DeadLetter), _) => (
                None,
                match self.text("status") == RecordStatus::Resolved.as_str() {
                    true => "once the document was applied; when that was is not on record",
                    false => "they do not, as far as this record tells",
                }
                .to_owned(),
            ),
            (Some(ConflictKind::Ddl), _) => (
                None,
                "not on record; `tandem verify` compares definitions too".to_owned(),
            ),
            (_, None) => (None, "not on record".to_owned()),
            (_, Some(pipeline)) if pipeline.source() == self.loser => (
                None,
                format!(
                    "not on record: this was logged when {lost} was kept from sending its write; \
                     {won} sent its document next, in a transaction of its own"
                ),
            ),
            (_, Some(_)) => {
                let at = self.record.get_datetime("logged_at").ok();
                let shown = at.map_or_else(|| "an unknown time".to_owned(), rfc3339);
                (
                    at,
                    format!(
                        "since {shown}: one transaction wrote the document to {lost} and this record beside it"
                    ),
                )
            }
        }
    }

    fn became(&self) -> String {
        match RecordStatus::parse(self.text("status")) {
            Some(RecordStatus::Logged) if self.kind == Some(ConflictKind::DeadLetter) => {
                "nobody has settled it; each later event of the document tries again".to_owned()
            }
            Some(RecordStatus::Logged) => {
                format!("the write of {} is lost but for this record", self.lost())
            }
            Some(RecordStatus::Overturned) => format!(
                "a later write on {} won, and its document held this write: nothing is lost",
                self.lost()
            ),
            Some(RecordStatus::Restored) => self.restored(),
            Some(RecordStatus::Resolved) => "the document was applied later".to_owned(),
            Some(RecordStatus::Discarded) => "somebody gave up on it".to_owned(),
            None => "unknown".to_owned(),
        }
    }

    fn restored(&self) -> String {
        let Ok(by) = self.record.get_document("restored") else {
            return "somebody brought the losing version back; who and when is not on record"
                .to_owned();
        };
        let text = |name: &str| by.get_str(name).unwrap_or("unknown");
        let at = by
            .get_datetime("at")
            .map_or_else(|_| "an unknown time".to_owned(), rfc3339);
        let (user, account, host) = (text("user"), text("account"), text("host"));
        format!(
            "{user} on {host} brought the losing version back at {at}, as {account} of the cluster"
        )
    }
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}

fn length(ms: i64) -> String {
    let length = Duration::from_millis(ms.unsigned_abs());
    match ms.unsigned_abs() {
        0..10_000 => format!("{ms} ms"),
        10_000..600_000 => format!("{:.1} s", length.as_secs_f64()),
        600_000..7_200_000 => format!("{} min", length.as_secs() / 60),
        7_200_000..172_800_000 => format!("{:.1} h", length.as_secs_f64() / 3600.0),
        _ => format!("{:.1} days", length.as_secs_f64() / 86_400.0),
    }
}

#[cfg(test)]
mod tests;
