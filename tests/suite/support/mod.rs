//! What every scenario needs: two replica sets, the built binary, a load and an oracle.

pub mod compare;
pub mod env;
pub mod losses;
pub mod mongod;
pub mod operators;
pub mod oplog;
pub mod oracle;
pub mod proxy;
pub mod random;
pub mod scenario;
pub mod schema;
pub mod strace;
pub mod tandem;
pub mod wait;
pub mod workload;
