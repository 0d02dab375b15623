//! Keys, their defaults, and what fits them.

use super::*;

#[test]
fn every_default_fits_its_own_key() {
    for key in KEYS {
        let value = key.default_value();
        if let (Kind::Integer { min, max }, Value::Integer(value)) = (key.kind, &value) {
            assert!((min..=max).contains(value), "{}", key.path);
        }
    }
}

#[test]
fn every_key_is_documented_with_its_default() {
    let docs = include_str!("../../../docs/CONFIG.md");
    for key in KEYS {
        let start = format!("| `{}` |", key.path);
        let row = docs.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("{} is not documented", key.path));
        let shown = match key.preset {
            Preset::Text("") => "\"\"".to_owned(),
            Preset::Text(text) => text.to_owned(),
            Preset::NoTexts => "[]".to_owned(),
            Preset::Boolean(value) => value.to_string(),
            Preset::Integer(value) => value.to_string(),
            Preset::Lanes => "by cores".to_owned(),
        };
        assert!(
            row.contains(&format!("| `{shown}` |")),
            "{}: {shown}",
            key.path
        );
    }
    let rows = docs.lines().filter(|line| {
        let known = |key: &Key| line.starts_with(&format!("| `{}` |", key.path));
        line.starts_with("| `") && !KEYS.iter().any(known)
    });
    assert_eq!(rows.collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn lanes_are_twice_the_cores_and_neither_few_nor_many() {
    let cores = [1, 2, 3, 4, 7, 8, 9, 64, usize::MAX];
    assert_eq!(cores.map(lanes_for), [4, 4, 6, 8, 14, 16, 16, 16, 16]);
}

#[test]
fn no_two_keys_share_a_path() {
    let mut paths: Vec<_> = KEYS.iter().map(|key| key.path).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), KEYS.len());
}

#[test]
fn a_variable_is_the_path_in_capitals() {
    let names: Vec<_> = KEYS.iter().map(Key::variable).collect();
    assert!(names.contains(&"TANDEM_CLUSTERS__A__URI".to_owned()));
    assert!(names.contains(&"TANDEM_INITIAL_SYNC__START_AT".to_owned()));
}

#[test]
fn a_value_that_does_not_fit_says_what_does() {
    let lanes = Kind::Integer { min: 1, max: 64 };
    for (kind, text, expected) in [
        (lanes, "0", "must be between 1 and 64, not 0"),
        (lanes, "four", "must be a whole number, not \"four\""),
        (Kind::Boolean, "yes", "must be true or false, not \"yes\""),
        (
            Kind::Choice(&["a", "b"]),
            "c",
            "must be one of a, b, not \"c\"",
        ),
        (
            Kind::Length {
                min: "1s",
                max: "1h",
            },
            "2h",
            "must be between 1s and 1h, not \"2h\"",
        ),
    ] {
        assert_eq!(kind.read_text(text), Err(expected.to_owned()));
    }
}
