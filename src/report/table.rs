//! Records as a table, in pages, so that a long report needs no more memory than a short one.

use bson::RawDocument;
use comfy_table::{Table, presets};

use super::csv_rows::cell;

const ROWS_PER_PAGE: usize = 500;
/// Keys may be whole documents; the other formats show them in full.
const KEY_CHARS_MAX: usize = 60;
const HEADER: [&str; 8] = [
    "logged at",
    "kind",
    "namespace",
    "key",
    "winner",
    "reason",
    "status",
    "id",
];

pub(super) struct Page {
    table: Table,
    rows: usize,
}

impl Page {
    pub(super) fn new() -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(HEADER);
        Self { table, rows: 0 }
    }

    /// Returns the page once it is full.
    pub(super) fn push(&mut self, record: &RawDocument) -> Option<String> {
        let text = |name: &str| escaped(&cell(record, &[name]));
        self.table.add_row([
            text("logged_at"),
            text("kind"),
            text("namespace"),
            shortened(&text("document_key")),
            text("winner"),
            text("reason"),
            text("status"),
            text("_id"),
        ]);
        self.rows += 1;
        (self.rows == ROWS_PER_PAGE).then(|| std::mem::replace(self, Self::new()).rest())
    }

    pub(super) fn rest(self) -> String {
        if self.rows == 0 {
            return String::new();
        }
        format!("{}\n", self.table.trim_fmt())
    }
}

/// A terminal obeys control characters, and names may hold them.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(KEY_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
