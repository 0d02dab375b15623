//! Scenarios against real replica sets, in one program so that it is linked once.

mod harness;
mod oracle;
mod support;
