//! What the benchmarks take from the suite. Each of them needs only a part.
#![allow(dead_code)]

#[path = "../suite/support/env.rs"]
pub mod env;
#[path = "../suite/support/mongod.rs"]
pub mod mongod;
#[path = "../suite/support/pool.rs"]
pub mod pool;
#[path = "../suite/support/processes.rs"]
pub mod processes;
#[path = "../suite/support/proxy.rs"]
pub mod proxy;
#[path = "../suite/support/random.rs"]
pub mod random;
#[path = "../suite/support/tandem.rs"]
pub mod tandem;
#[path = "../suite/support/wait.rs"]
pub mod wait;
