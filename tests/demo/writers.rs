//! Applications write to both sides at once, to the same cities.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::TryStreamExt;
use mongodb::Collection;

use crate::Outcome;
use crate::narrate::{Narrator, grouped};
use crate::random::Random;
use crate::stage::Stage;

const WRITING_TIME: Duration = Duration::from_secs(10);
const WRITERS_PER_SIDE: u64 = 4;
/// Few enough for writers to meet.
const CITIES_WRITTEN: i64 = 500;
const PAUSE: Duration = Duration::from_millis(4);
const TICK: Duration = Duration::from_millis(250);

pub async fn both_sides_write(stage: &Stage, narrator: &mut Narrator) -> Outcome<()> {
    narrator.heading("Both sides write at once");
    narrator.say(&format!(
        "{} writers a side update, replace, delete and insert the {CITIES_WRITTEN} largest cities",
        WRITERS_PER_SIDE
    ));
    narrator.say(&format!(
        "for {} s. Some of them are bound to meet.",
        WRITING_TIME.as_secs()
    ));
    let largest = Arc::new(largest(&stage.cities()[0]).await?);
    let end = Instant::now() + WRITING_TIME;
    let written = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    let mut writers = Vec::new();
    for (side, cities) in stage.cities().into_iter().enumerate() {
        for number in 0..WRITERS_PER_SIDE {
            let writer = Writer {
                name: format!("{}-{number}", ["eu", "us"][side]),
                cities: cities.clone(),
                largest: largest.clone(),
                random: Random::new(side as u64 * WRITERS_PER_SIDE + number),
                written: written[side].clone(),
            };
            writers.push(tokio::spawn(writer.write_until(end)));
        }
    }
    let counts = || [0, 1].map(|side| written[side].load(Ordering::Relaxed));
    while Instant::now() < end {
        tokio::time::sleep(TICK).await;
        let [eu, us] = counts();
        let losers = losers_on_record(stage)?;
        narrator.live(&format!(
            "eu {:>6} writes   us {:>6} writes   losers on record {:>5}",
            grouped(eu),
            grouped(us),
            grouped(losers)
        ));
    }
    for writer in writers {
        writer.await??;
    }
    let drained = stage.settle().await?;
    let [eu, us] = counts();
    narrator.end_live(&format!(
        "{} writes on eu, {} on us; {:.2} s after the last one both were in step.",
        grouped(eu),
        grouped(us),
        drained.as_secs_f64()
    ));
    narrator.say(&format!(
        "{} writes lost a race on the way; all of them are on record.",
        grouped(losers_on_record(stage)?)
    ));
    Ok(())
}

fn losers_on_record(stage: &Stage) -> Outcome<u64> {
    let summary = ["conflict-report", "--summary", "--format", "json"];
    let total = &stage.link.json(&summary)?["total"];
    Ok(total.as_u64().ok_or("a summary without a total")?)
}

async fn largest(cities: &Collection<Document>) -> Outcome<Vec<Document>> {
    let found = cities
        .find(doc! {})
        .sort(doc! { "population": -1 })
        .limit(CITIES_WRITTEN);
    Ok(found.await?.try_collect().await?)
}

struct Writer {
    name: String,
    cities: Collection<Document>,
    largest: Arc<Vec<Document>>,
    random: Random,
    written: Arc<AtomicU64>,
}

impl Writer {
    async fn write_until(mut self, end: Instant) -> Outcome<()> {
        while Instant::now() < end {
            self.write().await?;
            self.written.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn write(&mut self) -> Outcome<()> {
        let largest = self.largest.clone();
        let city = self.random.pick(&largest);
        let key = doc! { "_id": city.get("_id") };
        match self.random.below(100) {
            0..4 => {
                self.cities.delete_one(key).await?;
            }
            4..16 => {
                let mut whole = city.clone();
                whole.insert("mayor", &self.name);
                self.cities.replace_one(key, whole).upsert(true).await?;
            }
            _ => {
                let visitors = self.random.below(1000) as i32;
                let change = doc! {
                    "$inc": { "visits": 1 },
                    "$set": { "last_visit": { "by": &self.name, "visitors": visitors } },
                    "$push": { "guests": { "$each": [visitors], "$slice": -5 } },
                };
                self.cities.update_one(key, change).await?;
            }
        }
        Ok(())
    }
}
