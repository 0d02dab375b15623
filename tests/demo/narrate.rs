//! What the demo says: headings, sentences, commands and one live line, in colours on a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const CYAN: &str = "\x1b[1;36m";
const GREEN: &str = "\x1b[1;32m";
const RED: &str = "\x1b[1;31m";
const PLAIN: &str = "\x1b[0m";
const CLEAR_LINE: &str = "\r\x1b[K";

/// Where nobody sees a line change, one is printed this often.
const LOGGED_LINE_INTERVAL: Duration = Duration::from_secs(3);

pub struct Narrator {
    started: Instant,
    is_terminal: bool,
    has_colours: bool,
    headings: u32,
    live: Option<Instant>,
}

impl Narrator {
    pub fn new() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            started: Instant::now(),
            is_terminal,
            has_colours: is_terminal && !no_colour,
            headings: 0,
            live: None,
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn title(&self, text: &str) {
        println!("{}", self.in_colour(BOLD, text));
    }

    pub fn heading(&mut self, text: &str) {
        self.headings += 1;
        let seconds = self.elapsed().as_secs();
        let heading = self.in_colour(CYAN, &format!("{}. {text}", self.headings));
        let clock = self.in_colour(DIM, &format!("{}:{:02}", seconds / 60, seconds % 60));
        println!("\n{heading}  {clock}");
    }

    pub fn say(&self, text: &str) {
        println!("   {text}");
    }

    pub fn good(&self, text: &str) {
        println!("   {}", self.in_colour(GREEN, text));
    }

    pub fn bad(&self, text: &str) {
        println!("   {}", self.in_colour(RED, text));
    }

    pub fn command(&self, typed: &str) {
        println!("\n   {}", self.in_colour(BOLD, &format!("$ {typed}")));
    }

    /// What a command printed, indented; of a long output only the first lines.
    pub fn output(&self, text: &str, lines_max: usize) {
        let lines: Vec<&str> = text.trim_end().lines().collect();
        for line in lines.iter().take(lines_max) {
            println!("{}", format!("   {line}").trim_end());
        }
        if lines.len() > lines_max {
            let rest = format!("… {} more lines", lines.len() - lines_max);
            println!("   {}", self.in_colour(DIM, &rest));
        }
        println!();
    }

    /// Replaces the live line.
    pub fn live(&mut self, text: &str) {
        if self.is_terminal {
            print!("{CLEAR_LINE}   {text}");
            let _ = std::io::stdout().flush();
            self.live = Some(Instant::now());
            return;
        }
        if self
            .live
            .is_none_or(|at| at.elapsed() >= LOGGED_LINE_INTERVAL)
        {
            println!("   {text}");
            self.live = Some(Instant::now());
        }
    }

    /// Leaves `text` where the live line was.
    pub fn end_live(&mut self, text: &str) {
        if self.live.take().is_some() && self.is_terminal {
            print!("{CLEAR_LINE}");
        }
        println!("   {text}");
    }

    fn in_colour(&self, colour: &str, text: &str) -> String {
        match self.has_colours {
            true => format!("{colour}{text}{PLAIN}"),
            false => text.to_owned(),
        }
    }
}

/// A count as people read it: 170,391.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
