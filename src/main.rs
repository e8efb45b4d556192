//! The `interline` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = interline::runtime::silence_telemetry() {
        eprintln!("error: cannot start again without ONNX Runtime's telemetry: {error}");
        return ExitCode::FAILURE;
    }
    interline::cli::run()
}
