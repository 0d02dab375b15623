//! Collections' definitions as two clusters have them, and the commands that make one equal the
//! other. Pure but for reading.

use bson::{Bson, Document, Uuid, doc};

use super::change::{Aspect, VALIDATOR};
use crate::change::Namespace;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::pipeline::{indexes, list};

/// A collection's options and indexes on one cluster.
#[derive(Debug, Clone)]
pub struct Definition {
    pub options: Document,
    pub indexes: Vec<Document>,
}

/// One command, and the DDL event that it causes.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub operation: &'static str,
    pub command: Document,
    /// The index it is about, if any.
    pub index: Option<String>,
}

/// What the server fills in where an option is not given.
const VALIDATION_DEFAULTS: [(&str, &str); 2] =
    [("validationLevel", "strict"), ("validationAction", "error")];

/// Options of an index that change in place.
const CHANGEABLE: [&str; 4] = ["hidden", "expireAfterSeconds", "prepareUnique", "unique"];

/// The definition as of now; none where the collection is gone or another one has its name.
///
/// # Errors
/// As the cluster says.
pub async fn read(
    cluster: &Cluster,
    name: &Namespace,
    uuid: Option<Uuid>,
) -> Result<Option<Definition>> {
    let Some(listed) = list(cluster, name).await? else {
        return Ok(None);
    };
    if uuid.is_some() && listed.uuid != uuid {
        return Ok(None);
    }
    let indexes = match listed.uuid {
        Some(_) => indexes(cluster, name).await?,
        None => Vec::new(),
    };
    // Indexes are listed by name, which another collection may have got in between.
    let again = list(cluster, name).await?;
    if again.and_then(|again| again.uuid) != listed.uuid {
        return Ok(None);
    }
    Ok(Some(Definition {
        options: listed.options,
        indexes,
    }))
}

impl Definition {
    pub fn index(&self, name: &str) -> Option<&Document> {
        let mut named = self.indexes.iter();
        named.find(|index| index.get_str("name").is_ok_and(|found| found == name))
    }

    /// Everything that can be changed of a collection.
    pub fn aspects(&self) -> Vec<Aspect> {
        let indexes = self
            .indexes
            .iter()
            .filter_map(|index| index.get_str("name").ok());
        let mut aspects: Vec<Aspect> = indexes
            .filter(|name| *name != "_id_")
            .map(|name| Aspect::Index(name.to_owned()))
            .collect();
        let options = [
            VALIDATOR,
            "changeStreamPreAndPostImages",
            "expireAfterSeconds",
        ];
        aspects.extend(options.map(|name| Aspect::Option(name.to_owned())));
        aspects
    }

    /// Options that no command can change and that differ.
    pub fn fixed_differences(&self, other: &Definition) -> Vec<String> {
        const FIXED: [&str; 6] = [
            "capped",
            "size",
            "max",
            "clusteredIndex",
            "collation",
            "timeseries",
        ];
        let differs = |name: &&str| self.options.get(*name) != other.options.get(*name);
        let names = FIXED.iter().copied().filter(differs);
        names.map(str::to_owned).collect()
    }
}

/// What makes one aspect of `target` as it is in `source`; nothing where it is already.
pub fn steps(
    aspect: &Aspect,
    name: &Namespace,
    source: &Definition,
    target: &Definition,
) -> Vec<Step> {
    match aspect {
        Aspect::Index(index) => index_steps(name, index, source.index(index), target.index(index)),
        Aspect::Option(option) => option_step(name, option, &source.options, &target.options)
            .into_iter()
            .collect(),
    }
}

/// What makes an index as `listIndexes` describes it. One without a collation would get the
/// default one of its collection.
pub fn to_create(listed: &Document) -> Document {
    let mut spec = listed.clone();
    spec.remove("ns");
    if !spec.contains_key("collation") {
        spec.insert("collation", doc! { "locale": "simple" });
    }
    spec
}

fn index_steps(
    name: &Namespace,
    index: &str,
    source: Option<&Document>,
    target: Option<&Document>,
) -> Vec<Step> {
    let step = |operation, command| Step {
        operation,
        command,
        index: Some(index.to_owned()),
    };
    let collection = name.collection();
    let drop = || {
        step(
            "dropIndexes",
            doc! { "dropIndexes": collection, "index": index },
        )
    };
    let create = |spec: &Document| {
        let command = doc! { "createIndexes": collection, "indexes": [to_create(spec)] };
        step("createIndexes", command)
    };
    let (source, target) = match (source, target) {
        (None, None) => return Vec::new(),
        (None, Some(_)) => return vec![drop()],
        (Some(source), None) => return vec![create(source)],
        (Some(source), Some(target)) => (source, target),
    };
    let differing = differing(source, target);
    let modify = |change: Document| {
        let mut body = doc! { "name": index };
        body.extend(change);
        step("modify", doc! { "collMod": collection, "index": body })
    };
    let mut steps = Vec::new();
    let is = |spec: &Document, option: &str| spec.get_bool(option).unwrap_or(false);
    for option in &differing {
        match (option.as_str(), source.get(option)) {
            ("hidden", _) => steps.push(modify(doc! { "hidden": is(source, "hidden") })),
            ("expireAfterSeconds", Some(seconds)) => {
                steps.push(modify(doc! { "expireAfterSeconds": seconds.clone() }));
            }
            ("prepareUnique", _)
                if is(source, "unique") && differing.iter().any(|d| d == "unique") => {}
            ("prepareUnique", _) => {
                steps.push(modify(
                    doc! { "prepareUnique": is(source, "prepareUnique") },
                ));
            }
            ("unique", Some(Bson::Boolean(true))) => {
                if !is(target, "prepareUnique") {
                    steps.push(modify(doc! { "prepareUnique": true }));
                }
                steps.push(modify(doc! { "unique": true }));
            }
            _ => return vec![drop(), create(source)],
        }
    }
    steps
}

pub fn is_same_index(one: &Document, other: &Document) -> bool {
    differing(one, other).is_empty()
}

/// Names of the options that differ, the order of the fields apart; a key's order counts.
fn differing(one: &Document, other: &Document) -> Vec<String> {
    let off = |value: Option<&Bson>| match value {
        None | Some(Bson::Boolean(false)) => None,
        Some(value) => bson::serialize_to_vec(&doc! { "": value.clone() }).ok(),
    };
    let mut names: Vec<String> = one.keys().chain(other.keys()).cloned().collect();
    names.sort_by_key(|name| CHANGEABLE.iter().position(|known| known == name));
    names.dedup();
    names.retain(|name| off(one.get(name)) != off(other.get(name)) && name != "ns");
    names
}

fn option_step(
    name: &Namespace,
    option: &str,
    source: &Document,
    target: &Document,
) -> Option<Step> {
    let mut command = doc! { "collMod": name.collection() };
    let changes = match option {
        VALIDATOR => validation(source),
        "changeStreamPreAndPostImages" => images(source),
        "expireAfterSeconds" => seconds(source),
        _ => Document::new(),
    };
    let there = match option {
        VALIDATOR => validation(target),
        "changeStreamPreAndPostImages" => images(target),
        "expireAfterSeconds" => seconds(target),
        _ => Document::new(),
    };
    if bytes(&changes) == bytes(&there) {
        return None;
    }
    command.extend(changes);
    Some(Step {
        operation: "modify",
        command,
        index: None,
    })
}

/// Options without those that are given as what the server takes where they are not: one side
/// may spell out what the other one leaves open.
pub fn effective(options: &Document) -> Document {
    let mut effective = options.clone();
    let preset = validation(&Document::new());
    for (name, value) in preset.iter().chain(&images(&Document::new())) {
        if effective.get(name) == Some(value) {
            effective.remove(name);
        }
    }
    effective
}

fn validation(options: &Document) -> Document {
    let rule = options.get_document(VALIDATOR).cloned().unwrap_or_default();
    let mut changes = doc! { VALIDATOR: rule };
    for (name, preset) in VALIDATION_DEFAULTS {
        changes.insert(name, options.get_str(name).unwrap_or(preset));
    }
    changes
}

fn images(options: &Document) -> Document {
    let images = options.get_document("changeStreamPreAndPostImages");
    let enabled = images
        .and_then(|images| images.get_bool("enabled"))
        .unwrap_or(false);
    doc! { "changeStreamPreAndPostImages": { "enabled": enabled } }
}

fn seconds(options: &Document) -> Document {
    let seconds = options.get("expireAfterSeconds").cloned();
    doc! { "expireAfterSeconds": seconds.unwrap_or_else(|| Bson::String("off".into())) }
}

fn bytes(document: &Document) -> Vec<u8> {
    bson::serialize_to_vec(document).unwrap_or_default()
}

/// What makes a view of `target` as it is in `source`. Nothing happens to a collection.
pub fn view_steps(
    name: &Namespace,
    source: Option<&Document>,
    target: Option<&Document>,
) -> Vec<Step> {
    let step = |operation, command| Step {
        operation,
        command,
        index: None,
    };
    let collection = name.collection();
    let create = |options: &Document| {
        let mut command = doc! { "create": collection };
        command.extend(options.clone());
        step("create", command)
    };
    let drop = || step("drop", doc! { "drop": collection });
    match (source, target) {
        (None, None) => Vec::new(),
        (None, Some(_)) => vec![drop()],
        (Some(source), None) => vec![create(source)],
        (Some(source), Some(target)) if bytes(source) == bytes(target) => Vec::new(),
        (Some(source), Some(target)) if source.get("collation") != target.get("collation") => {
            vec![drop(), create(source)]
        }
        (Some(source), Some(_)) => {
            let mut command = doc! { "collMod": collection };
            for part in ["viewOn", "pipeline"] {
                if let Some(value) = source.get(part) {
                    command.insert(part, value.clone());
                }
            }
            vec![step("modify", command)]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Namespace {
        Namespace::new("shop", "orders")
    }

    fn with(index: Option<Document>) -> Definition {
        Definition {
            options: Document::new(),
            indexes: index.into_iter().collect(),
        }
    }

    fn commands(source: Option<Document>, target: Option<Document>) -> Vec<Document> {
        let aspect = Aspect::Index("x".into());
        let steps = steps(&aspect, &orders(), &with(source), &with(target));
        steps.into_iter().map(|step| step.command).collect()
    }

    fn index(more: Document) -> Option<Document> {
        let mut spec = doc! { "v": 2, "key": { "x": 1 }, "name": "x" };
        spec.extend(more);
        Some(spec)
    }

    #[test]
    fn an_index_that_is_the_same_takes_no_command() {
        assert!(commands(index(doc! {}), index(doc! { "hidden": false })).is_empty());
        assert!(commands(None, None).is_empty());
    }

    #[test]
    fn an_index_is_changed_in_place_where_that_can_be_done() {
        let hidden = commands(index(doc! { "hidden": true }), index(doc! {}));
        let body = doc! { "name": "x", "hidden": true };
        assert_eq!(hidden, [doc! { "collMod": "orders", "index": body }]);
        let unique = commands(
            index(doc! { "unique": true }),
            index(doc! { "prepareUnique": true }),
        );
        let body = doc! { "name": "x", "unique": true };
        assert_eq!(unique, [doc! { "collMod": "orders", "index": body }]);
        assert_eq!(
            commands(index(doc! { "unique": true }), index(doc! {})).len(),
            2
        );
    }

    #[test]
    fn an_index_with_another_key_is_built_anew_and_the_order_of_a_key_counts() {
        let two = |key: Document| Some(doc! { "v": 2, "key": key, "name": "x" });
        let steps = commands(two(doc! { "x": 1, "y": 1 }), two(doc! { "y": 1, "x": 1 }));
        assert_eq!(steps.len(), 2);
        assert!(steps[0].contains_key("dropIndexes"));
    }

    #[test]
    fn an_option_that_is_given_as_its_default_is_the_same() {
        let given =
            doc! { "validator": {}, "validationLevel": "strict", "validationAction": "error" };
        assert_eq!(option_step(&orders(), VALIDATOR, &given, &doc! {}), None);
        assert_eq!(effective(&given), doc! {});
        let rule = doc! { "validator": { "x": 1 } };
        assert!(option_step(&orders(), VALIDATOR, &rule, &doc! {}).is_some());
    }

    #[test]
    fn a_view_is_made_changed_and_dropped() {
        let one = doc! { "viewOn": "orders", "pipeline": [] };
        let other = doc! { "viewOn": "orders", "pipeline": [{ "$limit": 1 }] };
        let operations = |source, target| {
            let steps = view_steps(&orders(), source, target);
            steps.iter().map(|step| step.operation).collect::<Vec<_>>()
        };
        assert_eq!(operations(Some(&one), None), ["create"]);
        assert_eq!(operations(Some(&one), Some(&other)), ["modify"]);
        assert_eq!(operations(Some(&one), Some(&one)), [""; 0]);
        assert_eq!(operations(None, Some(&one)), ["drop"]);
    }
}
