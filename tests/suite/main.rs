//! Scenarios against real replica sets, in one program so that it is linked once.

mod conflicts;
mod crash;
mod ddl;
mod ddl_crash;
mod ddl_one_way;
mod ddl_two_way;
mod exit_codes;
mod fences;
mod harness;
mod initial_sync;
mod one_way;
mod oracle;
mod outage;
mod ranges;
mod records;
mod runs;
mod scenarios_values;
mod scenarios_writes;
mod status;
mod support;
mod takeover;
mod two_way;
mod unique_values;
mod verify;
