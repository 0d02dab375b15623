//! docs/GUARANTEES.md answers every scenario, each row by tests that are there.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The scenarios that must be answered.
const SCENARIOS: [std::ops::RangeInclusive<u32>; 2] = [51..=172, 181..=190];
/// In the first column of what is beyond them.
const BEYOND: &str = "—";
/// Of what is promised; the other table has no tests.
const COLUMNS: usize = 5;
const COLUMNS_NOT_PROMISED: usize = 3;
/// Tests named outside of the tables are told from keys of the configuration by their length.
const WORDS_MIN: usize = 4;

#[test]
fn every_scenario_is_answered_by_rows_of_one_style() {
    let text = guarantees();
    let mut answers: BTreeMap<u32, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    let (mut columns, mut is_first) = (0, false);
    for row in tables(&text) {
        if row[0] == "no." {
            (columns, is_first) = (row.len(), true);
            continue;
        }
        let shown = row.join(" | ");
        // A loss may be that of the row above.
        let must_say = if columns == COLUMNS && !std::mem::take(&mut is_first) {
            2
        } else {
            1
        };
        if row.len() != columns || !matches!(columns, COLUMNS | COLUMNS_NOT_PROMISED) {
            wrong.push(format!("not as many columns as others: {shown}"));
        } else if row[must_say..].iter().any(|cell| cell.is_empty()) {
            wrong.push(format!("an empty cell: {shown}"));
        } else if columns == COLUMNS && identifiers(row[COLUMNS - 1]).next().is_none() {
            wrong.push(format!("no test: {shown}"));
        }
        match numbers(row[0]) {
            Some(found) => found
                .iter()
                .for_each(|number| *answers.entry(*number).or_default() += 1),
            None => wrong.push(format!("no numbers: {shown}")),
        }
    }
    let expected: BTreeSet<u32> = SCENARIOS.into_iter().flatten().collect();
    for number in &expected {
        if !answers.contains_key(number) {
            wrong.push(format!("scenario {number} is not answered"));
        }
    }
    let unknown = answers.keys().filter(|number| !expected.contains(number));
    wrong.extend(unknown.map(|number| format!("there is no scenario {number}")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(answers.len() > 100, "they are found at all");
}

#[test]
fn every_test_that_the_guarantees_name_is_one() {
    let text = guarantees();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = HashSet::new();
    for folder in ["src", "tests"] {
        for path in sources(&root.join(folder)) {
            let source = fs::read_to_string(path).expect("a source file");
            tests.extend(tests_of(&source).map(str::to_owned));
        }
    }
    let rows = tables(&text).filter(|row| row.len() == COLUMNS);
    let in_rows: Vec<&str> = rows.flat_map(|row| identifiers(row[COLUMNS - 1])).collect();
    let elsewhere = identifiers(&text).filter(|name| name.split('_').count() >= WORDS_MIN);
    let named: BTreeSet<&str> = in_rows.iter().copied().chain(elsewhere).collect();
    let missing: Vec<&str> = named
        .iter()
        .copied()
        .filter(|name| !tests.contains(*name))
        .collect();
    assert!(missing.is_empty(), "no such test:\n{}", missing.join("\n"));
    assert!(named.len() > 200, "they are found at all");
}

#[test]
fn the_scanner_sees_rows_numbers_and_tests() {
    let text = "| no. | loss |\n|---|---|\n| 1 | | `a_b`\n| 2, 5–7 | x |\nno row | at all\n";
    let rows: Vec<Vec<&str>> = tables(text).collect();
    assert_eq!(
        rows,
        [
            vec!["no.", "loss"],
            vec!["1", "", "`a_b`"],
            vec!["2, 5–7", "x"]
        ]
    );
    assert_eq!(numbers("2, 5–7"), Some(vec![2, 5, 6, 7]));
    assert_eq!(numbers(BEYOND), Some(Vec::new()));
    assert_eq!(numbers(""), None);
    assert_eq!(numbers("all"), None);
    let text = "kept by `a_rule_of_old`, `status --json`, `scripts/soak` and `holds`";
    let found: Vec<&str> = identifiers(text).collect();
    assert_eq!(found, ["a_rule_of_old", "holds"]);
    let source = "fn helper() {}\n#[test]\nfn one() {\n}\n/// Why.\n#[tokio::test(x)]\n\
         #[ignore = \"long\"]\nasync fn two<T>(x: T) {\nfn no() {\n// the #[test] is gone\nfn nor() {\n\
         const S: &[Scenario] = scenarios![\n    three,\n    four,\n];\nfn neither() {\n";
    let found: Vec<&str> = tests_of(source).collect();
    assert_eq!(found, ["one", "two", "three", "four"]);
}

fn guarantees() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join("docs/GUARANTEES.md")).expect("the guarantees")
}

/// The cells of every row of every table, with the heads of their columns.
fn tables(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| "));
    rows.map(|row| {
        let row = row.trim_end().trim_end_matches('|');
        row.split('|').map(str::trim).collect()
    })
}

/// Those of a row: none where it says nothing about them.
fn numbers(cell: &str) -> Option<Vec<u32>> {
    if cell == BEYOND {
        return Some(Vec::new());
    }
    let mut found = Vec::new();
    for part in cell.split(", ") {
        let (first, last) = part.split_once('–').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        found.extend(first..=last);
    }
    Some(found)
}

/// What stands in backquotes and may be the name of a function.
fn identifiers(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(move |name| !name.is_empty() && name.chars().all(is_word))
}

/// The functions that the test runner calls, and those of the lists of scenarios.
fn tests_of(source: &str) -> impl Iterator<Item = &str> {
    let (mut is_test, mut is_list) = (false, false);
    source.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.ends_with("scenarios![") {
            is_list = true;
        } else if is_list {
            is_list = line != "];";
            return line.strip_suffix(',').filter(|_| is_list);
        } else if let Some(name) = function_name(line) {
            return std::mem::take(&mut is_test).then_some(name);
        }
        None
    })
}

fn function_name(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("fn ")?;
    let words = ["pub", "pub(crate)", "pub(super)", "async", "const"];
    let is_function = before.split_whitespace().all(|word| words.contains(&word));
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    is_function.then(|| &rest[..end])
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
