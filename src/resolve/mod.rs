//! Deciding: which writes raced, who won, and what must be sent. Pure; knows only `change`.

mod copies;
mod decide;
mod documents;
mod forget;
mod gate;
mod joined;
mod ledger;
mod notes;
mod plan;
mod progress;
mod recovery;
mod requests;
mod retries;
mod routing;
mod rules;
mod settle;
mod spool;
mod state;
mod stretch;
mod tally;
#[cfg(test)]
mod tests;
mod together;

pub use copies::Copied;
pub use decide::{Action, Conflict, Decision};
pub use documents::{Base, DocumentRules, Found};
pub use ledger::{Landed, Ledger};
pub use notes::{LostWrite, NoteToClear, StoredNotes};
pub use plan::{BatchLimits, Caution, Next, Plan, Share, WaitingOn};
pub use recovery::Room;
pub use requests::{Purpose, Request, Ticket, is_unread};
pub use rules::Rules;
pub use settle::Settle;
pub use spool::Spool;
pub use tally::{SettleRequest, Settlement, Tally};
