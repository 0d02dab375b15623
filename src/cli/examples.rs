//! Each example that a command's help shows is understood by the program.

use clap::{CommandFactory, Parser};

use super::Cli;

/// What a shell makes of a line: words without their quotes, one list for each command of tandem.
/// Files that a command reads or writes are left out.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut words = words(line).into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "&&" | "|" | "||" => commands.push(Vec::new()),
            ">" | ">>" | "<" => drop(words.next()),
            _ => commands.last_mut().expect("one is there").push(word),
        }
    }
    commands.retain(|words| words.first().is_some_and(|word| word == "tandem"));
    commands
}

fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), String::new(), false);
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(std::mem::take(&mut word)),
            other => word.push(other),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn each_example_in_the_help_of_each_command_is_understood() {
    fn visit(command: &clap::Command, path: &str, seen: &mut usize) {
        let help = command.get_after_help().map(ToString::to_string);
        let help = help.unwrap_or_default();
        let examples = help
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("tandem "));
        let examples: Vec<_> = examples.flat_map(commands).collect();
        assert!(!examples.is_empty(), "{path} has no example");
        let is_about = |example: &Vec<String>| {
            let mut names = path.split(' ').skip(1);
            names.all(|name| example.iter().any(|word| word == name))
        };
        assert!(examples.iter().any(is_about), "{path}: {examples:?}");
        for example in examples {
            *seen += 1;
            Cli::try_parse_from(&example).unwrap_or_else(|error| panic!("{path}: {error}"));
        }
        for inner in command.get_subcommands() {
            visit(inner, &format!("{path} {}", inner.get_name()), seen);
        }
    }
    let mut seen = 0;
    visit(&Cli::command(), "tandem", &mut seen);
    assert!(seen > 25, "{seen} examples are found at all");
}

#[test]
fn an_example_that_nobody_can_run_is_noticed() {
    let of = |line: &str| {
        commands(line)
            .into_iter()
            .map(Cli::try_parse_from)
            .all(|parsed| parsed.is_ok())
    };
    assert!(of(
        "tandem conflict-report --namespace 'shop.*' --format csv > conflicts.csv"
    ));
    assert!(!of("tandem conflict-report --names 'shop.*'"));
    assert!(!of("tandem status && tandem statuses"));
}
