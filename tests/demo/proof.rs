//! The proof: both sides hold the same bytes.

use std::collections::BTreeMap;

use bson::{RawDocument, RawDocumentBuf, cstr, doc};
use futures_util::StreamExt;
use mongodb::Client;
use sha2::{Digest as _, Sha256};

use crate::Outcome;
use crate::narrate::{Narrator, grouped};
use crate::stage::Stage;

const DATABASE: &str = "geo";

/// What a namespace holds: SHA-256 over its documents in the order of the bytes of their `_id`.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    documents: u64,
    bytes: u64,
    sha256: String,
}

/// Documents by the bytes of their `_id`, each as its length and its own digest.
#[derive(Default)]
struct Sums {
    by_id: BTreeMap<Vec<u8>, [u8; 32]>,
    bytes: u64,
}

impl Sums {
    fn add(&mut self, document: &RawDocument) -> Outcome<()> {
        let id = document.get("_id")?.ok_or("a document without _id")?;
        let mut alone = RawDocumentBuf::new();
        alone.append(cstr!("_id"), id);
        self.bytes += document.as_bytes().len() as u64;
        let sum = Sha256::digest(document.as_bytes()).into();
        self.by_id.insert(alone.into_bytes(), sum);
        Ok(())
    }

    fn contents(self) -> Contents {
        let mut whole = Sha256::new();
        for sum in self.by_id.values() {
            whole.update(sum);
        }
        let digest = whole.finalize();
        Contents {
            documents: self.by_id.len() as u64,
            bytes: self.bytes,
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// Both sides hold what was loaded, down to the byte: no field came, none was changed.
pub async fn as_loaded(
    stage: &Stage,
    narrator: &Narrator,
    loaded: &[RawDocumentBuf],
) -> Outcome<()> {
    let mut sums = Sums::default();
    for document in loaded {
        sums.add(document)?;
    }
    let loaded = sums.contents();
    for (name, side) in [("eu", &stage.eu), ("us", &stage.us)] {
        let found = contents(side.client(), "cities").await?;
        if found != loaded {
            return Err(format!("{name} holds {found:?} instead of {loaded:?}").into());
        }
    }
    narrator.good(&format!(
        "eu and us hold the bytes of the file, {}…: nothing added, nothing twice.",
        &loaded.sha256[..16]
    ));
    Ok(())
}

/// Compares every document of both sides.
pub async fn both_sides_are_equal(stage: &Stage, narrator: &mut Narrator) -> Outcome<()> {
    narrator.heading("The proof");
    narrator.say("Every document of both sides, byte for byte, field order included:");
    stage.settle().await?;
    are_equal(
        narrator,
        [("eu", stage.eu.client()), ("us", stage.us.client())],
    )
    .await
}

/// The same of any two clusters.
pub async fn are_equal(narrator: &Narrator, sides: [(&str, &Client); 2]) -> Outcome<()> {
    let [(eu_name, eu), (us_name, us)] = sides;
    let mut names = eu.database(DATABASE).list_collection_names().await?;
    names.extend(us.database(DATABASE).list_collection_names().await?);
    names.sort();
    names.dedup();
    let mut different = Vec::new();
    println!();
    for name in names {
        let (of_eu, of_us) = tokio::try_join!(contents(eu, &name), contents(us, &name))?;
        for (side, found) in [(eu_name, &of_eu), (us_name, &of_us)] {
            narrator.say(&format!(
                "{side:<3} {:<15} {:>8} documents {:>11} bytes  {}",
                format!("{DATABASE}.{name}"),
                grouped(found.documents),
                grouped(found.bytes),
                found.sha256
            ));
        }
        if of_eu != of_us {
            different.push(name);
        }
    }
    println!();
    if !different.is_empty() {
        let different = different.join(", ");
        return Err(format!("{eu_name} and {us_name} differ in {different}").into());
    }
    narrator.good(&format!("{eu_name} and {us_name} are equal."));
    Ok(())
}

async fn contents(client: &Client, collection: &str) -> Outcome<Contents> {
    let found = client
        .database(DATABASE)
        .collection::<RawDocumentBuf>(collection);
    let mut batches = found.find(doc! {}).batch().await?;
    let mut sums = Sums::default();
    while let Some(batch) = batches.next().await {
        let batch = batch?;
        for document in batch.doc_slices()?.into_iter() {
            let document = document?;
            sums.add(document.as_document().ok_or("a batch of documents")?)?;
        }
    }
    Ok(sums.contents())
}
