//! The `interline` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    interline::cli::run()
}
