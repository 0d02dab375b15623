//! Conflicts of each kind, made on purpose: tandem sleeps while both sides write the same city.

use std::time::Duration;

use bson::{Document, doc};
use mongodb::Collection;
use serde_json::Value;

use crate::Outcome;
use crate::narrate::Narrator;
use crate::stage::Stage;

/// The later write is later by any clock.
const APART: Duration = Duration::from_millis(20);
const REPORT_LINES_MAX: usize = 20;
const RECORD_LINES_MAX: usize = 60;
const ATLANTIS: i32 = 900_000_001;
const PARIS: i32 = 2_988_507;
const ROME: i32 = 3_169_070;
const OSLO: i32 = 3_143_244;
const LISBON: i32 = 2_267_057;

/// What one side does to a city.
enum Act {
    Found(Document),
    Set(Document),
    Delete,
}

/// Two writes to one city; the second one is the later.
struct Race {
    city: &'static str,
    id: i32,
    /// The record it must leave.
    kind: Option<&'static str>,
    /// On eu or us, in words, and what it is.
    acts: [(usize, &'static str, Act); 2],
}

const EU: usize = 0;
const US: usize = 1;

fn races() -> [Race; 5] {
    let mayor = |name: &str| doc! { "mayor": name };
    let atlantis = |by: &str| doc! { "_id": ATLANTIS, "name": "Atlantis", "founded_by": by };
    [
        Race {
            city: "Atlantis",
            id: ATLANTIS,
            kind: Some("insert_exists"),
            acts: [
                (EU, "founded by Plato", Act::Found(atlantis("Plato"))),
                (US, "founded by Verne", Act::Found(atlantis("Verne"))),
            ],
        },
        Race {
            city: "Paris",
            id: PARIS,
            kind: Some("update_origin_differs"),
            acts: [
                (US, "mayor Amélie", Act::Set(mayor("Amélie"))),
                (EU, "mayor Gavroche", Act::Set(mayor("Gavroche"))),
            ],
        },
        Race {
            city: "Rome",
            id: ROME,
            kind: Some("update_deleted"),
            acts: [
                (EU, "mayor Nero", Act::Set(mayor("Nero"))),
                (US, "deleted", Act::Delete),
            ],
        },
        Race {
            city: "Oslo",
            id: OSLO,
            kind: Some("delete_origin_differs"),
            acts: [
                (US, "deleted", Act::Delete),
                (EU, "mayor Nora", Act::Set(mayor("Nora"))),
            ],
        },
        Race {
            city: "Lisbon",
            id: LISBON,
            kind: None,
            acts: [
                (EU, "mayor Vasco", Act::Set(mayor("Vasco"))),
                (US, "mayor Vasco", Act::Set(mayor("Vasco"))),
            ],
        },
    ]
}

pub async fn provoke(stage: &mut Stage, narrator: &mut Narrator) -> Outcome<()> {
    narrator.heading("Conflicts of each kind, on purpose");
    let races = races();
    prepare(stage, &races).await?;
    let since = format!("{:.3}", jiff::Timestamp::now());
    let pid = stage.link.pid()?;
    narrator.command(&format!("kill -STOP {pid}"));
    stage.link.freeze()?;
    narrator
        .say("While tandem sleeps, both sides write the same cities; the later write is below.");
    run(stage, narrator, &races).await?;
    narrator.command(&format!("kill -CONT {pid}"));
    stage.link.thaw()?;
    let settled = stage.settle().await?;
    narrator.say(&format!(
        "Awake again, it settled them in {:.2} s. Now both sides say:",
        settled.as_secs_f64()
    ));
    println!();
    for race in &races {
        let [on_eu, on_us] = [state(stage, EU, race).await?, state(stage, US, race).await?];
        if on_eu != on_us {
            return Err(format!("{}: {on_eu} on eu, {on_us} on us", race.city).into());
        }
        narrator.say(&format!("{:<9} {on_eu}", race.city));
    }
    report(stage, narrator, &since, &races)
}

/// The cities as they are raced for, on both sides.
async fn prepare(stage: &Stage, races: &[Race]) -> Outcome<()> {
    let cities = &stage.cities()[EU];
    for race in races.iter().filter(|race| race.id != ATLANTIS) {
        let key = doc! { "_id": race.id };
        let fields = doc! { "$set": { "name": race.city }, "$unset": { "mayor": "" } };
        cities.update_one(key, fields).upsert(true).await?;
    }
    stage.settle().await?;
    Ok(())
}

async fn run(stage: &Stage, narrator: &Narrator, races: &[Race]) -> Outcome<()> {
    let cities = stage.cities();
    for earlier_or_later in [0, 1] {
        for race in races {
            let (side, _, act) = &race.acts[earlier_or_later];
            act.run(&cities[*side], race.id).await?;
        }
        tokio::time::sleep(APART).await;
    }
    for race in races {
        println!();
        for (side, words, _) in &race.acts {
            narrator.say(&format!(
                "{:<9} {}: {words}",
                race.city,
                ["eu", "us"][*side]
            ));
        }
    }
    Ok(())
}

impl Act {
    async fn run(&self, cities: &Collection<Document>, id: i32) -> Outcome<()> {
        let key = doc! { "_id": id };
        match self {
            Act::Found(whole) => {
                cities.insert_one(whole).await?;
            }
            Act::Set(fields) => {
                cities
                    .update_one(key, doc! { "$set": fields.clone() })
                    .await?;
            }
            Act::Delete => {
                cities.delete_one(key).await?;
            }
        }
        Ok(())
    }
}

async fn state(stage: &Stage, side: usize, race: &Race) -> Outcome<String> {
    let found = stage.cities()[side]
        .find_one(doc! { "_id": race.id })
        .await?;
    let Some(city) = found else {
        return Ok("deleted".to_owned());
    };
    let said = [("mayor", "mayor"), ("founded_by", "founded by")];
    let said = said.iter().find_map(|(field, words)| {
        let value = city.get_str(field).ok()?;
        Some(format!("{words} {value}"))
    });
    Ok(said.unwrap_or_else(|| "as it was".to_owned()))
}

fn report(stage: &Stage, narrator: &Narrator, since: &str, races: &[Race]) -> Outcome<()> {
    println!();
    narrator.say("Every loser is on record. Lisbon is not: both sides wrote the same.");
    let list = ["conflict-report", "--since", since];
    stage.link.show(narrator, &list, REPORT_LINES_MAX)?;
    let found = stage
        .link
        .json(&[&list[..], &["--format", "json"]].concat())?;
    let records = found["conflicts"]
        .as_array()
        .ok_or("a report without conflicts")?;
    for race in races {
        must_be_on_record(race, records)?;
    }
    narrator.say("All of today, the two writers' included, counted:");
    let summary = ["conflict-report", "--summary"];
    stage.link.show(narrator, &summary, REPORT_LINES_MAX)?;
    narrator.say("One record holds the whole loser, so that nothing is ever gone:");
    let atlantis = records
        .iter()
        .find(|record| record["kind"] == "insert_exists");
    if let Some(record) = atlantis {
        let id = record["id"]
            .as_str()
            .or(record["_id"].as_str())
            .unwrap_or_default();
        narrator.command(&format!(
            "tandem conflict-report --id {id} --format json | jq '.conflicts[0] | del(.losing.change)'"
        ));
        let mut shown = record.clone();
        if let Some(losing) = shown["losing"].as_object_mut() {
            losing.shift_remove("change");
        }
        narrator.output(&serde_json::to_string_pretty(&shown)?, RECORD_LINES_MAX);
    }
    stage.link.show(narrator, &["status"], REPORT_LINES_MAX)
}

/// Exactly one record of the kind where there must be one, none where there was no conflict.
fn must_be_on_record(race: &Race, records: &[Value]) -> Outcome<()> {
    let id = race.id.to_string();
    let kinds: Vec<&Value> = records
        .iter()
        .filter(|record| record["document_key"].to_string().contains(&id))
        .map(|record| &record["kind"])
        .collect();
    let wanted: Vec<Value> = race.kind.iter().map(|kind| Value::from(*kind)).collect();
    if kinds.iter().copied().eq(wanted.iter()) {
        return Ok(());
    }
    Err(format!("{}: on record is {kinds:?}, expected {wanted:?}", race.city).into())
}
