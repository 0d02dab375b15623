//! What a server says, as far as a log may show it: without documents and keys.

/// Codes whose message quotes keys outside of braces, which no log may show.
const CODES_QUOTING_DOCUMENTS: [i32; 4] = [
    121,   // DocumentValidationFailure
    11000, // DuplicateKey
    11001, // DuplicateKey, of old servers
    66,    // ImmutableField
];

/// Longest cause shown; the driver lists a whole topology where no server answers.
const CAUSE_CHARS_MAX: usize = 400;

/// An error's name, code and message.
pub(super) fn said(code: i32, name: Option<&str>, message: &str) -> String {
    let name = name.filter(|name| !name.is_empty()).unwrap_or("error");
    if message.is_empty() || CODES_QUOTING_DOCUMENTS.contains(&code) {
        format!("{name} ({code})")
    } else {
        format!("{name} ({code}): {}", without_documents(message))
    }
}

/// A server quotes documents, keys and whole commands in braces; of a command its name is enough.
fn without_documents(message: &str) -> String {
    let Some((before, quoted)) = message.split_once('{') else {
        return message.to_owned();
    };
    match before.ends_with("command ") {
        true => {
            let name = quoted.trim_start().split(':').next().unwrap_or_default();
            format!("{before}{name}")
        }
        false => format!("{before}{{…}}"),
    }
}

pub(super) fn shortened(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(CAUSE_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_command_that_is_not_authorized_only_its_name_is_shown() {
        let said = "not authorized on shop to execute command { insert: \"orders\", documents: [ { card: 4111 } ] }";
        assert_eq!(
            without_documents(said),
            "not authorized on shop to execute command insert"
        );
        assert_eq!(
            without_documents("Cannot create field 'b' in element {card: 4111}"),
            "Cannot create field 'b' in element {…}"
        );
    }
}
