//! Patterns over `database.collection`: with `*` for any text, or a regular expression between slashes.

use regex::Regex;

/// One pattern, ready to be held against names.
#[derive(Debug, Clone)]
pub enum Pattern {
    Wildcard(String),
    Regex(Regex),
}

impl Pattern {
    /// No name of a database begins with a slash, so the two kinds cannot be mixed up.
    ///
    /// # Errors
    /// Why it is no regular expression, in one line.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let Some(expression) = expression_of(typed) else {
            return Ok(Pattern::Wildcard(typed.to_owned()));
        };
        Regex::new(expression).map(Pattern::Regex).map_err(|error| {
            let shown = error.to_string();
            let last = shown.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        })
    }

    pub fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Wildcard(pattern) => wildcard_matches(pattern, name),
            Pattern::Regex(expression) => expression.is_match(name),
        }
    }
}

/// Whether a name is what a typed pattern says; nothing is what a broken one says.
pub fn pattern_matches(typed: &str, name: &str) -> bool {
    Pattern::parse(typed).is_ok_and(|pattern| pattern.matches(name))
}

/// What stands between the slashes; none for a pattern with wildcards.
pub fn expression_of(typed: &str) -> Option<&str> {
    typed.strip_prefix('/')?.strip_suffix('/')
}

/// How every name begins that a pattern may match.
pub fn fixed_part(typed: &str) -> String {
    match expression_of(typed) {
        Some(expression) => fixed_part_of(expression),
        None => typed.split('*').next().unwrap_or_default().to_owned(),
    }
}

/// The database that every matching name is of, where the pattern leaves no other.
pub fn fixed_database(typed: &str) -> Option<String> {
    let fixed = fixed_part(typed);
    let (database, _) = fixed.split_once('.')?;
    Some(database.to_owned())
}

/// Whether a pattern matches every name that another one does, as far as that is certain.
pub fn pattern_covers(pattern: &str, other: &str) -> bool {
    let are_wildcards = expression_of(pattern).is_none() && expression_of(other).is_none();
    pattern == other || pattern == "*" || (are_wildcards && wildcard_matches(pattern, other))
}

/// Whether two patterns may name the same collection, judged by how matching names begin.
pub fn patterns_may_overlap(one: &str, other: &str) -> bool {
    let (left, right) = (fixed_part(one), fixed_part(other));
    let is_name = |pattern: &str| expression_of(pattern).is_none() && !pattern.contains('*');
    match (is_name(one), is_name(other)) {
        (true, true) => one == other,
        (true, false) => pattern_matches(other, one),
        (false, true) => pattern_matches(one, other),
        (false, false) => left.starts_with(&right) || right.starts_with(&left),
    }
}

/// Only what is certain: letters, digits and quoted signs right after the beginning.
fn fixed_part_of(expression: &str) -> String {
    let mut fixed = String::new();
    let Some(rest) = expression
        .strip_prefix('^')
        .filter(|rest| !rest.contains('|'))
    else {
        return fixed;
    };
    let mut signs = rest.chars().peekable();
    while let Some(sign) = signs.next() {
        let literal = match sign {
            '\\' => signs.next().filter(|quoted| quoted.is_ascii_punctuation()),
            '_' | '-' | ' ' => Some(sign),
            _ => Some(sign).filter(|sign| sign.is_alphanumeric()),
        };
        let Some(literal) = literal else { break };
        match signs.peek() {
            // It may be missing.
            Some('*' | '?' | '{') => break,
            Some('+') => {
                fixed.push(literal);
                break;
            }
            _ => fixed.push(literal),
        }
    }
    fixed
}

/// Whether `text` is what `pattern` says, where `*` stands for any run of characters.
pub fn wildcard_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_any_text() {
        for (pattern, text, expected) in [
            ("shop.*", "shop.orders", true),
            ("shop.*", "shop2.orders", false),
            ("*.orders", "shop.orders", true),
            ("shop.tmp_*", "shop.tmp_1", true),
            ("shop.tmp_*", "shop.temp", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "ac", false),
            ("a*a", "a", false),
            ("shop.orders", "shop.orders", true),
            ("shop.orders", "shop.orders2", false),
            ("*", "shop.orders", true),
            (r"/^shop\.o/", "shop.orders", true),
            (r"/^shop\.o/", "shopxorders", false),
            (r"/\.orders$/", "shop.orders", true),
            (r"/orders/", "bank.reorders2", true),
            (r"/^(shop|bank)\.[a-m]/", "bank.accounts", true),
            (r"/^(shop|bank)\.[a-m]/", "bank.users", false),
            (r"/(/", "shop.orders", false),
        ] {
            assert_eq!(pattern_matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn how_names_begin_is_never_said_of_more_than_is_certain() {
        for (pattern, fixed) in [
            ("shop.*", "shop."),
            ("shop.orders", "shop.orders"),
            (r"/^shop\.o/", "shop.o"),
            (r"/^shop\.orders?$/", "shop.order"),
            (r"/^shop\.o+x/", "shop.o"),
            (r"/^shop\.[a-z]/", "shop."),
            (r"/^sho{2}p/", "sh"),
            (r"/^shop|bank/", ""),
            (r"/shop\.orders/", ""),
            (r"/^sh\wp/", "sh"),
            (r"/^(?i)shop/", ""),
            (r"/^shop.orders/", "shop"),
        ] {
            assert_eq!(fixed_part(pattern), fixed, "{pattern}");
        }
        assert_eq!(fixed_database(r"/^shop\.o/").as_deref(), Some("shop"));
        assert_eq!(fixed_database(r"/^shop.o/"), None);
    }

    #[test]
    fn patterns_overlap_where_nothing_says_that_they_do_not() {
        for (one, other, expected) in [
            ("shop.orders", "shop.orders", true),
            ("shop.orders", "shop.users", false),
            ("shop.*", "shop.users", true),
            ("shop.*", "bank.*", false),
            (r"/^shop\./", "bank.*", false),
            (r"/^shop\./", "shop.o*", true),
            (r"/orders/", "bank.*", true),
            (r"/^shop\.o/", "shop.users", false),
        ] {
            assert_eq!(patterns_may_overlap(one, other), expected, "{one} {other}");
            assert_eq!(patterns_may_overlap(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_broken_expression_says_why_in_one_line() {
        let error = Pattern::parse("/shop(/").expect_err("broken");
        assert_eq!(error, "unclosed group");
    }
}
