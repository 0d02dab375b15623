//! Every test that docs/GUARANTEES.md names is there.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Tests are named by sentences, which have more words than keys of the configuration.
const WORDS_MIN: usize = 4;

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/GUARANTEES.md")).expect("the guarantees");
    let mut functions = HashSet::new();
    for folder in ["src", "tests"] {
        for path in sources(&root.join(folder)) {
            let source = fs::read_to_string(path).expect("a source file");
            functions.extend(source.lines().filter_map(function_name).map(str::to_owned));
        }
    }
    let missing: Vec<&str> = sentences(&text)
        .filter(|name| !functions.contains(*name))
        .collect();
    assert!(missing.is_empty(), "no such test:\n{}", missing.join("\n"));
    assert!(sentences(&text).count() > 50, "they are found at all");
}

#[test]
fn the_scanner_sees_names_of_tests_and_functions() {
    let text = "kept by `a_rule_of_old`, `start_at`, `status --json` and `it_holds_over_restarts`";
    let found: Vec<&str> = sentences(text).collect();
    assert_eq!(found, ["a_rule_of_old", "it_holds_over_restarts"]);
    assert_eq!(
        function_name("    pub async fn a_b<T>(x: T) {"),
        Some("a_b")
    );
    assert_eq!(function_name("    // the fn a_b() is gone"), None);
}

/// What stands in backquotes and reads like the name of a test.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(move |name| name.chars().all(is_word) && name.split('_').count() >= WORDS_MIN)
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
