//! The `interline` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = interline::runtime::telemetry::silence() {
        eprintln!("error: cannot start again without ONNX Runtime's telemetry: {error}");
        return ExitCode::FAILURE;
    }
    interline::cli::run()
}
