//! ONNX Runtime's telemetry, which stays off: law "nothing leaves the machine".

use std::io;

/// Official builds of ONNX Runtime, from 1.29 on, report processes, models and sessions to their
/// maker, and keep an identifier and a queue in the user's cache; so do plugin libraries. On Unix
/// this variable, with the value 1, is the only switch for all of it, and is read when a library is
/// loaded. On Windows, where WebGPU's plugin reports nothing, there is only
/// [`ort::environment::EnvironmentBuilder::with_telemetry`].
#[cfg(unix)]
const DISABLE_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// Makes sure that ONNX Runtime reports nothing, whichever library is loaded later. Call it before
/// any work is done: if the variable is not set, it starts the program again with it, as the same
/// process with the same streams, because a process cannot safely change its own variables.
///
/// # Errors
///
/// When the program cannot be started again.
pub fn silence() -> io::Result<()> {
    #[cfg(unix)]
    if std::env::var_os(DISABLE_TELEMETRY).is_none_or(|value| value != "1") {
        use std::os::unix::process::CommandExt;
        let mut arguments = std::env::args_os();
        let mut command = std::process::Command::new(std::env::current_exe()?);
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        // `exec` returns only if it fails.
        return Err(command.args(arguments).env(DISABLE_TELEMETRY, "1").exec());
    }
    Ok(())
}
