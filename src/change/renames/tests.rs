//! A name on a and its name on b lead to each other, and to nothing else.

use std::cell::Cell;
use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::change::NamespaceFilter;
use crate::change::hostile::for_any;

fn ns(full: &str) -> Namespace {
    Namespace::parse(full).unwrap()
}

fn renames(pairs: &[(&str, &str)]) -> Renames {
    let one = |(a, b): &(&str, &str)| Rename {
        a: a.to_string(),
        b: b.to_string(),
    };
    Renames::new(pairs.iter().map(one).collect())
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

#[test]
fn a_name_is_found_from_both_sides() {
    let renames = renames(&[("shop.*", "shop_eu.*"), ("bank.log", "audit.bank")]);
    for (a, b) in [
        ("shop.orders", "shop_eu.orders"),
        ("shop.a.b*", "shop_eu.a.b*"),
        ("bank.log", "audit.bank"),
        ("bank.logs", "bank.logs"),
    ] {
        assert_eq!(renames.on(Side::B, &ns(a)), ns(b));
        assert_eq!(renames.on_a(Side::B, &ns(b)), Some(ns(a)));
        assert_eq!(renames.on_other(Side::A, &ns(a)), Some(ns(b)));
        assert_eq!(renames.on_other(Side::B, &ns(b)), Some(ns(a)));
        assert_eq!(renames.on(Side::A, &ns(a)), ns(a));
    }
    for on_b_alone in ["shop.orders", "bank.log"] {
        assert_eq!(renames.on_a(Side::B, &ns(on_b_alone)), None, "{on_b_alone}");
    }
}

#[test]
fn names_may_change_places() {
    let renames = renames(&[("one.*", "two.*"), ("two.*", "one.*")]);
    assert_eq!(renames.on(Side::B, &ns("one.x")), ns("two.x"));
    assert_eq!(renames.on(Side::B, &ns("two.x")), ns("one.x"));
    assert_eq!(renames.on_a(Side::B, &ns("two.x")), Some(ns("one.x")));
    assert_eq!(renames.collision(&texts(&["*"]), &[]), None);
}

#[test]
fn patterns_on_b_match_what_a_pattern_on_a_means() {
    let renames = renames(&[("shop.*", "shop_eu.*"), ("bank.log", "audit.bank")]);
    for (pattern, expected) in [
        ("shop.*", vec!["shop_eu.*"]),
        ("shop.orders", vec!["shop_eu.orders"]),
        ("shop.o*s", vec!["shop_eu.o*s"]),
        (r"/^shop\.o/", vec!["shop_eu.*"]),
        ("bank.*", vec!["bank.*", "audit.bank"]),
        ("bank.log", vec!["audit.bank"]),
        ("crm.*", vec!["crm.*"]),
        ("*", vec!["*", "shop_eu.*", "audit.bank"]),
    ] {
        assert_eq!(renames.patterns_on(Side::B, pattern), expected, "{pattern}");
        assert_eq!(renames.patterns_on(Side::A, pattern), [pattern]);
    }
}

#[test]
fn two_collections_never_get_one_name() {
    for (pairs, include, exclude, collides) in [
        (vec![("shop.*", "shop_eu.*")], vec!["shop.*"], vec![], false),
        (vec![("shop.*", "shop_eu.*")], vec!["*"], vec![], true),
        (
            vec![("shop.*", "shop_eu.*")],
            vec!["*"],
            vec!["shop_eu.*"],
            false,
        ),
        (
            vec![("shop.*", "bank.*")],
            vec!["shop.*", "bank.x"],
            vec![],
            true,
        ),
        (
            vec![("shop.o", "shop.p")],
            vec!["shop.*"],
            vec!["shop.p"],
            false,
        ),
        (vec![("shop.o", "shop.p")], vec!["shop.*"], vec![], true),
        (vec![("shop.*", "shop.eu_*")], vec!["shop.*"], vec![], false),
        (vec![("shop.eu_*", "shop.*")], vec!["shop.*"], vec![], true),
        (
            vec![("shop.eu_*", "shop.*")],
            vec!["shop.eu_*"],
            vec![],
            false,
        ),
    ] {
        let found = renames(&pairs);
        let found = found
            .collision(&texts(&include), &texts(&exclude))
            .is_some();
        assert_eq!(found, collides, "{pairs:?} {include:?} {exclude:?}");
    }
}

/// A few letters only, so that names and patterns meet.
fn any_pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        "[xy]{1,2}\\.[xy]{1,2}",
        "[xy]{1,2}\\.[xy]{0,2}\\*",
        "[xy]{0,1}\\*"
    ]
}

fn any_rename() -> impl Strategy<Value = Rename> {
    let name = ("[xy]{1,2}\\.[xy]{1,2}", "[xy]{1,2}\\.[xy]{1,2}");
    let many = ("[xy]{1,2}\\.[xy]{0,2}\\*", "[xy]{1,2}\\.[xy]{0,2}\\*");
    prop_oneof![name, many].prop_map(|(a, b)| Rename { a, b })
}

/// What a configuration refuses.
fn is_ambiguous(renames: &[Rename], include: &[String]) -> bool {
    let overlaps = |one: &Rename, other: &Rename| {
        patterns_may_overlap(&one.a, &other.a) || patterns_may_overlap(&one.b, &other.b)
    };
    let twice = (1..renames.len()).any(|at| {
        let before = renames[..at].iter();
        before.into_iter().any(|one| overlaps(one, &renames[at]))
    });
    let all = Renames::new(renames.to_vec());
    twice || all.collision(include, &[]).is_some()
}

/// Every name of at most two letters on each side of the dot.
fn all_names() -> Vec<Namespace> {
    let parts = ["x", "y", "xx", "xy", "yx", "yy", "xxx", "yxy"];
    let full = parts
        .iter()
        .flat_map(|database| parts.map(|name| ns(&format!("{database}.{name}"))));
    full.collect()
}

#[test]
fn what_is_not_ambiguous_is_one_to_one() {
    let drawn = (vec(any_rename(), 1..4), vec(any_pattern(), 1..3));
    let held = Cell::new(0);
    for_any(drawn, |(drawn, include)| {
        if is_ambiguous(&drawn, &include) {
            return Ok(());
        }
        let renames = Renames::new(drawn);
        let filter = NamespaceFilter::new(&include, &[], "__tandem").renamed(renames.clone());
        let mut taken: HashMap<Namespace, Namespace> = HashMap::new();
        for name in all_names() {
            if filter.includes(Side::A, &name) {
                let on_b = renames.on(Side::B, &name);
                held.set(held.get() + u32::from(on_b != name));
                prop_assert_eq!(renames.on_a(Side::B, &on_b), Some(name.clone()));
                prop_assert!(filter.includes(Side::B, &on_b));
                prop_assert!(filter.may_include_from(Side::B, on_b.database()));
                prop_assert_eq!(taken.insert(on_b, name.clone()), None);
            }
            if let Some(on_a) = renames.on_a(Side::B, &name) {
                prop_assert_eq!(renames.on(Side::B, &on_a), name);
            }
        }
        Ok(())
    });
    assert!(
        held.get() > 100,
        "{} renamed and included names",
        held.get()
    );
}
