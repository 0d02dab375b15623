//! What is left to the server, and what is not.

use super::*;
use crate::change::{Pattern, Rename, Renames, Selection, Side};

fn filter(namespace: &str, query: Option<RawDocumentBuf>, deletes: Deletes) -> Filter {
    Filter {
        pattern: Pattern::parse(namespace).unwrap(),
        selection: Selection {
            filter: query,
            projection: None,
        },
        deletes,
        typed: format!("{namespace}\n…"),
    }
}

fn archive(namespace: &str) -> Filter {
    filter(namespace, None, Deletes::Ignored)
}

fn of_europe(namespace: &str) -> Filter {
    let query = rawdoc! { "region": "EU" };
    filter(namespace, Some(query), Deletes::Replicated)
}

fn collection(name: &str, number: u8) -> SimpleCollection {
    SimpleCollection {
        name: Namespace::parse(name).unwrap(),
        uuid: uuid(number),
    }
}

fn uuid(number: u8) -> Uuid {
    Uuid::from_bytes([number; 16])
}

/// Without deletes of this database outside of it, or of this one collection.
fn no_deletes(database: &str, elsewhere: RawDocumentBuf) -> RawDocumentBuf {
    rawdoc! { "$or": [
        { "operationType": { "$ne": "delete" } },
        { "ns.db": { "$ne": database } },
        { "ns.coll": elsewhere },
    ] }
}

fn left_out(filters: Vec<Filter>, collections: &[SimpleCollection]) -> Vec<RawDocumentBuf> {
    LeftOut::of(&Filters::new(filters), collections).conditions
}

fn shown(conditions: &[RawDocumentBuf]) -> String {
    let readable = conditions.iter().map(bson::Document::try_from);
    let readable = readable.map(|condition| condition.unwrap().to_string());
    readable.collect()
}

#[test]
fn ignored_deletes_of_a_collection_or_a_database_are_dropped() {
    let log = left_out(vec![archive("shop.log.eu")], &[]);
    assert_eq!(log, [no_deletes("shop", rawdoc! { "$ne": "log.eu" })]);
    let shop = left_out(vec![archive("shop.*")], &[]);
    assert_eq!(shop, [no_deletes("shop", rawdoc! { "$in": [] })]);
    for open in ["shop.log_*", "*.log", "*", "/^shop\\.log$/", "sh*.log"] {
        assert!(left_out(vec![archive(open)], &[]).is_empty(), "{open}");
    }
}

#[test]
fn deletes_that_an_earlier_filter_may_be_about_are_dropped_only_where_it_is_plain_which() {
    let except = left_out(vec![of_europe("shop.orders"), archive("shop.*")], &[]);
    assert_eq!(except, [no_deletes("shop", rawdoc! { "$in": ["orders"] })]);
    for other in ["bank.*", "bank.log", "/^bank\\.log/"] {
        let apart = left_out(vec![of_europe(other), archive("shop.*")], &[]);
        assert_eq!(
            apart,
            [no_deletes("shop", rawdoc! { "$in": [] })],
            "{other}"
        );
    }
    for earlier in ["shop.o*", "*.orders", "/orders/"] {
        let before = left_out(vec![of_europe(earlier), archive("shop.*")], &[]);
        assert!(before.is_empty(), "{earlier}");
        let both = left_out(vec![archive(earlier), archive("shop.*")], &[]);
        assert_eq!(
            both,
            [no_deletes("shop", rawdoc! { "$in": [] })],
            "{earlier}"
        );
    }
    let hidden = left_out(vec![of_europe("shop.*"), archive("shop.log")], &[]);
    assert!(hidden.is_empty());
}

#[test]
fn inserts_outside_are_dropped_in_the_collections_that_a_filter_counts_for() {
    let filters = vec![of_europe("shop.o*"), of_europe("bank.*")];
    let found = [
        collection("bank.log", 1),
        collection("shop.log", 2),
        collection("shop.orders", 3),
        collection("shop.others", 4),
    ];
    let of = |database: &str, names: &[&str], numbers: &[u8]| {
        let uuids = numbers
            .iter()
            .map(|number| bson::Binary::from(uuid(*number)));
        let mut all = RawArrayBuf::new();
        uuids.for_each(|uuid| all.push(uuid));
        let mut named = RawArrayBuf::new();
        names.iter().for_each(|name| named.push(*name));
        rawdoc! { "$or": [
            { "operationType": { "$ne": "insert" } },
            { "ns.db": { "$ne": database } },
            { "ns.coll": { "$nin": named } },
            { "collectionUUID": { "$nin": all } },
            { "fullDocument.region": "EU" },
        ] }
    };
    let expected = [
        of("shop", &["orders", "others"], &[3, 4]),
        of("bank", &["log"], &[1]),
    ];
    assert_eq!(left_out(filters, &found), expected);
    let only_the_server_knows = filter("shop.*", Some(rawdoc! { "$expr": true }), Deletes::Ignored);
    assert_eq!(left_out(vec![only_the_server_knows], &found).len(), 1);
}

#[test]
fn collections_past_the_limit_are_judged_as_they_are_read() {
    let found: Vec<_> = (0..CONDITIONS_MAX + 20)
        .map(|number| collection(&format!("shop.c{number:03}"), number as u8))
        .collect();
    let left_out = left_out(vec![of_europe("shop.*"), of_europe("bank.*")], &found);
    let shown = shown(&left_out);
    assert_eq!(left_out.len(), 1);
    assert!(shown.contains("c099") && !shown.contains("c100"), "{shown}");
}

#[test]
fn under_other_names_only_what_is_found_there_is_left_out() {
    let renames = Renames::new(vec![Rename {
        a: "shop.*".to_owned(),
        b: "shop_eu.*".to_owned(),
    }]);
    let filters = Filters::new(vec![of_europe("shop.orders"), archive("shop.log")]);
    let on_b = filters.on(Side::B, &renames);
    let found = [collection("shop_eu.orders", 1)];
    let of_b = LeftOut::of(&on_b, &found).conditions;
    let shown = shown(&of_b);
    assert!(
        shown.contains("shop_eu") && !shown.contains("delete"),
        "{shown}"
    );
    let of_a = LeftOut::of(&filters, &[collection("shop.orders", 2)]);
    assert_eq!((of_a.conditions.len(), of_b.len()), (2, 1));
}
