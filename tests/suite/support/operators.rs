//! Documents and updates as applications write them: every operator, each with the write's id.

use bson::{Bson, Document, doc};
use mongodb::options::UpdateModifications;

use super::random::Random;

const LIST_MAX: i32 = 8;
const NUMBERS: u64 = 1000;

/// A key's `_id`: a number, a string or a sub-document, by the key.
pub fn id_of(key: u32) -> Bson {
    match key % 3 {
        0 => Bson::Int32(key as i32),
        1 => Bson::String(format!("k{key}")),
        _ => Bson::Document(doc! { "k": key as i32 }),
    }
}

/// A whole document whose `seen` is `seen`.
pub fn document(random: &mut Random, key: u32, seen: Vec<String>) -> Document {
    let mut whole = doc! { "_id": id_of(key), "seen": seen };
    whole.extend(body(random));
    whole
}

/// Fields other than `_id` and `seen`; the arrays are always there, some operators need them.
fn body(random: &mut Random) -> Document {
    doc! {
        "name": word(random),
        "count": number(random),
        "factor": 1.5,
        "list": [number(random), number(random), number(random)],
        "tags": [word(random), word(random)],
        "flags": number(random),
        "items": [item(random), item(random)],
        "nested": { "deep": { "x": number(random), "y": Bson::Null } },
        "total": i64::from(number(random)),
    }
}

fn item(random: &mut Random) -> Document {
    doc! { "sku": word(random), "qty": number(random) }
}

fn number(random: &mut Random) -> i32 {
    random.below(NUMBERS) as i32
}

fn word(random: &mut Random) -> String {
    format!("w{:x}", random.below(4096))
}

/// An update that appends `id` to `seen` and does something else besides.
pub fn update(random: &mut Random, id: &str) -> UpdateModifications {
    match random.below(10) {
        0..=3 => with_push(on_values(random), id),
        4..=7 => with_push(on_arrays(random), id),
        _ => pipeline(random, id).into(),
    }
}

/// Adds the id to the `$push` that may be there already.
fn with_push(mut update: Document, id: &str) -> UpdateModifications {
    let mut push = update.get_document("$push").cloned().unwrap_or_default();
    push.insert("seen", id);
    update.insert("$push", push);
    update.into()
}

fn on_values(random: &mut Random) -> Document {
    match random.below(11) {
        0 => doc! { "$set": { "name": word(random), "nested.deep.x": number(random) } },
        1 => doc! { "$set": { "nested": { "deep": { "y": word(random) } } } },
        2 => doc! { "$unset": { "name": "", "nested.deep.y": "" } },
        3 => doc! { "$inc": { "count": number(random), "nested.deep.z": 1 } },
        4 => doc! { "$mul": { "factor": 1.01 } },
        5 => doc! { "$min": { "low": number(random) } },
        6 => doc! { "$max": { "high": number(random) } },
        7 => doc! { "$rename": { "name": "title" } },
        8 => doc! { "$bit": { "flags": { "xor": number(random) } } },
        9 => doc! { "$currentDate": { "touched": true } },
        _ => doc! { "$unset": { "title": "" }, "$set": { "total": i64::from(number(random)) } },
    }
}

fn on_arrays(random: &mut Random) -> Document {
    match random.below(10) {
        0 => doc! { "$push": { "list": number(random) } },
        1 => doc! { "$push": { "list": {
            "$each": [number(random), number(random)], "$sort": 1, "$slice": -LIST_MAX,
        } } },
        2 => doc! { "$push": { "list": { "$each": [number(random)], "$position": 0 } } },
        3 => doc! { "$push": { "items": {
            "$each": [item(random)], "$sort": { "qty": -1 }, "$slice": LIST_MAX,
        } } },
        4 => doc! { "$pull": { "list": { "$lt": number(random) } } },
        5 => doc! { "$pullAll": { "tags": [word(random)] } },
        6 => doc! { "$addToSet": { "tags": { "$each": [word(random), "always"] } } },
        7 => doc! { "$pop": { "list": if random.percent(50) { 1 } else { -1 } } },
        8 => doc! { "$inc": { "items.$[].qty": 1 } },
        _ => doc! { "$set": { "tags": [word(random)], "list": [number(random)] } },
    }
}

/// An update with `arrayFilters`, which stand beside the update and not in it.
pub fn filtered_update(random: &mut Random, id: &str) -> (Document, Document) {
    (
        doc! { "$set": { "items.$[few].qty": number(random) }, "$push": { "seen": id } },
        doc! { "few.qty": { "$lt": number(random) } },
    )
}

fn pipeline(random: &mut Random, id: &str) -> Vec<Document> {
    let seen = doc! { "$concatArrays": ["$seen", [id]] };
    match random.below(5) {
        0 => vec![doc! { "$set": { "seen": seen, "total": { "$size": "$list" } } }],
        1 => vec![
            doc! { "$unset": ["nested.deep.x", "title"] },
            doc! { "$set": { "seen": seen } },
        ],
        2 => vec![doc! { "$set": {
            "seen": seen,
            "list": { "$slice": ["$list", 2] },
            "nested.deep": { "$mergeObjects": ["$nested.deep", { "w": number(random) }] },
        } }],
        3 => vec![doc! { "$set": { "seen": seen, "list": { "$reverseArray": "$list" } } }],
        _ => {
            let mut fresh = doc! { "_id": "$_id", "seen": seen };
            for (field, value) in body(random) {
                fresh.insert(field, doc! { "$literal": value });
            }
            vec![doc! { "$replaceWith": fresh }]
        }
    }
}
