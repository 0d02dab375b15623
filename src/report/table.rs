//! Records as a table, in pages, so that a long report needs no more memory than a short one.

use bson::RawDocument;
use comfy_table::{Table, presets};

use super::csv_rows::cell;

const ROWS_PER_PAGE: usize = 500;
/// Keys may be whole documents; the other formats show them in full.
const KEY_CHARS_MAX: usize = 60;

/// A column's heading and the record's field in it.
type Column = (&'static str, &'static str);

const OF_CONFLICTS: &[Column] = &[
    ("logged at", "logged_at"),
    ("kind", "kind"),
    ("namespace", "namespace"),
    ("key", "document_key"),
    ("winner", "winner"),
    ("reason", "reason"),
    ("status", "status"),
    ("id", "_id"),
];
const OF_DEAD_LETTERS: &[Column] = &[
    ("logged at", "logged_at"),
    ("pipeline", "pipeline"),
    ("namespace", "namespace"),
    ("key", "document_key"),
    ("reason", "reason"),
    ("index", "index"),
    ("other key", "other_key"),
    ("id", "_id"),
];

pub(super) struct Page {
    columns: &'static [Column],
    table: Table,
    rows: usize,
}

impl Page {
    pub(super) fn of_conflicts() -> Self {
        Self::new(OF_CONFLICTS)
    }

    pub(super) fn of_dead_letters() -> Self {
        Self::new(OF_DEAD_LETTERS)
    }

    fn new(columns: &'static [Column]) -> Self {
        let mut table = Table::new();
        table
            .load_preset(presets::NOTHING)
            .set_header(columns.iter().map(|(heading, _)| *heading));
        Self {
            columns,
            table,
            rows: 0,
        }
    }

    /// Returns the page once it is full.
    pub(super) fn push(&mut self, record: &RawDocument) -> Option<String> {
        let text = |(_, field): &Column| {
            let text = escaped(&cell(record, &[field]));
            if field.ends_with("_key") {
                shortened(&text)
            } else {
                text
            }
        };
        self.table.add_row(self.columns.iter().map(text));
        self.rows += 1;
        let full = self.rows == ROWS_PER_PAGE;
        full.then(|| std::mem::replace(self, Self::new(self.columns)).rest())
    }

    pub(super) fn rest(self) -> String {
        if self.rows == 0 {
            return String::new();
        }
        format!("{}\n", self.table.trim_fmt())
    }
}

/// A terminal obeys control characters, and a reader is led astray by those that turn the direction
/// of writing; names may hold both.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns_text(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// Whether a character changes how the text around it is laid out, and is not seen itself.
pub fn turns_text(character: char) -> bool {
    matches!(
        character,
        '\u{61C}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{FEFF}'
    )
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
