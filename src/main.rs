//! The program: parse, run, say what went wrong, exit with its code.

use tandem::cli;
use tandem::store;
use tandem::telemetry::panics;

/// A change event is a dozen small allocations that another thread frees: the C library's allocator
/// took a quarter of the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    panics::end_the_process(store::failure_of);
    let code = match cli::run(cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            cli::output::print_error(&error);
            error.exit
        }
    };
    std::process::exit(code as i32);
}
