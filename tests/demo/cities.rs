//! A real data set is loaded into one side, and tandem is killed in the middle of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, RawDocumentBuf};
use mongodb::Collection;

use crate::narrate::{Narrator, grouped};
use crate::stage::Stage;
use crate::{Outcome, proof};

const CITIES_MIN: usize = 100_000;
const INSERT_DOCUMENTS_MAX: usize = 500;
const ARRIVED_TIME_MAX: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(200);

/// Loads the cities into eu and returns once us has them all.
pub async fn load(stage: &mut Stage, narrator: &mut Narrator, file: &Path) -> Outcome<()> {
    narrator.heading("A real load on one side, and a kill in the middle of it");
    let cities = Arc::new(read(file)?);
    let total = cities.len() as u64;
    let bytes: usize = cities.iter().map(|city| city.as_bytes().len()).sum();
    narrator.say(&format!(
        "{} cities of the world (GeoNames, CC BY 4.0), {} MB, go into geo.cities on eu.",
        grouped(total),
        bytes / 1_000_000
    ));
    narrator.say("us has no such collection; tandem creates it first.");

    let loaded = Arc::new(AtomicU64::new(0));
    let raw = stage.cities()[0].clone_with_type::<RawDocumentBuf>();
    let loader = tokio::spawn(insert_all(raw, cities.clone(), loaded.clone()));
    let started = Instant::now();
    let mut act = Act::BeforeTheKill;
    loop {
        let on_us = stage.cities()[1].estimated_document_count().await?;
        let on_eu = loaded.load(Ordering::Relaxed);
        narrator.live(&progress(total, on_eu, on_us, started.elapsed(), act));
        if on_us >= total {
            break;
        }
        if started.elapsed() > ARRIVED_TIME_MAX {
            return Err(format!("us has only {on_us} cities\n{}", stage.link.log_tail()).into());
        }
        if loader.is_finished() && on_eu < total {
            break;
        }
        match act {
            Act::BeforeTheKill if on_us > total / 5 => {
                let pid = stage.link.pid()?;
                stage.link.kill9();
                narrator.end_live(&format!("kill -9 {pid}: tandem is dead, eu writes on."));
                act = Act::Dead {
                    since: Instant::now(),
                };
            }
            Act::Dead { since } if since.elapsed() > Duration::from_secs(1) => {
                stage.link.start().await?;
                let pid = stage.link.pid()?;
                narrator.end_live(&format!(
                    "Started again as process {pid}: it goes on after its last checkpoint."
                ));
                act = Act::After;
            }
            Act::BeforeTheKill | Act::Dead { .. } | Act::After => {}
        }
        tokio::time::sleep(TICK).await;
    }
    loader.await??;
    let seconds = started.elapsed().as_secs_f64();
    narrator.end_live(&format!(
        "All {} arrived {seconds:.1} s after the load began, kill included.",
        grouped(total)
    ));
    stage.settle().await?;
    proof::as_loaded(stage, narrator, &cities).await
}

#[derive(Clone, Copy)]
enum Act {
    BeforeTheKill,
    Dead { since: Instant },
    After,
}

fn progress(total: u64, on_eu: u64, on_us: u64, elapsed: Duration, act: Act) -> String {
    let rate = (on_eu as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    let tandem = match act {
        Act::Dead { .. } => "dead",
        Act::BeforeTheKill | Act::After => "runs",
    };
    format!(
        "eu {:>7} of {} ({}/s)   us {:>7}   behind {:>7}   tandem {tandem}",
        grouped(on_eu),
        grouped(total),
        grouped(rate),
        grouped(on_us),
        grouped(on_eu.saturating_sub(on_us)),
    )
}

async fn insert_all(
    into: Collection<RawDocumentBuf>,
    cities: Arc<Vec<RawDocumentBuf>>,
    loaded: Arc<AtomicU64>,
) -> Outcome<()> {
    for some in cities.chunks(INSERT_DOCUMENTS_MAX) {
        into.insert_many(some).await?;
        loaded.fetch_add(some.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// The cities in the order of their ids, which become `_id`.
fn read(file: &Path) -> Outcome<Vec<RawDocumentBuf>> {
    let reader = BufReader::with_capacity(1 << 20, File::open(file)?);
    let found: BTreeMap<String, Document> = serde_json::from_reader(reader)?;
    if found.len() < CITIES_MIN {
        return Err(format!("{} holds only {} cities", file.display(), found.len()).into());
    }
    let mut cities = Vec::with_capacity(found.len());
    for mut fields in found.into_values() {
        let id = fields.remove("geonameid").ok_or("a city without an id")?;
        let mut city = Document::new();
        city.insert("_id", id);
        city.extend(fields);
        cities.push(RawDocumentBuf::try_from(&city)?);
    }
    Ok(cities)
}
