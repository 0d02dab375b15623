//! The numbers at the top of the page.

use std::fmt::Write;

use super::grouped;
use crate::report::ReportHead;
use crate::report::summary::{Summary, Writes};

struct Card<'a> {
    look: &'a str,
    number: String,
    name: &'a str,
    why: &'a str,
}

/// A number has its colour where it is worth a look.
fn card<'a>(look: &'a str, number: u64, names: [&'a str; 2], why: &'a str) -> Card<'a> {
    Card {
        look: if number > 0 { look } else { "" },
        number: grouped(number),
        name: names[usize::from(number != 1)],
        why,
    }
}

pub(super) fn write(out: &mut String, summary: &Summary, head: &ReportHead) {
    let of = |status: &str| summary.by_status.get(status).copied().unwrap_or(0);
    let letters = summary.by_kind.get("dead_letter").copied().unwrap_or(0);
    let [lost, overturned, restored] = ["logged", "overturned", "restored"].map(of);
    let mut cards = vec![
        card(
            "",
            summary.total,
            ["record", "records"],
            "one for each losing write",
        ),
        card("lost", lost, ["still lost"; 2], "kept on record only"),
        card(
            "good",
            overturned,
            ["overturned"; 2],
            "a later write held it",
        ),
        card(
            "good",
            restored,
            ["restored"; 2],
            "somebody brought it back",
        ),
    ];
    if letters > 0 {
        let names = ["dead letter", "dead letters"];
        cards.push(card("bad", letters, names, "could not be applied"));
    }
    let read = summary.writes.map(|writes| read(writes, head));
    if let (Some(writes), Some(read)) = (summary.writes, &read) {
        cards.push(Card {
            look: "",
            number: share(writes),
            name: "lost of all writes",
            why: read,
        });
    }
    out.push_str("<section class=\"cards\" aria-label=\"Counts\">\n");
    for Card {
        look,
        number,
        name,
        why,
    } in cards
    {
        let _ = writeln!(
            out,
            "<div class=\"card {look}\"><b>{number}</b><span>{name}</span><small>{why}</small></div>"
        );
    }
    out.push_str("</section>\n");
}

fn read(writes: Writes, head: &ReportHead) -> String {
    let total = grouped(writes.read_total);
    if head.filters.is_empty() {
        format!("of {total} read")
    } else {
        format!("of {total} read, whatever the filters")
    }
}

/// With as many digits as tell something.
fn share(writes: Writes) -> String {
    match writes.lost_share.map(|share| share * 100.0) {
        None => "-".to_owned(),
        Some(0.0) => "0 %".to_owned(),
        Some(share) if share < 0.01 => "&lt;0.01 %".to_owned(),
        Some(share) => format!("{share:.2} %"),
    }
}
