//! The outcome of a check, as a table for people and as JSON for machines.

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde::Serialize;

/// The number that changes with the shape of the JSON.
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    Ok,
    Warn,
    Fail,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Ok => "OK",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        }
    }
}

/// One requirement: what was asked of whom, what was found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckLine {
    pub verdict: Verdict,
    /// The cluster's name, a namespace, or the link.
    pub subject: String,
    pub requirement: String,
    pub found: String,
    /// Empty where nothing is to be done.
    pub hint: String,
}

impl CheckLine {
    pub fn new(
        verdict: Verdict,
        subject: &str,
        requirement: &str,
        found: impl Into<String>,
    ) -> Self {
        Self {
            verdict,
            subject: subject.to_owned(),
            requirement: requirement.to_owned(),
            found: found.into(),
            hint: String::new(),
        }
    }

    /// What to do, told only where something is amiss.
    pub fn hint(mut self, hint: &str) -> Self {
        if self.verdict != Verdict::Ok {
            self.hint = hint.to_owned();
        }
        self
    }
}

/// A line a requirement: `OK|WARN|FAIL  subject  requirement  found  hint`.
pub fn as_table(lines: &[CheckLine]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    for line in lines {
        table.add_row([
            line.verdict.as_str(),
            &line.subject,
            &line.requirement,
            &line.found,
            &line.hint,
        ]);
    }
    if let Some(first) = table.column_mut(0) {
        first.set_padding((0, 1));
    }
    let mut text: String = table
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    if lines.is_empty() {
        text.clear();
    }
    text
}

/// `{"format":1,"lines":[{"verdict","subject","requirement","found","hint"}]}` on one line.
pub fn as_json(lines: &[CheckLine]) -> String {
    let shape = serde_json::json!({ "format": FORMAT, "lines": lines });
    format!("{shape}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<CheckLine> {
        vec![
            CheckLine::new(Verdict::Ok, "eu", "version 6.0 or later", "6.0.5").hint("upgrade"),
            CheckLine::new(Verdict::Warn, "us", "oplog of 24 h", "3 h").hint("enlarge it"),
        ]
    }

    #[test]
    fn the_table_has_one_line_a_requirement_in_columns() {
        assert_eq!(
            as_table(&lines()),
            "OK    eu  version 6.0 or later  6.0.5\n\
             WARN  us  oplog of 24 h         3 h    enlarge it\n"
        );
        assert_eq!(as_table(&[]), "");
    }

    #[test]
    fn the_json_names_its_format_and_every_field() {
        assert_eq!(
            as_json(&lines()[1..]),
            "{\"format\":1,\"lines\":[{\"verdict\":\"WARN\",\"subject\":\"us\",\
             \"requirement\":\"oplog of 24 h\",\"found\":\"3 h\",\"hint\":\"enlarge it\"}]}\n"
        );
    }
}
