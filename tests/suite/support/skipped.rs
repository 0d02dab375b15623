//! Tests that cannot do what they are there for on this machine.

use std::io::Write;

/// Names a file that gets a line for each of them.
const FILE: &str = "TANDEM_TEST_SKIPPED";

/// Says what the machine lacks; the test passes.
pub fn skipped(why: &str) {
    println!("SKIPPED: {why}");
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let file = std::fs::File::options()
        .append(true)
        .create(true)
        .open(path);
    let mut file = file.expect("the file of skipped tests");
    writeln!(file, "{test}: {why}").expect("a line");
}
