//! Comparing both clusters of a link while they are written to.
//!
//! Every document of every included namespace is read once on both sides, in ranges of `_id`. What
//! differs then is only a suspect: it is read again until it is equal, or stays different though the
//! link has applied everything there was. The readers hand suspects on through a bounded queue, and
//! nothing holds more than a few batches and a bounded number of keys.

mod fields;
mod join;
mod lookup;
mod outcome;
mod piece;
mod progress;
mod repair;
mod report;
mod run;
mod schema;
mod settle;
mod watch;

pub(crate) use join::{Join, Suspect};
pub(crate) use lookup::digest;
pub(crate) use piece::PENDING_KEYS_MAX;
pub(crate) use schema::plan as compare_schemas;

pub use fields::{FieldDifference, FieldKind};
pub use outcome::{Counts, DifferenceKind, DifferingKey, Finding, Outcome, Verification};
pub use repair::{Repaired, repair};
pub use report::{as_json, as_table};
pub use run::{VerifyOptions, verify};
pub use schema::{NotCompared, SchemaDifference};
pub use settle::Reason;
