//! What every scenario needs: two replica sets, the built binary, a load and an oracle.

pub mod access;
pub mod compare;
pub mod env;
pub mod fail_points;
pub mod http;
pub mod load;
pub mod losses;
pub mod mongod;
pub mod openmetrics;
pub mod operators;
pub mod oplog;
pub mod oracle;
pub mod pool;
pub mod processes;
pub mod proxy;
pub mod random;
pub mod refusals;
pub mod replica_set;
pub mod scenario;
pub mod schema;
pub mod strace;
pub mod tandem;
pub mod wait;
pub mod webhook;
pub mod wired;
pub mod workload;
