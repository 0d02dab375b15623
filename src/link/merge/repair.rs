//! Documents found to differ, settled one by one while the link goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bson::RawDocumentBuf;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::prepare;
use super::scan::wait_for;
use crate::change::{DocumentKey, Mode, Namespace, Pair, PipelineId, Side};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::link::control::{Answer, Request, Response, ask};
use crate::link::moved::pass_present;
use crate::link::reporting::unexpected;
use crate::pipeline::{Shared, insist, list};
use crate::resolve::{SettleRequest, Settlement, Tally};

/// Keys of one request to a running link, which is one line.
const KEYS_PER_REQUEST_MAX: usize = 200;

/// Longest time that a running link works on one request before it answers.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);

/// A document is asked for alone where its size is not known.
const BYTES_UNKNOWN: usize = 512 * 1024;

/// A key on its way to a running link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepairKey {
    pub namespace: String,
    /// `{ _id }` as BSON, in hex digits.
    pub key: String,
    /// The side that has the document, where only one has.
    pub only_on: Option<Side>,
}

impl RepairKey {
    pub fn of(key: &DocumentKey, only_on: Option<Side>) -> Self {
        let bytes = key.raw().as_bytes().iter();
        Self {
            namespace: key.namespace().to_string(),
            key: bytes.map(|byte| format!("{byte:02x}")).collect(),
            only_on,
        }
    }

    fn decoded(&self) -> Option<DocumentKey> {
        let digits = self.key.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        let raw = RawDocumentBuf::from_bytes(bytes?).ok()?;
        DocumentKey::of(&Namespace::parse(&self.namespace)?, &raw)
    }
}

/// What is to be repaired, and what has come of it.
#[derive(Debug, Clone, Default)]
pub struct Repairs {
    pub keys: Vec<RepairKey>,
    /// The side whose documents stay whatever the policy says.
    pub from: Option<Side>,
    pub tally: Arc<Mutex<Tally>>,
}

/// Settles documents of a running link.
pub struct Repair<'a> {
    pub shared: &'a Shared,
    pub clusters: &'a Pair<Cluster>,
}

impl Repair<'_> {
    /// Returns once the lanes have done with all of them.
    ///
    /// # Errors
    /// As the clusters say; a usage error where a key cannot be read.
    pub async fn settle(&self, repairs: &Repairs) -> Result<()> {
        // One-way the source decides everything, what the target alone has too: that is a difference
        // like any other.
        let from = match self.shared.document_rules.rules.mode {
            Mode::OneWay { from } => Some(from),
            Mode::TwoWay => repairs.from,
        };
        let settlement = Arc::new(Settlement::new(from, repairs.tally.clone()));
        let mut prepared: HashMap<Namespace, Option<Namespace>> = HashMap::new();
        let mut wanted = Vec::new();
        for one in &repairs.keys {
            let key = one
                .decoded()
                .ok_or_else(|| Error::usage("an unreadable key"))?;
            let shown = key.namespace().clone();
            if !prepared.contains_key(&shown) {
                let lasting = insist(|| self.prepare(&shown)).await?;
                prepared.insert(shown.clone(), lasting);
            }
            let Some(Some(lasting)) = prepared.get(&shown) else {
                continue;
            };
            tracing::info!(namespace = %shown, "settling a document that differs");
            let first = from
                .or(one.only_on)
                .unwrap_or(self.shared.document_rules.tie);
            let key = key.within(lasting);
            let request = SettleRequest::new(key, BYTES_UNKNOWN, settlement.clone());
            wanted.push((PipelineId::from_source(first), request));
        }
        insist(|| pass_present(self.shared, self.clusters)).await?;
        self.shared.exchange.request_settlements(wanted);
        wait_for(Some(settlement)).await;
        Ok(())
    }

    async fn prepare(&self, shown: &Namespace) -> Result<Option<Namespace>> {
        let uuid = async |side: Side| {
            let name = self.shared.collections.renames().on(side, shown);
            let listed = list(&self.clusters[side], &name).await?;
            Ok::<_, Error>(listed.and_then(|listed| listed.uuid))
        };
        let uuids = Pair::new(uuid(Side::A).await?, uuid(Side::B).await?);
        prepare(self.shared, self.clusters, shown, uuids).await
    }
}

/// Has the running link settle documents. False where no link runs.
///
/// # Errors
/// As the running link says.
pub async fn repair_from_outside(config: &Config, repairs: &Repairs) -> Result<bool> {
    for keys in repairs.keys.chunks(KEYS_PER_REQUEST_MAX) {
        let request = Request::Repair {
            keys: keys.to_vec(),
            from: repairs.from,
        };
        match ask(&config.link.state_dir, &request).await? {
            None => return Ok(false),
            Some(Answer::Line(Response::Repaired { tally })) => {
                let all = repairs.tally.lock();
                all.unwrap_or_else(PoisonError::into_inner).add(&tally);
            }
            Some(Answer::Line(response)) => return Err(unexpected(&response)),
            Some(Answer::Records(_)) => return Err(Error::bug("records for an order")),
        }
    }
    Ok(true)
}

/// What a running link answers to a request for repairs.
///
/// # Errors
/// As [`Repair::settle`]; 124 where the link does not get to it.
pub async fn answer(repair: &Repair<'_>, repairs: &Repairs) -> Result<Tally> {
    let settled = tokio::time::timeout(REQUEST_TIME_MAX, repair.settle(repairs)).await;
    settled.map_err(|_| {
        Error::timed_out("the running tandem did not get to these documents in time")
            .hint("`tandem status` says what it waits for")
    })??;
    let tally = repairs.tally.lock();
    Ok(*tally.unwrap_or_else(PoisonError::into_inner))
}

/// One line about a merge that goes on, from its numbers as JSON.
pub fn progress_line(numbers: &Value) -> String {
    let number = |name: &str| numbers[name].as_u64().unwrap_or(0);
    format!(
        "{}: {} of about {} documents read on both sides, {} per second",
        numbers["state"].as_str().unwrap_or("waiting"),
        number("documents_done"),
        number("documents_total"),
        number("documents_per_second"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::rawdoc;

    #[test]
    fn a_key_of_any_type_comes_back() {
        let namespace = Namespace::new("shop", "orders");
        for raw in [rawdoc! { "_id": 1 }, rawdoc! { "_id": { "x": "ä" } }] {
            let key = DocumentKey::of(&namespace, &raw).unwrap();
            let sent = RepairKey::of(&key, None).decoded().unwrap();
            assert_eq!(sent.raw().as_bytes(), key.raw().as_bytes());
        }
    }
}
