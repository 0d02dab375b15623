//! Deciding: which writes raced, who won, and what must be sent. Pure; knows only `change`.

mod decide;
mod ledger;
mod plan;
mod rules;

pub use decide::{Action, Conflict, Decision};
pub use ledger::{Landed, Ledger, NoteToClear, StoredNotes};
pub use plan::{BatchLimits, Caution, Next, Plan, WaitingOn};
pub use rules::Rules;
