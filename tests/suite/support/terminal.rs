//! A terminal for what looks at whether it has one: script(1), of util-linux, makes it.

use std::process::{Command, Stdio};

use super::tandem::Tandem;

/// The same as [`Tandem::command`], on a terminal of 120 columns; what it shows goes to the standard
/// output.
pub fn on_a_terminal(tandem: &Tandem, arguments: &[&str]) -> Command {
    let typed = tandem.command(&[], arguments);
    let words = std::iter::once(typed.get_program()).chain(typed.get_args());
    let words: Vec<String> = words
        .map(|word| format!("'{}'", word.to_str().expect("nothing but UTF-8")))
        .collect();
    let line = format!("stty cols 120; exec {}", words.join(" "));
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null());
    for (name, value) in typed.get_envs() {
        match value {
            Some(value) => terminal.env(name, value),
            None => terminal.env_remove(name),
        };
    }
    terminal
}
