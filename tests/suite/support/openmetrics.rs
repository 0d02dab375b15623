//! What a scraper refuses: the rules of OpenMetrics 1.0 for text, as far as they concern us.

use std::collections::{BTreeMap, BTreeSet};

/// Families by name.
pub type Families = BTreeMap<String, Family>;

#[derive(Debug, Default)]
pub struct Family {
    pub kind: String,
    pub unit: Option<String>,
    pub help: String,
    /// Values by what stands in the braces.
    pub samples: BTreeMap<String, f64>,
}

const KINDS: [&str; 3] = ["counter", "gauge", "info"];

/// Reads a page strictly; panics with the line that breaks a rule.
pub fn parse(page: &str) -> Families {
    let body = page.strip_suffix("# EOF\n").expect("it ends with # EOF");
    let mut families = Families::new();
    let mut current: Option<String> = None;
    let mut described = BTreeSet::new();
    for line in body.lines() {
        assert!(!line.is_empty() && line.trim() == line, "{line:?}");
        if let Some(about) = line.strip_prefix("# ") {
            let (what, rest) = about.split_once(' ').expect("what a comment tells");
            let (name, text) = rest.split_once(' ').expect("a name and a text");
            assert!(is_name(name), "{line:?}");
            if current.as_deref() != Some(name) {
                assert!(!families.contains_key(name), "{name} comes in two parts");
                families.insert(name.to_owned(), Family::default());
                current = Some(name.to_owned());
            }
            assert!(
                described.insert((name.to_owned(), what.to_owned())),
                "twice: {line:?}"
            );
            let family = families.get_mut(name).expect("just put");
            assert!(family.samples.is_empty(), "after samples: {line:?}");
            match what {
                "HELP" => family.help = text.to_owned(),
                "TYPE" => family.kind = text.to_owned(),
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{text}")), "{line:?}");
                    family.unit = Some(text.to_owned());
                }
                other => panic!("{other} in {line:?}"),
            }
        } else {
            let name = current
                .as_ref()
                .unwrap_or_else(|| panic!("no family: {line:?}"));
            sample(name, families.get_mut(name).expect("current"), line);
        }
    }
    for (name, family) in &families {
        assert!(
            KINDS.contains(&&*family.kind),
            "{name} is a {:?}",
            family.kind
        );
        assert!(!family.help.is_empty(), "{name} has no help");
        assert!(
            !name.ends_with("_total") && !name.ends_with("_info"),
            "{name}"
        );
    }
    families
}

fn sample(family_name: &str, family: &mut Family, line: &str) {
    let suffix = match family.kind.as_str() {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    };
    let rest = line.strip_prefix(family_name);
    let rest = rest.and_then(|rest| rest.strip_prefix(suffix));
    let rest = rest.unwrap_or_else(|| panic!("not of {family_name}: {line:?}"));
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => {
            let (labels, value) = rest.rsplit_once("} ").expect("closed");
            check_labels(labels, line);
            (labels, value)
        }
        None => ("", rest.strip_prefix(' ').expect("a blank")),
    };
    let value: f64 = value
        .parse()
        .unwrap_or_else(|_| panic!("no number: {line:?}"));
    if family.kind != "gauge" {
        assert!(value >= 0.0 && value.is_finite(), "{line:?}");
    }
    assert!(
        family.samples.insert(labels.to_owned(), value).is_none(),
        "twice: {line:?}"
    );
}

fn check_labels(labels: &str, line: &str) {
    let mut names = BTreeSet::new();
    let mut rest = labels;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line:?}"));
        assert!(is_name(name) && !name.contains(':'), "{name:?} in {line:?}");
        assert!(names.insert(name.to_owned()), "{name} twice in {line:?}");
        let mut escaped = false;
        let end = after.find(|c: char| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let after = &after[end.unwrap_or_else(|| panic!("not closed: {line:?}")) + 1..];
        rest = match after.strip_prefix(',') {
            Some(more) if !more.is_empty() => more,
            None if after.is_empty() => "",
            Some(_) | None => panic!("{after:?} in {line:?}"),
        };
    }
}

fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    let first = letters
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && letters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

impl Family {
    /// The value of the only sample whose labels have all of these.
    pub fn value(&self, with: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = with.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let mut found = self
            .samples
            .iter()
            .filter(|(labels, _)| wanted.iter().all(|label| labels.contains(label.as_str())));
        let one = found.next().map(|(_, value)| *value);
        assert!(found.next().is_none(), "{with:?} is not one of {self:?}");
        one.unwrap_or_else(|| panic!("{with:?} is not in {self:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_pages_are_refused() {
        for broken in [
            "# HELP a b\n# TYPE a gauge\na 1\n",
            "# TYPE a gauge\na 1\n# EOF\n",
            "# HELP a b\n# TYPE a counter\na 1\n# EOF\n",
            "# HELP a b\n# TYPE a gauge\na one\n# EOF\n",
            "# HELP a b\n# TYPE a gauge\na 1\na 2\n# EOF\n",
            "# HELP a b\n# TYPE a gauge\na{x=\"1\",} 1\n# EOF\n",
            "# HELP a b\n# TYPE a gauge\na{x=\"1} 1\n# EOF\n",
            "# HELP a b\n# TYPE a gauge\n# UNIT a seconds\na 1\n# EOF\n",
            "# HELP a b\n# TYPE a gauge\na 1\n# HELP b b\n# TYPE b gauge\n# HELP a b\n# EOF\n",
        ] {
            let refused = std::panic::catch_unwind(|| parse(broken)).is_err();
            assert!(refused, "{broken}");
        }
        let sound =
            parse("# HELP a_s b\n# TYPE a_s gauge\n# UNIT a_s s\na_s{x=\"1\\\"\"} 1\n# EOF\n");
        assert_eq!(sound["a_s"].value(&[]), 1.0);
    }
}
