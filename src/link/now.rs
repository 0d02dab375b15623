//! What both clusters hold of a record's document at this moment.

use bson::RawDocument;

use super::both_clusters::with_both;
use super::dead_letters::{key_of, unreadable};
use super::identity::must_know_names;
use super::swap;
use crate::change::Side;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::report::show::Now;

/// # Errors
/// Exit 2 where the record is about no document; as the clusters say.
pub async fn now(config: &Config, id: &str, record: &RawDocument) -> Result<Now> {
    if record.get_document("document_key").is_err() {
        return Err(Error::usage(format!("record {id} is about no document"))
            .hint("leave out --now; `tandem verify` compares definitions too"));
    }
    let key = key_of(record).ok_or_else(|| unreadable(id))?;
    let won = record.get_document("winning").ok();
    let won = won.and_then(|winning| winning.get_document("document").ok());
    let redacted = record.get_array("redacted").ok();
    let is_redacted = redacted.is_some_and(|paths| !paths.is_empty());
    with_both(config, async |clusters| {
        must_know_names(config, clusters).await?;
        let on_b = config.namespaces.renames().key_on(Side::B, &key);
        let (a, b) = tokio::try_join!(
            swap::read(&clusters.a, &key),
            swap::read(&clusters.b, &on_b)
        )?;
        Ok(match a == b {
            false => Now::Differ,
            true if a.as_deref() == won && record.get_document("winning").is_ok() => {
                Now::EqualToWinner
            }
            true if is_redacted => Now::EqualAndRedacted,
            true => Now::Equal,
        })
    })
    .await
}
