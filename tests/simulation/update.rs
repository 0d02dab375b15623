//! What an update makes of a document, and how the oplog tells the difference.

use bson::{Bson, DateTime, Document, doc};

use crate::query::{at, compare, condition_holds, expression, list, sub};

/// Whether an update finds its document or makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    Found,
    Made,
}

/// The document after the update.
pub fn updated(before: &Document, update: &Bson, base: Base, now: DateTime) -> Document {
    match update {
        Bson::Document(operators) if operators.keys().any(|name| name.starts_with('$')) => {
            let mut after = before.clone();
            for (operator, fields) in operators {
                apply(&mut after, operator, sub(fields), base);
            }
            after
        }
        Bson::Document(replacement) => with_id(before, replacement),
        Bson::Array(stages) => stages.iter().fold(before.clone(), |document, stage| {
            staged(&document, sub(stage), now)
        }),
        other => panic!("the simulation knows no update {other}"),
    }
}

fn with_id(before: &Document, replacement: &Document) -> Document {
    if replacement.contains_key("_id") {
        return replacement.clone();
    }
    let mut after = doc! { "_id": before.get("_id").cloned() };
    after.extend(replacement.clone());
    after
}

fn staged(document: &Document, stage: &Document, now: DateTime) -> Document {
    let (name, value) = stage.iter().next().expect("a stage");
    match name.as_str() {
        "$replaceWith" => sub(&expression(value, document, now)).clone(),
        "$set" => {
            let mut after = document.clone();
            for (field, value) in sub(value) {
                after.insert(field, expression(value, document, now));
            }
            after
        }
        other => panic!("the simulation knows no stage {other}"),
    }
}

fn apply(document: &mut Document, operator: &str, fields: &Document, base: Base) {
    let mut names: Vec<&String> = fields.keys().collect();
    // New fields come in the order of their names, not in the one they are given in.
    names.sort();
    for name in names {
        let value = &fields[name];
        match operator {
            "$set" => set(document, name, value.clone()),
            "$setOnInsert" if base == Base::Made => set(document, name, value.clone()),
            "$setOnInsert" => {}
            "$unset" => drop(document.remove(name)),
            "$max" => {
                let less = document
                    .get(name)
                    .is_none_or(|found| compare(found, value).is_some_and(|order| order.is_lt()));
                if less {
                    set(document, name, value.clone());
                }
            }
            "$inc" => {
                let before = document.get(name).and_then(Bson::as_i64).unwrap_or(0);
                set(
                    document,
                    name,
                    Bson::Int64(before + value.as_i64().expect("an int64")),
                );
            }
            "$push" => push(document, name, value),
            "$pull" => pull(document, name, value),
            other => panic!("the simulation knows no update operator {other}"),
        }
    }
}

fn set(document: &mut Document, name: &str, value: Bson) {
    assert!(!name.contains('.'), "the simulation sets no path {name}");
    document.insert(name, value);
}

fn push(document: &mut Document, name: &str, value: &Bson) {
    let more = match value.as_document().and_then(|value| value.get("$each")) {
        Some(each) => list(each).to_vec(),
        None => vec![value.clone()],
    };
    let mut pushed = document.get_array(name).cloned().unwrap_or_default();
    pushed.extend(more);
    document.insert(name, pushed);
}

fn pull(document: &mut Document, name: &str, value: &Bson) {
    let condition = sub(value);
    if let Ok(found) = document.get_array_mut(name) {
        found.retain(|one| {
            !condition
                .iter()
                .all(|(path, wanted)| condition_holds(at(sub(one), path), wanted))
        });
    }
}

/// The oplog's difference of two documents, where one update could have made it; none where only a
/// replacement tells it.
pub fn difference(before: &Document, after: &Document) -> Option<Document> {
    let (mut removed, mut changed, mut added) = (doc! {}, doc! {}, doc! {});
    for (name, value) in before {
        match after.get(name) {
            None => drop(removed.insert(name, false)),
            Some(new) if new != value => drop(changed.insert(name, new.clone())),
            Some(_) => {}
        }
    }
    for (name, value) in after {
        if !before.contains_key(name) {
            added.insert(name, value.clone());
        }
    }
    let kept = before.keys().filter(|name| after.contains_key(*name));
    if !kept.chain(added.keys()).eq(after.keys()) {
        return None;
    }
    let mut diff = doc! {};
    for (name, fields) in [("d", removed), ("u", changed), ("i", added)] {
        if !fields.is_empty() {
            diff.insert(name, fields);
        }
    }
    Some(diff)
}
