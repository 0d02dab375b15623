//! Deciding: which writes raced, who won, and what must be sent. Pure; knows only `change`.

mod decide;
mod gate;
mod ledger;
mod notes;
mod plan;
mod recovery;
mod requests;
mod routing;
mod rules;
mod state;
#[cfg(test)]
mod tests;

pub use decide::{Action, Conflict, Decision};
pub use ledger::{Landed, Ledger};
pub use notes::{LostWrite, NoteToClear, StoredNotes};
pub use plan::{BatchLimits, Caution, Next, Plan, WaitingOn};
pub use recovery::Room;
pub use requests::{Purpose, Request, Ticket};
pub use rules::Rules;
