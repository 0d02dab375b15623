//! Which collection an event is about, by UUIDs and names alone.

use super::*;
use crate::change::Rename;

fn uuid(last: u8) -> Uuid {
    let mut bytes = [0; 16];
    bytes[15] = last;
    Uuid::from_bytes(bytes)
}

fn orders() -> Namespace {
    Namespace::new("shop", "orders")
}

#[test]
fn a_collection_of_the_same_name_on_both_sides_has_one_lasting_name() {
    let mut known = Identities::default();
    assert_eq!(known.identify(Side::A, uuid(1), &orders()), orders());
    assert_eq!(known.identify(Side::B, uuid(2), &orders()), orders());
    assert_eq!(
        known.entry(&orders()).uuids,
        Pair::new(Some(uuid(1)), Some(uuid(2)))
    );
}

#[test]
fn a_renamed_collection_keeps_its_lasting_name_and_frees_the_other_one() {
    let mut known = Identities::default();
    known.identify(Side::A, uuid(1), &orders());
    let renamed = Namespace::new("shop", "old_orders");
    known.entry(&orders()).names.a = renamed.clone();
    assert_eq!(known.identify(Side::A, uuid(1), &renamed), orders());
    let successor = known.identify(Side::A, uuid(3), &orders());
    assert_ne!(successor, orders());
    assert_eq!(known.entry(&successor).names.a, orders());
}

#[test]
fn successors_of_a_dropped_collection_find_each_other() {
    let mut known = Identities::default();
    for side in Side::BOTH {
        known.identify(side, uuid(1), &orders());
    }
    known.entry(&orders()).state = State::Dropped;
    let on_a = known.identify(Side::A, uuid(3), &orders());
    let on_b = known.identify(Side::B, uuid(4), &orders());
    assert_ne!(on_a, orders());
    assert_eq!(on_a, on_b);
}

#[test]
fn a_counterpart_that_is_known_first_does_not_give_its_lasting_name_as_a_name() {
    let mut known = Identities::default();
    let lasting = Namespace::new("shop", "orders#2");
    known.set_counterpart(&lasting, Side::A, uuid(1), &orders());
    assert_eq!(known.entry(&lasting).names, Pair::new(orders(), orders()));
}

#[test]
fn a_counterpart_that_is_known_stays_the_one_whatever_else_has_its_name() {
    let mut known = Identities::default();
    known.identify(Side::A, uuid(1), &orders());
    let (first, second) = (uuid(2), uuid(3));
    for found in [first, second] {
        let taken = known.take_counterpart(&orders(), Side::B, found, &orders());
        assert_eq!(taken, first);
    }
    assert_eq!(known.of_uuid(Side::B, second), None);
}

#[test]
fn one_that_is_there_finds_its_counterpart_before_one_that_is_gone() {
    let mut known = Identities::default();
    known.identify(Side::A, uuid(1), &orders());
    known.entry(&orders()).gone.a = true;
    let successor = known.identify(Side::A, uuid(2), &orders());
    assert_eq!(known.identify(Side::B, uuid(3), &orders()), successor);
    assert_eq!(known.entry(&orders()).uuids.b, None);
}

fn renamed() -> Identities {
    Identities::new(Renames::new(vec![Rename {
        a: "shop.*".to_owned(),
        b: "shop_eu.*".to_owned(),
    }]))
}

#[test]
fn a_collection_that_b_calls_otherwise_has_its_lasting_name_from_a() {
    let on_b = Namespace::new("shop_eu", "orders");
    for first in Side::BOTH {
        let mut known = renamed();
        for side in [first, first.other()] {
            let name = if side == Side::A {
                orders()
            } else {
                on_b.clone()
            };
            let last = 1 + side.index() as u8;
            assert_eq!(known.identify(side, uuid(last), &name), orders());
        }
        let names = &known.entry(&orders()).names;
        assert_eq!(*names, Pair::new(orders(), on_b.clone()));
        assert_eq!(known.called(Side::B, &on_b), Some(&orders()));
        let successor = known.identify(Side::B, uuid(3), &on_b);
        assert_eq!(successor.database(), "shop");
        assert_eq!(known.entry(&successor).names.b, on_b);
    }
}

#[test]
fn what_b_calls_as_a_calls_another_one_is_never_its_counterpart() {
    let mut known = renamed();
    let apart = known.identify(Side::B, uuid(2), &orders());
    assert_ne!(apart, orders());
    assert_eq!(known.identify(Side::A, uuid(1), &orders()), orders());
    assert_eq!(known.entry(&orders()).uuids.b, None);
}

#[test]
fn what_is_unpaired_stays_so_under_its_name() {
    let mut known = Identities::default();
    known.entry(&orders()).state = State::Unpaired;
    assert_eq!(known.identify(Side::A, uuid(1), &orders()), orders());
    assert!(matches!(known.entry(&orders()).state, State::Unpaired));
}

#[test]
fn what_is_unpaired_leaves_its_first_name_to_others_once_it_has_another_one() {
    let mut known = Identities::default();
    known.identify(Side::A, uuid(1), &orders());
    known.entry(&orders()).state = State::Unpaired;
    let renamed = Namespace::new("shop", "old_orders");
    known.rename(&orders(), Side::A, &renamed);
    assert_ne!(known.identify(Side::A, uuid(2), &orders()), orders());
    assert_eq!(known.identify(Side::A, uuid(3), &renamed), orders());
}

#[test]
fn of_several_that_wait_for_a_counterpart_the_first_by_name_gets_it() {
    let mut known = Identities::default();
    known.identify(Side::A, uuid(1), &orders());
    known.identify(Side::B, uuid(2), &orders());
    let waiting = [19, 13, 17, 11, 15, 12, 18, 14, 16];
    let waiting = waiting.map(|last| known.identify_apart(Side::A, uuid(last), &orders()));
    let taken = known.identify(Side::B, uuid(3), &orders());
    assert_eq!(Some(&taken), waiting.iter().min());
}
