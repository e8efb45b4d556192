//! Runs programs on a problem's examples, in the sandbox.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::problem::{Check, Problem};
use crate::sandbox::{Ending, Limits, NoSandbox, Outcome, Program, Sandbox, on_path};
use crate::text::language::Language;

/// What a program that came to its end says last, where checks follow it.
const DONE: &str = "interline: all checks passed";

/// Has Python say its real path, and the folder in which all of it is.
const PYTHON_TELLS: &str = "import os, sys
print(os.path.realpath(sys.executable))
print(os.path.realpath(sys.base_prefix))";

/// Has Node say its real path twice: all of it is one file.
const NODE_TELLS: &str = "const path = require('fs').realpathSync(process.execPath);
console.log(path);
console.log(path);";

/// Runs programs in one language.
#[derive(Debug)]
pub struct Judge {
    sandbox: Sandbox,
    interpreter: Interpreter,
    limits: Limits,
}

#[derive(Debug)]
struct Interpreter {
    /// Its path and options, before the program's name.
    command: Vec<String>,
    /// Where it lives, if not among the system's programs.
    folders: Vec<PathBuf>,
}

/// Why nothing can be judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// There is no sandbox, and without one nothing is run.
    #[error("generated programs run only in a sandbox, and there is none: {0}")]
    Sandbox(#[from] NoSandbox),
    /// There is no interpreter.
    #[error("{0} is not on the PATH; install it to run programs in {1}")]
    Interpreter(&'static str, Language),
    /// The interpreter cannot be shown without the home.
    #[error(
        "{0} stands in a folder that has the home folder in it, which no program may see; install it elsewhere"
    )]
    Home(String),
    /// Programs in it cannot be run.
    #[error("programs in {0} cannot be run here; solve in Python or JavaScript")]
    Language(Language),
}

impl Judge {
    /// Finds sandbox and interpreter.
    ///
    /// # Errors
    ///
    /// See [`JudgeError`].
    pub fn find(language: Language) -> Result<Self, JudgeError> {
        let (program, options, tell): (_, &[&str], _) = match language {
            Language::Python => ("python3", &["-I"], ["-Ic", PYTHON_TELLS]),
            Language::JavaScript => ("node", &[], ["-e", NODE_TELLS]),
            other => return Err(JudgeError::Language(other)),
        };
        let missing = || JudgeError::Interpreter(program, language);
        let found = std::env::var_os("PATH").and_then(|path| on_path(program, &path));
        let (path, place) = ask(&found.ok_or_else(missing)?, tell).ok_or_else(missing)?;
        let place = PathBuf::from(place);
        // Where the home stands in it, the sandbox would have no use.
        let home = directories::UserDirs::new().map(|user| user.home_dir().to_path_buf());
        if home.is_some_and(|home| home.starts_with(&place)) {
            return Err(JudgeError::Home(path));
        }
        let system = ["/usr", "/bin"]
            .iter()
            .any(|system| place.starts_with(system));
        Ok(Self {
            sandbox: Sandbox::find()?,
            interpreter: Interpreter {
                command: std::iter::once(path)
                    .chain(options.iter().map(|option| (*option).to_owned()))
                    .collect(),
                folders: if system { Vec::new() } else { vec![place] },
            },
            limits: Limits::default(),
        })
    }

    /// Whether a program does what the problem's examples say.
    ///
    /// # Errors
    ///
    /// When the sandbox cannot be set up.
    pub fn passes(
        &self,
        problem: &Problem,
        program: &str,
        cancelled: &impl Fn() -> bool,
    ) -> io::Result<bool> {
        let mut asserts = String::new();
        for check in &problem.checks {
            match check {
                Check::Assert(statement) => {
                    asserts.push_str(statement);
                    asserts.push('\n');
                }
                Check::Io { input, output } => {
                    let done = self.run(program, input, cancelled)?;
                    let written = String::from_utf8_lossy(&done.stdout);
                    if done.ending != Ending::Exited(0) || !same(&written, output) {
                        return Ok(false);
                    }
                }
            }
        }
        if asserts.is_empty() {
            return Ok(true);
        }
        // A program that ends before the checks has not passed them.
        let done = match problem.language {
            Language::Python => format!("print({DONE:?})"),
            _ => format!("console.log({DONE:?})"),
        };
        let done = self.run(&format!("{program}\n{asserts}{done}\n"), "", cancelled)?;
        let written = String::from_utf8_lossy(&done.stdout);
        Ok(done.ending == Ending::Exited(0) && written.trim_end().ends_with(DONE))
    }

    /// What a program does on each of `inputs`: calls of its function, or standard input.
    ///
    /// # Errors
    ///
    /// When the sandbox cannot be set up.
    pub fn behaviour(
        &self,
        problem: &Problem,
        program: &str,
        inputs: &[String],
        cancelled: &impl Fn() -> bool,
    ) -> io::Result<Vec<String>> {
        if problem.function.is_none() {
            let run = |input: &String| Ok(self.run(program, input, cancelled)?.shown());
            return inputs.iter().map(run).collect();
        }
        let mut text = format!("{program}\n");
        for call in inputs {
            text.push_str(&format!(
                "try:\n    print(repr(eval({})))\nexcept BaseException as error:\n    print(type(error).__name__)\n",
                // A string of JSON is one of Python.
                serde_json::Value::from(call.as_str())
            ));
        }
        Ok(vec![self.run(&text, "", cancelled)?.shown()])
    }

    fn run(&self, text: &str, input: &str, cancelled: &impl Fn() -> bool) -> io::Result<Outcome> {
        let Interpreter { command, folders } = &self.interpreter;
        let mut command: Vec<_> = command.iter().map(String::as_str).collect();
        command.push("solution");
        let folders: Vec<_> = folders.iter().map(PathBuf::as_path).collect();
        let program = Program {
            command: &command,
            files: &[("solution", text)],
            folders: &folders,
            stdin: input.as_bytes(),
        };
        self.sandbox.run(&program, &self.limits, cancelled)
    }
}

impl Outcome {
    /// What the program wrote, and how it ended where that is not well.
    fn shown(&self) -> String {
        let written = String::from_utf8_lossy(&self.stdout);
        match self.ending {
            Ending::Exited(0) => written.trim_end().to_owned(),
            ending => format!("{ending:?} {}", written.trim_end()),
        }
    }
}

/// Asks an interpreter for its real path and the place it lives in.
fn ask(interpreter: &Path, tell: [&str; 2]) -> Option<(String, String)> {
    let output = Command::new(interpreter).args(tell).output().ok()?;
    let output = String::from_utf8(output.stdout).ok()?;
    let (path, place) = output.trim().split_once('\n')?;
    Some((path.trim().to_owned(), place.trim().to_owned()))
}

/// Whether two outputs say the same, but for blanks at the ends of lines and of the text.
fn same(a: &str, b: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        text.trim_end()
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    };
    lines(a) == lines(b)
}
