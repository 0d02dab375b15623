//! Everything that is wrong with a configuration, gathered to be told at once.

use crate::error::{Error, Result};

/// Most letters that a mistyped key may be away from the one that is suggested for it.
const SUGGESTION_DISTANCE_MAX: usize = 3;

/// Problems by key path, in the order they were found.
#[derive(Debug, Default)]
pub struct Problems(Vec<(String, String)>);

impl Problems {
    /// `what` is a sentence that goes on after the key. A connection string that was typed under
    /// another key is not shown.
    pub fn add(&mut self, key: impl Into<String>, what: impl Into<String>) {
        let mut what = what.into();
        if what.contains("://") && what.contains('@') {
            what = "is not valid; it is not shown because it looks like a connection string".into();
        }
        self.0.push((key.into(), what));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing where nothing is wrong, else one config error that lists every problem on a line.
    pub fn into_result(self, file: &str) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let count = match self.0.len() {
            1 => "1 problem".to_owned(),
            many => format!("{many} problems"),
        };
        let mut message = format!("the configuration {file} has {count}:");
        for (key, what) in &self.0 {
            message.push_str(&format!("\n  {key}: {what}"));
        }
        Err(Error::config(message))
    }
}

/// The known name that was probably meant, if one is near enough.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let typed_last = last(typed);
    known
        .into_iter()
        .map(|name| {
            let distance = if last(name) == typed_last {
                1
            } else {
                edit_distance(typed, name)
            };
            (distance, edit_distance(typed, name), name)
        })
        .min()
        .filter(|(distance, _, _)| *distance <= SUGGESTION_DISTANCE_MAX.min(typed.len() / 2))
        .map(|(_, _, name)| name)
}

/// `; did you mean NAME?`, or nothing where no known name is near.
pub fn suggestion<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match nearest(typed, known) {
        Some(name) => format!("; did you mean {name}?"),
        None => String::new(),
    }
}

/// Levenshtein distance in bytes: near enough for names that are not ASCII.
fn edit_distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["apply.lanes", "apply.fence", "link.name", "clusters.a.name"];

    #[test]
    fn a_mistyped_key_finds_the_one_meant() {
        assert_eq!(nearest("apply.lane", KNOWN), Some("apply.lanes"));
        assert_eq!(nearest("aply.fnce", KNOWN), Some("apply.fence"));
        assert_eq!(nearest("limits.lanes", KNOWN), Some("apply.lanes"));
        assert_eq!(nearest("lanes", KNOWN), Some("apply.lanes"));
        assert_eq!(nearest("links.name", KNOWN), Some("link.name"));
    }

    #[test]
    fn a_key_far_from_all_finds_none() {
        assert_eq!(nearest("completely.other", KNOWN), None);
        assert_eq!(nearest("x", KNOWN), None);
    }

    #[test]
    fn a_mistyped_namespace_is_answered_with_the_nearest_one() {
        let known = ["shop.orders", "shop.items", "bank.accounts"];
        assert_eq!(
            suggestion("shop.order", known),
            "; did you mean shop.orders?"
        );
        assert_eq!(
            suggestion("shpo.items", known),
            "; did you mean shop.items?"
        );
        assert_eq!(suggestion("crm.people", known), "");
    }

    #[test]
    fn edit_distance_counts_letters() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let mut problems = Problems::default();
        problems.add("link.mode", "is wrong");
        problems.add("apply.lanes", "is wrong too");
        let error = problems.into_result("tandem.toml").unwrap_err();
        assert_eq!(error.exit as i32, 3);
        assert_eq!(
            error.to_string(),
            "the configuration tandem.toml has 2 problems:\n  link.mode: is wrong\n  apply.lanes: is wrong too"
        );
    }
}
