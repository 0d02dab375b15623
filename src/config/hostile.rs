//! Configurations that nobody wrote on purpose: each is accepted, or refused with its problems.

use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::keys::KEYS;
use super::*;
use crate::change::hostile::for_any;

fn parse(text: &str) -> Result<Config> {
    let environment = Environment::default();
    Config::parse(
        text,
        "tandem.toml",
        Path::new("/"),
        &environment,
        &Flags::default(),
    )
}

/// A value of TOML, or something that only looks like one.
fn any_typed() -> impl Strategy<Value = String> {
    let odd = [
        "\"\"",
        "0",
        "-1",
        "1e400",
        "nan",
        "true",
        "[]",
        "[[]]",
        "{}",
        "\"99999999999999999999d\"",
        "\"-5s\"",
        "\"5 parsecs\"",
        "9223372036854775807",
        "9223372036854775808",
        "\"*\"",
        "[\"*\", 1]",
        "1979-05-27T07:32:00Z",
        "\"0000-99-99T99:99:99Z\"",
        "\"9999999999999999999\"",
        "\"\\u0000\"",
        "\"mongodb://\"",
        "\"mongodb://a:b@[::1\"",
        "\"127.0.0.1:99999\"",
        "\"25:00-26:00\"",
    ];
    prop_oneof![
        proptest::sample::select(odd.to_vec()).prop_map(str::to_owned),
        "\\PC{0,12}".prop_map(|text| format!("{text:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        "[0-9]{0,22}(ms|s|m|h|d)?".prop_map(|text| format!("\"{text}\"")),
        "\\PC{0,12}",
    ]
}

fn any_line() -> impl Strategy<Value = String> {
    let keys: Vec<&str> = KEYS.iter().map(|key| key.path).collect();
    (proptest::sample::select(keys), any_typed())
        .prop_map(|(key, value)| format!("{key} = {value}"))
}

#[test]
fn any_configuration_is_accepted_or_refused_by_its_keys() {
    for_any(vec(any_line(), 0..12), |lines| {
        if let Err(error) = parse(&lines.join("\n")) {
            prop_assert_eq!(error.exit as i32, 3, "{}", error);
            prop_assert!(!error.to_string().contains("mongodb://a:b"), "{}", error);
        }
        Ok(())
    });
}

#[test]
fn a_template_with_any_damage_is_accepted_or_refused() {
    let damage = vec((any::<usize>(), "\\PC{0,3}|[\n\"=\\[\\].#]{0,3}"), 1..6);
    for_any(damage, |changes| {
        let mut text: Vec<char> = Config::template().chars().collect();
        for (at, piece) in changes {
            let at = at % text.len();
            text.splice(at..(at + 3).min(text.len()), piece.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(error) = parse(&text) {
            prop_assert_eq!(error.exit as i32, 3, "{}", error);
        }
        Ok(())
    });
}

#[test]
fn nesting_without_end_is_refused() {
    for open in ["[", "{a="] {
        let text = format!("x = {}", open.repeat(100_000));
        assert!(parse(&text).is_err());
    }
    assert!(parse(&"a.".repeat(100_000)).is_err());
}
